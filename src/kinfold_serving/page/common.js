// What the views share. Names reach the page as text alone, never as HTML.

export const API = "/api/v1";

/** Ask the API; throws an Error with its one sentence. */
export async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(API + path, options);
  } catch {
    throw new Error("The server does not answer. Is kinfold serve still running?");
  }
  const content = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(content.detail || `The server answered ${answer.status}.`);
  return { status: answer.status, content };
}

/** An element with properties and children; strings become text. */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined) continue;
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

export const byId = (id) => document.getElementById(id);

export const named = (label) => (label === null ? "no label" : label);

export const itemLink = (id) => `#/item?id=${encodeURIComponent(id)}`;

export const classLink = (label) =>
  label === null ? "#/class" : `#/class?label=${encodeURIComponent(label)}`;

/** The picture of an item, or a tile that says that there is none. */
export function picture(item, alt = "") {
  const none = () => make("div", { className: "picture" }, "no picture");
  if (!item.image) return none();
  const image = make("img", { className: "picture", alt, loading: "lazy" });
  image.addEventListener("error", () => image.replaceWith(none()));
  image.src = item.image;
  return image;
}

/** A card that leads to an item. */
export function card(item, ...lines) {
  const link = make("a", { className: "card", href: itemLink(item.id), title: item.id });
  link.append(picture(item, item.id), make("span", { className: "label" }, named(item.label)));
  link.append(...lines.map((line) => make("span", { className: "soft" }, line)));
  return link;
}

export const number = (value) => value.toLocaleString("en");

export const percent = (share) =>
  `${(100 * share).toFixed(share > 0 && share < 0.1 ? 2 : 1)}%`;

export function tell(error) {
  byId("problem").textContent = error ? error.message : "";
}
