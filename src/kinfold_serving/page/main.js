// The views, by what follows # in the address.

import { ask, byId, number, tell } from "./common.js";
import * as classes from "./classes.js";
import * as map from "./map.js";
import * as search from "./search.js";
import * as threshold from "./threshold.js";

const VIEWS = ["search", "classes", "class", "item", "map"];

async function route() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const asked = new URLSearchParams(query || "");
  const view = VIEWS.includes(path) ? path : "search";
  for (const one of VIEWS) byId(`view-${one}`).hidden = one !== view;
  for (const link of document.querySelectorAll("nav a[data-view]")) {
    const here = link.dataset.view === view || (link.dataset.view === "classes" && view === "class");
    if (here) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  tell(null);
  try {
    if (view === "classes") await classes.showClasses();
    if (view === "class") await classes.showClass(asked.get("label"));
    if (view === "item") await search.showItem(asked.get("id") || "");
    if (view === "map") await map.show(asked.get("id"));
  } catch (error) {
    tell(error);
  }
}

async function begin() {
  byId("skip").addEventListener("click", (event) => {
    event.preventDefault();
    byId("main").focus();
  });
  const { content: about } = await ask("/about");
  document.title = `${about.name} · Kinfold`;
  byId("run").textContent = about.name;
  byId("facts").textContent =
    `${number(about.items)} items, ${number(about.classes)} classes, ${about.dimension} dimensions`;
  search.begin(about);
  classes.begin();
  map.begin();
  window.addEventListener("hashchange", () => {
    route();
    byId("main").focus({ preventScroll: true });
    window.scrollTo(0, 0);
  });
  await Promise.all([threshold.begin(search.judgeAll), route()]);
  document.body.dataset.ready = "yes";
}

begin().catch(tell);
