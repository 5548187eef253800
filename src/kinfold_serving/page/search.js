// Images dropped, pasted or chosen, and what is nearest to each.

import { ask, byId, card, make, named, picture, tell } from "./common.js";
import { accepts } from "./threshold.js";

let about = {};
let running = 0;

export function begin(facts) {
  about = facts;
  const drop = byId("drop"), file = byId("file");
  if (!about.takes_images) {
    drop.replaceChildren("This model takes vectors, not images: search by the API, or from an item.");
    return;
  }
  byId("limit").textContent = `Up to ${about.largest / 2 ** 20} MiB and 50 million pixels each.`;
  file.addEventListener("change", () => {
    searchAll(file.files);
    file.value = "";
  });
  for (const name of ["dragenter", "dragover"]) {
    document.addEventListener(name, (event) => {
      event.preventDefault();
      drop.classList.add("over");
    });
  }
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) drop.classList.remove("over");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    searchAll(event.dataTransfer.files);
  });
  document.addEventListener("paste", (event) => searchAll(event.clipboardData.files));
  byId("clear").addEventListener("click", () => {
    for (const image of byId("results").querySelectorAll("img[data-own]")) URL.revokeObjectURL(image.src);
    byId("results").replaceChildren();
    byId("clear").hidden = true;
    file.focus();
  });
}

async function searchAll(files) {
  const images = [...files];
  if (!images.length) return;
  if (!location.hash.match(/^#?\/?$/)) location.hash = "#/";
  tell(null);
  const waiting = images.map(searchOne); // shown in their order, whichever is answered first
  for (const one of waiting) await one;
}

async function searchOne(file) {
  const place = make("section", { className: "result" }, make("h2", {}, file.name || "image"));
  byId("results").prepend(place);
  byId("clear").hidden = false;
  told(1);
  try {
    if (file.size > about.largest) {
      throw new Error(`${file.name} is larger than ${about.largest / 2 ** 20} MiB.`);
    }
    const body = new FormData();
    body.append("images", file);
    const k = Math.min(100, Math.max(1, Math.round(Number(byId("k").value)) || 8));
    const { content } = await ask(`/search?k=${k}`, { method: "POST", body });
    show(place, file, content.results[0]);
  } catch (error) {
    place.append(make("p", { className: "no", role: "alert" }, error.message));
  }
  told(-1);
}

function told(more) {
  running += more;
  byId("busy").textContent = running ? `Searching for ${running} ${running > 1 ? "images" : "image"}…` : "";
}

function show(place, file, result) {
  const image = make("img", { alt: "The image that was searched for", "data-own": "" });
  image.src = URL.createObjectURL(file);
  const verdict = make("p", { className: "verdict", role: "status" });
  const grid = neighbours(result.neighbours);
  place.append(
    verdict,
    make("div", { className: "both" }, make("figure", { className: "query" }, image), grid),
  );
  place.result = result;
  judge(place);
}

/** Cards of neighbours with their distances. */
export function neighbours(found) {
  const grid = make("div", { className: "grid" });
  for (const one of found) {
    const link = card(one, `distance ${one.distance.toFixed(4)}`);
    link.distance = one.distance;
    link.append(make("span", { className: "far-word" }));
    grid.append(link);
  }
  return grid;
}

/** Decide again about everything that is shown, as the slider stands. */
export function judgeAll() {
  for (const place of document.querySelectorAll(".result")) judge(place);
}

function judge(place) {
  for (const link of place.querySelectorAll(".card")) {
    const near = accepts(link.distance);
    link.classList.toggle("away", near === false);
    link.querySelector(".far-word").textContent = near === false ? "too far" : "";
  }
  const verdict = place.querySelector(".verdict");
  if (!verdict || !place.result) return;
  const [first] = place.result.neighbours;
  const near = first ? accepts(first.distance) : null;
  verdict.className = `verdict ${near ? "yes" : near === false ? "no" : "soft"}`;
  if (near === null) verdict.textContent = first ? `Nearest: ${named(first.label)}` : "Nothing found.";
  else verdict.textContent = near ? `Known: ${named(first.label)}` : "Unknown: the nearest is too far";
}

/** The page of an item: its picture, its class, what is nearest to it. */
export async function showItem(id) {
  const place = byId("item");
  place.replaceChildren();
  const query = `id=${encodeURIComponent(id)}`;
  const [{ content: item }, { content: found }] = await Promise.all([
    ask(`/items?${query}`),
    ask(`/items/neighbours?${query}&k=12`),
  ]);
  const image = picture(item, item.id);
  image.classList.add("large");
  const label = make(
    "a",
    { href: item.label === null ? "#/class" : `#/class?label=${encodeURIComponent(item.label)}` },
    named(item.label),
  );
  place.replaceChildren(
    make("h1", {}, item.id),
    image,
    make("p", {}, "Class: ", label, " · ", make("a", { href: `#/map?id=${encodeURIComponent(id)}` }, "show on the map")),
    make("div", { className: "result" }, make("h2", {}, "Nearest items"), neighbours(found.results[0].neighbours)),
  );
  judgeAll();
}


