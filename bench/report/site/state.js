"use strict";
// What every part of the page needs: elements, numbers, the data by key, and the view that the address keeps.

const $ = (id) => document.getElementById(id);
const DARK = matchMedia("(prefers-color-scheme: dark)");
// after Okabe and Ito; darker on white, so that each stands out 3 : 1 from the page
const COLOURS = DARK.matches
  ? ["#56b4e9", "#e69f00", "#00a87c", "#cc79a7", "#f0e442", "#d55e00", "#0080c8", "#999999"]
  : ["#0072b2", "#c44e00", "#00805c", "#b0508a", "#8f6400", "#2f86bf", "#6f6f6f", "#7a7400"];
const MOST_DRAWN = 8; // rows in a chart, besides those that were chosen

const known = (value) => value !== null && value !== undefined;
const number = (value) => (known(value) ? value.toFixed(1).replace("-", "−") : "–");
const signed = (value) => (value > 0 ? `+${number(value)}` : number(value)).replace(/^[+−]0\.0$/, "0.0");
const chance = (p) => (!known(p) ? "–" : p < 0.001 ? "< 0.001" : p.toFixed(3));
const plural = (count, what) => `${count.toLocaleString("en")} ${what}${count === 1 ? "" : "s"}`;
const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

const CELLS = new Map(DATA.cells.map((cell) => [cell.row + "\t" + cell.dataset, cell]));
const cellOf = (row, dataset) => CELLS.get(row + "\t" + dataset);
const DATASETS = new Map(DATA.datasets.map((dataset) => [dataset.name, dataset]));
const isGuess = (row) => row.row.startsWith("(");
const RANKED = DATA.rows.filter((row) => !isGuess(row));
const ROWS = new Map(DATA.rows.map((row) => [row.row, row]));
const labelOf = (row) => (ROWS.has(row) ? ROWS.get(row).label : row);
const named = (cell) => labelOf(cell.row) + (cell.text ? ` (${cell.text})` : "");
const classNames = (dataset) => dataset.classes.map((name) => name.replaceAll("_", " "));
for (const row of RANKED) {
  const seconds = DATA.cells.filter((cell) => cell.row === row.row && cell.seconds && cell.complete).map((cell) => cell.seconds);
  row.cost = seconds.length ? mean(seconds) : null;
}

function element(tag, text, attributes = {}) {
  const made = document.createElement(tag);
  if (known(text)) made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function options(id, values) {
  $(id).replaceChildren(...values.map(([value, text]) => element("option", text, { value })));
}

// a table of texts and elements; the first cell of a line is its head
function table(id, head, lines, empty = "") {
  const top = element("tr");
  top.append(...head.map((text) => (text instanceof Node ? text : element("th", text, { scope: "col" }))));
  const body = lines.map((cells) => {
    const tr = element("tr");
    tr.append(
      ...cells.map((cell, place) => (cell instanceof Node ? cell : element(place ? "td" : "th", cell, place ? {} : { scope: "row" }))),
    );
    return tr;
  });
  if (!lines.length && empty) {
    const tr = element("tr");
    tr.append(element("td", empty, { colspan: head.length, class: "empty" }));
    body.push(tr);
  }
  const [thead, tbody] = [element("thead"), element("tbody")];
  thead.append(top);
  tbody.append(...body);
  $(id).replaceChildren(thead, tbody);
}

function heat(share) {
  return known(share) ? `rgba(${css("--heat")}, ${(0.05 + 0.45 * share).toFixed(3)})` : "";
}

function shaded(text, share) {
  const td = element("td", text);
  td.style.background = heat(share);
  return td;
}

// scores of single images, in per cent; null for an image without one
const NO_SCORE = 65535;
const decoded = new Map();
function imageScores(cell) {
  if (!cell || !cell.each) return [];
  if (!decoded.has(cell)) {
    const bytes = Uint8Array.from(atob(cell.each), (sign) => sign.charCodeAt(0));
    const values = new Uint16Array(bytes.buffer);
    decoded.set(
      cell,
      [...values].map((value) => (value === NO_SCORE ? null : value / 100)),
    );
  }
  return decoded.get(cell);
}

const pictureOf = (name) => DATA.inside[name] || `${DATA.folder}/${name}`;
const picturesOf = (dataset, index) => (DATA.shown[dataset] || {})[index];

function picture(name, text) {
  const image = element("img", undefined, { src: pictureOf(name), alt: text, title: text });
  return image;
}

// the view, as the address keeps it

const START = {
  q: "",
  task: "",
  backbone: "",
  second: "",
  upsampler: "",
  since: "",
  cost: "", // filters of rows and columns
  chosen: [],
  only: "",
  turned: [],
  sort: "mean",
  up: "", // rows that were chosen, columns that are not as at first, order
  draw: "",
  dataset: "",
  a: "",
  b: "",
  on: "",
  axis: "",
  open: "",
};
const view = structuredClone(START);

function keepView() {
  const kept = new URLSearchParams();
  for (const [key, value] of Object.entries(view)) {
    if (Array.isArray(value)) value.forEach((one) => kept.append(key, one));
    else if (value !== START[key]) kept.set(key, value);
  }
  const text = kept.toString();
  history.replaceState(null, "", text ? `#${text}` : location.pathname + location.search);
}

function readView() {
  Object.assign(view, structuredClone(START));
  if (!location.hash.includes("=")) return;
  const kept = new URLSearchParams(location.hash.slice(1));
  for (const key of Object.keys(START)) {
    if (!kept.has(key)) continue;
    view[key] = Array.isArray(START[key]) ? kept.getAll(key) : kept.get(key);
  }
}
