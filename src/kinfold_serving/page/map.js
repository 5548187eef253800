// The map: items in the plane, to wander in with the mouse, a finger or the keyboard.

import { ask, byId, card, classLink, itemLink, make, named, number, picture, tell } from "./common.js";

const dark = window.matchMedia("(prefers-color-scheme: dark)");
let library = null;
let content = null; // what /map has answered
let rowOf = new Map();
let picked = -1;
let round = 0; // of drawing; an older one that is answered later is dropped

export function begin() {
  for (const one of document.querySelectorAll("input[name=method]")) {
    one.addEventListener("change", () => show(null).catch(tell));
  }
  dark.addEventListener("change", () => content && draw());
  byId("map").addEventListener("keydown", pressed);
}

/** Show the map, with an item chosen if an id is given. */
export async function show(id) {
  const mine = ++round;
  await loaded();
  const method = document.querySelector("input[name=method]:checked").value;
  if (method === "tsne" && content === null) await place("pca", mine); // at once, until it is ready
  await place(method, mine);
  if (mine === round && id !== null) await pick(rowOf.has(id) ? rowOf.get(id) : -1, id);
}

async function place(method, mine) {
  for (;;) {
    const answer = await ask(`/map?method=${method}`);
    if (mine !== round) return;
    if (answer.status !== 202) {
      content = answer.content;
      break;
    }
    byId("map-words").textContent = "The neighbours are being placed…";
    await new Promise((done) => setTimeout(done, 700));
    if (mine !== round) return;
  }
  rowOf = new Map(content.items.map((item, row) => [item.id, row]));
  const some = content.items.length < content.total
    ? `${number(content.items.length)} of ${number(content.total)} items, drawn at random.`
    : `${number(content.total)} items.`;
  byId("map-words").textContent =
    `${some} Drag or use two fingers to move and zoom. With the keyboard: arrows, +, -, 0, Enter.`;
  if (picked >= content.items.length) picked = -1;
  draw();
  if (picked < 0) nothing();
}

function loaded() {
  library ??= new Promise((done, failed) => {
    const script = make("script", { src: "/libraries/plotly.min.js" });
    script.addEventListener("load", done);
    script.addEventListener("error", () => failed(new Error("The map's library did not load.")));
    document.head.append(script);
  });
  return library;
}

function colours() {
  const labels = [...new Set(content.items.map((item) => item.label))];
  const light = dark.matches ? "66%" : "42%";
  const of = new Map(
    labels.map((label, k) => [label, `hsl(${(k * 137.508) % 360}, ${45 + 20 * (k % 3)}%, ${light})`]),
  );
  return content.items.map((item) => (item.label === null ? "#888" : of.get(item.label)));
}

function draw() {
  const place = byId("map");
  const size = content.items.length > 1500 ? 6 : 9;
  const points = {
    type: "scatter", mode: "markers", x: content.x, y: content.y, hoverinfo: "none",
    marker: { color: colours(), size, opacity: 0.85 },
  };
  const axis = { visible: false, zeroline: false, fixedrange: false };
  const layout = {
    margin: { l: 0, r: 0, t: 0, b: 0 }, showlegend: false, dragmode: "pan", hovermode: "closest",
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    xaxis: { ...axis, range: [-1.08, 1.08] },
    yaxis: { ...axis, range: [-1.08, 1.08] },
  };
  const ink = getComputedStyle(document.body).color;
  const ring = {
    type: "scatter", mode: "markers", x: [], y: [], hoverinfo: "skip",
    marker: { color: "rgba(0,0,0,0)", size: size + 9, line: { color: ink, width: 2.5 } },
  };
  const near = { ...ring, marker: { ...ring.marker, size: size + 5, line: { color: ink, width: 1.2 } } };
  const options = { scrollZoom: true, displayModeBar: false, responsive: true, doubleClick: "reset" };
  window.Plotly.react(place, [points, near, ring], layout, options);
  place.removeAllListeners?.("plotly_click");
  place.on("plotly_click", (event) => {
    const point = event.points.find((one) => one.curveNumber === 0);
    if (point) pick(point.pointNumber).catch(tell);
  });
  if (picked >= 0) mark(picked, []);
}

function mark(row, others) {
  const at = (rows) => [rows.map((one) => content.x[one]), rows.map((one) => content.y[one])];
  const [nearX, nearY] = at(others), [x, y] = at(row < 0 ? [] : [row]);
  window.Plotly.restyle(byId("map"), { x: [nearX, x], y: [nearY, y] }, [1, 2]);
}

function nothing() {
  byId("map-item").replaceChildren(
    make("h2", {}, "Wander"),
    make("p", { className: "soft" }, "Choose a point to see it and what is nearest to it."),
  );
  byId("map-neighbours").replaceChildren();
}

/** Show an item beside the map, and what is nearest to it; it may not be one that is drawn. */
async function pick(row, id = content.items[row].id) {
  picked = row;
  const item = row < 0 ? (await ask(`/items?id=${encodeURIComponent(id)}`)).content : content.items[row];
  mark(row, []);
  byId("map-neighbours").replaceChildren();
  byId("map-item").replaceChildren(
    picture(item, item.id),
    make("h2", {}, make("a", { href: classLink(item.label) }, named(item.label))),
    make("p", {}, make("a", { href: itemLink(item.id) }, item.id)),
  );
  if (row < 0) byId("map-item").append(make("p", { className: "soft" }, "It is not among the items that are drawn."));
  const { content: found } = await ask(`/items/neighbours?id=${encodeURIComponent(id)}&k=9`);
  if (picked !== row) return;
  const near = found.results[0].neighbours;
  mark(row, near.filter((one) => rowOf.has(one.id)).map((one) => rowOf.get(one.id)));
  const grid = make("div", { className: "grid" });
  for (const one of near) {
    const link = card(one, one.distance.toFixed(3));
    link.addEventListener("click", (event) => {
      event.preventDefault();
      pick(rowOf.has(one.id) ? rowOf.get(one.id) : -1, one.id).catch(tell);
    });
    grid.append(link);
  }
  byId("map-neighbours").replaceChildren(make("h2", {}, "Nearest"), grid);
}

const WAYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

function pressed(event) {
  if (!content || event.ctrlKey || event.metaKey || event.altKey) return;
  const way = WAYS[event.key];
  if (way) step(way);
  else if (event.key === "+" || event.key === "=") zoom(0.7);
  else if (event.key === "-") zoom(1 / 0.7);
  else if (event.key === "0") window.Plotly.relayout(byId("map"), ranges([0, 0], [1.08, 1.08]));
  else if (event.key === "Enter" && picked >= 0) byId("map-neighbours").querySelector("a")?.focus();
  else return;
  event.preventDefault();
}

/** Go to the item that is nearest in a direction. */
function step([dx, dy]) {
  const from = picked < 0 ? [0, 0] : [content.x[picked], content.y[picked]];
  let best = -1, least = Infinity;
  for (let row = 0; row < content.items.length; row++) {
    const x = content.x[row] - from[0], y = content.y[row] - from[1];
    const along = x * dx + y * dy, aside = Math.abs(x * dy) + Math.abs(y * dx);
    if (row === picked || (picked >= 0 && (along <= 0 || aside > 2 * along))) continue;
    const far = picked < 0 ? x * x + y * y : along + 2 * aside;
    if (far < least) [best, least] = [row, far];
  }
  if (best < 0) return;
  pick(best).catch(tell);
  keepInView(best);
}

function middle() {
  const { xaxis, yaxis } = byId("map")._fullLayout;
  const half = (range) => [(range[0] + range[1]) / 2, (range[1] - range[0]) / 2];
  const [x, width] = half(xaxis.range), [y, height] = half(yaxis.range);
  return { at: [x, y], size: [width, height] };
}

function ranges([x, y], [width, height]) {
  return { "xaxis.range": [x - width, x + width], "yaxis.range": [y - height, y + height] };
}

function zoom(by) {
  const { at, size } = middle();
  const around = picked < 0 ? at : [content.x[picked], content.y[picked]];
  window.Plotly.relayout(byId("map"), ranges(around, [size[0] * by, size[1] * by]));
}

function keepInView(row) {
  const { at, size } = middle();
  const away = [content.x[row] - at[0], content.y[row] - at[1]];
  if (Math.abs(away[0]) > size[0] || Math.abs(away[1]) > size[1]) {
    window.Plotly.relayout(byId("map"), ranges([content.x[row], content.y[row]], size));
  }
}
