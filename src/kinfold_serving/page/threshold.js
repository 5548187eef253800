// The threshold on a slider, with false accepts and rejects as it moves.

import { ask, byId, percent } from "./common.js";

const SVG = "http://www.w3.org/2000/svg";
const LEFT = 36, RIGHT = 312, TOP = 8, BOTTOM = 160;
let curves = {};
let heard = () => {};
let chosenDistance = null; // exact, though the slider has steps

/** The distance chosen; null where the run is not calibrated. */
export function chosen() {
  return current() ? chosenDistance : null;
}

/** Whether a distance is near enough; null where the run is not calibrated. */
export function accepts(distance) {
  const limit = chosen();
  if (limit === null) return null;
  return current().similarity ? distance >= limit : distance <= limit;
}

export async function begin(listener) {
  heard = listener;
  byId("slider").addEventListener("input", slid);
  byId("reset").addEventListener("click", reset);
  for (const one of document.querySelectorAll("input[name=per]")) one.addEventListener("change", reset);
  await load();
}

async function load() {
  const { content } = await ask("/threshold");
  curves = content;
  byId("threshold-none").hidden = Boolean(current());
  byId("threshold-some").hidden = !current();
  byId("threshold-none").textContent =
    `There are no verdicts, as there is no threshold. ${content.why}`;
  if (current()) reset();
}

function current() {
  const per = document.querySelector("input[name=per]:checked").value;
  return curves[per] || curves.query || curves.pair;
}

function ends(curve) {
  const all = [...curve.distance, curve.current];
  const low = Math.min(...all), high = Math.max(...all);
  const room = 0.05 * (high - low) || 0.01;
  return [curve.similarity ? low - room : Math.max(0, low - room), high + room];
}

/** False accepts and rejects at a distance: those of the last point that it reaches. */
export function ratesAt(curve, distance) {
  let best = -1;
  for (let k = 0; k < curve.distance.length; k++) {
    const reached = curve.similarity ? curve.distance[k] >= distance : curve.distance[k] <= distance;
    if (reached && (best < 0 || curve.far[k] >= curve.far[best])) best = k;
  }
  const frr = curve.frr === null ? null : best < 0 ? 1 : curve.frr[best];
  return { far: best < 0 ? 0 : curve.far[best], frr };
}

function reset() {
  const curve = current();
  const [low, high] = ends(curve);
  chosenDistance = curve.current;
  byId("slider").value = String(Math.round((1000 * (curve.current - low)) / (high - low)));
  draw(curve);
  moved();
}

function slid() {
  const [low, high] = ends(current());
  chosenDistance = low + ((high - low) * Number(byId("slider").value)) / 1000;
  moved();
}

function moved() {
  const curve = current();
  const distance = chosen();
  const { far, frr } = ratesAt(curve, distance);
  byId("distance").textContent = distance.toFixed(4);
  byId("far").textContent = percent(far);
  byId("frr").textContent = frr === null ? "not known" : percent(frr);
  const of = curve.per === "pair" ? "pairs of two classes" : "searches for unknown classes";
  const others = curve.per === "pair" ? "pairs of one class" : "searches for known classes";
  const interval = curve.interval
    ? ` On classes never seen, the run's own threshold accepts ${percent(curve.interval[0])} to ` +
      `${percent(curve.interval[1])} (95%).`
    : "";
  const unknown = frr === null ? " None of these classes is in the index, so false rejects are not known." : "";
  byId("threshold-words").textContent =
    `False accepts are a share of ${of}, false rejects of ${others}: measured on ` +
    `${curve.examples} examples of ${curve.classes} classes that the model did not learn.${unknown}${interval}`;
  byId("slider").setAttribute(
    "aria-valuetext",
    `${distance.toFixed(4)}: ${percent(far)} false accepts, ` +
      (frr === null ? "false rejects not known" : `${percent(frr)} false rejects`),
  );
  const line = byId("chart").querySelector(".now");
  const at = LEFT + ((RIGHT - LEFT) * Number(byId("slider").value)) / 1000;
  line.setAttribute("x1", at);
  line.setAttribute("x2", at);
  heard();
}

function shape(tag, attributes, text) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

function draw(curve) {
  const chart = byId("chart");
  while (chart.lastElementChild && chart.lastElementChild.tagName !== "title") {
    chart.lastElementChild.remove();
  }
  const [low, high] = ends(curve);
  const y = (share) => BOTTOM - (BOTTOM - TOP) * share;
  for (const share of [0, 0.5, 1]) {
    chart.append(shape("path", { class: "axis", d: `M${LEFT} ${y(share)}H${RIGHT}` }));
    chart.append(
      shape("text", { x: LEFT - 5, y: y(share) + 4, "text-anchor": "end" }, `${100 * share}%`),
    );
  }
  chart.append(shape("text", { x: LEFT, y: BOTTOM + 16 }, low.toFixed(2)));
  chart.append(shape("text", { x: RIGHT, y: BOTTOM + 16, "text-anchor": "end" }, high.toFixed(2)));
  chart.append(
    shape("text", { x: (LEFT + RIGHT) / 2, y: BOTTOM + 16, "text-anchor": "middle" }, "distance"),
  );
  for (const name of ["far", "frr"]) {
    if (curve.frr === null && name === "frr") continue;
    const points = [];
    for (let k = 0; k <= 276; k++) {
      const share = ratesAt(curve, low + ((high - low) * k) / 276)[name];
      points.push(`${LEFT + k},${y(share).toFixed(1)}`);
    }
    chart.append(shape("polyline", { class: name, points: points.join(" ") }));
  }
  chart.append(shape("line", { class: "now", y1: TOP, y2: BOTTOM }));
}
