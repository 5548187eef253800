// The classes of the index, and the items of one.

import { ask, byId, card, classLink, make, named, number, picture, tell } from "./common.js";

const EACH = 60;
let shown = { query: null, classes: 0, label: undefined, members: 0 };
let waiting = 0;

export function begin() {
  byId("class-query").addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => showClasses().catch(tell), 200);
  });
  byId("more-classes").addEventListener("click", () => moreClasses().catch(tell));
  byId("more-members").addEventListener("click", () => moreMembers().catch(tell));
}

export async function showClasses() {
  shown.query = byId("class-query").value;
  shown.classes = 0;
  await moreClasses();
}

async function moreClasses() {
  const { query, classes: offset } = shown;
  const { content } = await ask(
    `/classes?q=${encodeURIComponent(query)}&offset=${offset}&limit=${EACH}`,
  );
  if (query !== shown.query || offset !== shown.classes) return; // another answer came first
  const grid = byId("class-grid");
  if (!offset) grid.replaceChildren();
  for (const one of content.classes) {
    const link = make("a", { className: "card", href: classLink(one.label) });
    link.append(
      picture(one.example),
      make("span", { className: "label" }, named(one.label)),
      make("span", { className: "soft" }, `${number(one.items)} ${one.items > 1 ? "items" : "item"}`),
    );
    grid.append(link);
  }
  shown.classes += content.classes.length;
  byId("class-count").textContent =
    `${number(content.total)} ${content.total === 1 ? "class" : "classes"}` + (query ? " with this in their names" : "");
  byId("more-classes").hidden = shown.classes >= content.total;
}

export async function showClass(label) {
  shown.label = label;
  shown.members = 0;
  byId("class-title").textContent = named(label);
  byId("member-grid").replaceChildren();
  await moreMembers();
}

async function moreMembers() {
  const { label, members: offset } = shown;
  const which = label === null ? "" : `label=${encodeURIComponent(label)}&`;
  const { content } = await ask(`/classes/items?${which}offset=${offset}&limit=${EACH}`);
  if (label !== shown.label || offset !== shown.members) return;
  byId("member-grid").append(...content.items.map((item) => card(item, item.id)));
  shown.members += content.items.length;
  byId("member-count").textContent = `${number(content.total)} ${content.total === 1 ? "item" : "items"}`;
  byId("more-members").hidden = shown.members >= content.total;
}
