"use strict";
const $ = (id) => document.getElementById(id);
const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999", "#f0e442"]; // Okabe and Ito
const CELLS = new Map(DATA.cells.map((cell) => [cell.row + "\t" + cell.dataset, cell]));
const cellOf = (row, dataset) => CELLS.get(row + "\t" + dataset);
const RANKED = DATA.rows.filter((row) => !row.row.startsWith("("));
const labelOf = new Map(DATA.rows.map((row) => [row.row, row.label]));
// as tables print it: the number, what the verdict adds, and a dagger where there is more to read
const beside = (cell) => (cell.score === null ? cell.text : cell.text ? `${number(cell.score)} (${cell.text})` : number(cell.score)) + (cell.notes.length ? " †" : "");
const named = (cell) => labelOf.get(cell.row) + (cell.text ? ` (${cell.text})` : "");
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const number = (value) => (value === null || value === undefined ? "–" : value.toFixed(1));
Chart.defaults.color = css("--ink");
Chart.defaults.borderColor = css("--line");
Chart.defaults.animation = false;
Chart.defaults.maintainAspectRatio = false;
const charts = {};

function draw(id, config) {
  if (charts[id]) charts[id].destroy();
  charts[id] = new Chart($(id), config);
}

function element(tag, text, attributes = {}) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function options(id, values) {
  $(id).replaceChildren(...values.map(([value, text]) => element("option", text, { value })));
}

function heat(share) {
  return share === null ? "" : `rgba(${css("--heat")}, ${(0.05 + 0.45 * share).toFixed(3)})`;
}

// leaderboard

let order = { column: "mean", down: true };

function valueIn(row, column) {
  if (column === "mean") return row.mean;
  if (column === "row") return row.label;
  const cell = cellOf(row.row, column);
  if (row.row.startsWith("(")) return (DATA.guesses[row.row] || {})[column];
  return cell && cell.complete ? cell.score : null;
}

function board() {
  const task = $("task").value;
  const wanted = $("filter").value.trim().toLowerCase();
  const shown = DATA.datasets.filter((dataset) => !task || dataset.task === task);
  const rows = DATA.rows.filter((row) => (row.row + " " + row.label).toLowerCase().includes(wanted));
  const missing = (value) => value === null || value === undefined;
  rows.sort((a, b) => {
    const [x, y] = [valueIn(a, order.column), valueIn(b, order.column)];
    if (missing(x) || missing(y)) return missing(x) - missing(y);
    const sign = x < y ? -1 : x > y ? 1 : 0;
    return order.down ? -sign : sign;
  });
  const head = element("tr");
  for (const [column, text, below] of [["row", "Row", ""], ["mean", "mean", ""],
    ...shown.map((dataset) => [dataset.name, dataset.name, dataset.task])]) {
    const arrow = order.column === column ? (order.down ? " ▼" : " ▲") : "";
    const th = element("th", undefined, { scope: "col", "aria-sort": arrow ? (order.down ? "descending" : "ascending") : "none" });
    const button = element("button", text + arrow, { type: "button", "data-column": column });
    button.addEventListener("click", () => {
      order = { column, down: order.column === column ? !order.down : column !== "row" };
      board();
      document.querySelector(`[data-column="${column}"]`).focus();
    });
    th.append(button, element("div", below, { class: "task" }));
    head.append(th);
  }
  const body = rows.map((row) => {
    const tr = element("tr", undefined, { "data-row": row.row });
    tr.append(element("td", row.venue ? `${row.label} (${row.venue})` : row.label));
    const rank = row.rank ? `, rank ${row.rank[0]}` + (row.rank[1] < row.rank[2] ? ` [${row.rank[1]}–${row.rank[2]}]` : "") : "";
    tr.append(element("td", row.mean === null ? "–" : `${number(row.mean)} (${row.of})${rank}`));
    for (const dataset of shown) {
      const ranked = RANKED.map((one) => valueIn(one, dataset.name)).filter((value) => !missing(value));
      const [least, most] = [Math.min(...ranked), Math.max(...ranked)];
      const cell = cellOf(row.row, dataset.name);
      const value = valueIn(row, dataset.name);
      const td = element("td", missing(value) ? (cell ? beside(cell) : "–") : cell ? beside(cell) : number(value));
      if (missing(value)) td.className = "off";
      else if (!row.row.startsWith("(")) {
        td.style.background = heat(most > least ? (value - least) / (most - least) : 1);
        if (value === most) td.className = "best";
      }
      if (cell) {
        const interval = (cell.low === null ? "" : `95 %: ${number(cell.low)} to ${number(cell.high)}\n`) + (cell.units ? `${cell.units}\n` : "");
        td.title = `${interval}${cell.images} of ${cell.total} images\n${cell.notes.join("\n")}`.trim();
        td.tabIndex = 0;
      }
      tr.append(td);
    }
    return tr;
  });
  const thead = element("thead");
  thead.append(head);
  const tbody = element("tbody");
  tbody.append(...body);
  $("board").replaceChildren(thead, tbody);
  const gaps = DATA.cells.filter((cell) => cell.score === null && cell.notes.length);
  $("gaps").replaceChildren(...gaps.map((cell) => element("li", `${cell.row} on ${cell.dataset}: ${cell.notes.join("; ")}`)));
}

function download(name, text) {
  const link = element("a", "", { download: name, href: URL.createObjectURL(new Blob([text], { type: "text/plain" })) });
  link.click();
  URL.revokeObjectURL(link.href);
}

// measured and published

function published() {
  const comparable = DATA.cells.filter((cell) => cell.comparable && cell.published !== null && cell.score !== null);
  const agreeing = comparable.filter((cell) => Math.abs(cell.score - cell.published) <= DATA.tolerance);
  const all = DATA.cells.filter((cell) => cell.published !== null).length;
  $("published-note").textContent = comparable.length
    ? `${comparable.length} cells can be compared with a published number; ${agreeing.length} of them agree with it up to ${DATA.tolerance} points.`
    : `No cell can be compared with a published number (${all} have one): another backbone, other or generated data, or not all images.`;
  $("published-chart").parentElement.hidden = !comparable.length;
  const points = (cells) => cells.map((cell) => ({ x: cell.published, y: cell.score, cell }));
  const span = [0, 100];
  draw("published-chart", {
    type: "scatter",
    data: { datasets: [
      { label: "comparable", data: points(comparable), backgroundColor: COLOURS[0], pointRadius: 5 },
      { label: "equal", data: span.map((value) => ({ x: value, y: value })), type: "line", borderColor: css("--soft"), borderDash: [4, 4], pointRadius: 0 },
    ] },
    options: {
      scales: { x: { title: { display: true, text: "published, %" } }, y: { title: { display: true, text: "measured, %" } } },
      plugins: { tooltip: { callbacks: { label: ({ raw }) => raw.cell ? [`${labelOf.get(raw.cell.row) || raw.cell.row}, ${raw.cell.dataset}`, `measured ${number(raw.y)}, published ${number(raw.x)}`, ...raw.cell.notes] : "" } } },
    },
  });
}

// one dataset

function dataset() {
  const chosen = DATA.datasets.find((one) => one.name === $("which").value);
  const cells = RANKED.map((row) => cellOf(row.row, chosen.name)).filter((cell) => cell && cell.score !== null);
  cells.sort((a, b) => b.complete - a.complete || b.score - a.score); // what may not be ranked comes last
  $("dataset-note").textContent = `${chosen.title}, ${chosen.metric}. ` + (chosen.unverified.length ? `Not verified: ${chosen.unverified.join("; ")}.` : "");
  const names = cells.map(named);
  draw("forest", {
    type: "bar",
    data: { labels: names, datasets: [
      { label: "95 %", data: cells.map((cell) => (cell.low === null ? null : [cell.low, cell.high])), backgroundColor: COLOURS[5], barThickness: 6 },
      { label: "score", type: "line", showLine: false, data: cells.map((cell) => cell.score), borderColor: COLOURS[1], backgroundColor: COLOURS[1], pointRadius: 4 },
      { label: "published", type: "line", showLine: false, data: cells.map((cell) => (cell.comparable ? cell.published : null)), borderColor: COLOURS[2], backgroundColor: COLOURS[2], pointStyle: "crossRot", pointRadius: 5 },
    ] },
    options: { scales: { y: { title: { display: true, text: "%" } } } },
  });
  draw("curves", {
    type: "line",
    data: { labels: [...Array(100).keys()].map((place) => place / 100), datasets: cells.filter((cell) => cell.curve).map((cell, place) => ({
      label: named(cell), data: cell.curve, borderColor: COLOURS[place % COLOURS.length], borderWidth: 1.5,
      borderDash: place >= COLOURS.length ? [4, 3] : [], backgroundColor: COLOURS[place % COLOURS.length],
      pointRadius: cell.curve.map((_, at) => (at === Math.round(100 * cell.threshold) ? 4 : 0)),
    })) },
    options: { scales: { x: { title: { display: true, text: "threshold" } }, y: { title: { display: true, text: "%" } } } },
  });
  const bounded = cells.filter((cell) => cell.boundary !== null);
  $("boundary-part").hidden = !bounded.length;
  if (bounded.length) draw("boundary", {
    type: "scatter",
    data: { datasets: bounded.map((cell, place) => ({ label: named(cell), data: [{ x: cell.score, y: cell.boundary }],
      backgroundColor: COLOURS[place % COLOURS.length], pointRadius: 5 })) },
    options: { scales: { x: { title: { display: true, text: "score, %" } }, y: { title: { display: true, text: "mean boundary IoU, %" } } } },
  });
  const head = element("tr");
  head.append(element("th", "Row", { scope: "col" }), ...chosen.classes.map((name) => element("th", name.replaceAll("_", " "), { scope: "col" })));
  const body = cells.filter((cell) => cell.iou).map((cell) => {
    const tr = element("tr");
    tr.append(element("td", named(cell)));
    for (const value of cell.iou) {
      const td = element("td", number(value));
      td.style.background = heat(value === null ? null : value / 100);
      tr.append(td);
    }
    return tr;
  });
  $("classes").replaceChildren(head, ...body);
  ofRow();
}

// two rows

function difference() {
  const [first, second] = [$("first").value, $("second").value];
  const both = DATA.datasets.map((one) => [one.name, cellOf(first, one.name), cellOf(second, one.name)])
    .filter(([, a, b]) => a && b && a.complete && b.complete);
  const values = both.map(([, a, b]) => a.score - b.score);
  draw("difference", {
    type: "bar",
    data: { labels: both.map(([name]) => name), datasets: [{ label: `${labelOf.get(first)} − ${labelOf.get(second)}`, data: values,
      backgroundColor: values.map((value) => COLOURS[value < 0 ? 1 : 0]) }] },
    options: { scales: { y: { title: { display: true, text: "points" } } } },
  });
  pairs(first, second, both);
  images();
}

function pairOf(first, second, name) {
  const [low, high, p, holm] = ((DATA.paired[first + "\t" + second] || {})[name]) || [];
  if (low !== undefined) return { low, high, p, holm };
  const [otherLow, otherHigh, otherP, otherHolm] = ((DATA.paired[second + "\t" + first] || {})[name]) || [];
  return otherLow === undefined ? null : { low: otherHigh && -otherHigh, high: otherLow && -otherLow, p: otherP, holm: otherHolm };
}

function table(id, head, lines) {
  const top = element("tr");
  top.append(...head.map((text) => element("th", text, { scope: "col" })));
  $(id).replaceChildren(top, ...lines.map((cells) => {
    const tr = element("tr");
    tr.append(...cells.map((cell) => (cell instanceof Node ? cell : element("td", cell))));
    return tr;
  }));
}

function shaded(text, share) {
  const td = element("td", text);
  td.style.background = heat(share);
  return td;
}

function pairs(first, second, both) {
  const known = (value) => value !== null && value !== undefined;
  const chance = (p) => (!known(p) ? "–" : p < 0.001 ? "< 0.001" : p.toFixed(3));
  const tests = Object.values(DATA.paired).flatMap((of) => Object.values(of)).filter((line) => known(line[2])).length;
  table("pairs", ["Dataset", "scenes", "difference", "95 %", "p", `p (Holm, ${tests} tests)`], both.map(([name, a, b]) => {
    const pair = pairOf(first, second, name) || {};
    return [name, a.units || "–", number(a.score - b.score), known(pair.low) ? `${number(pair.low)} to ${number(pair.high)}` : "–", chance(pair.p), chance(pair.holm)];
  }));
}

function images() {
  const [first, second, name] = [$("first").value, $("second").value, $("images-of").value];
  const [a, b] = [cellOf(first, name), cellOf(second, name)];
  const comparable = a && b && a.complete && b.complete;
  const places = comparable && a.at && b.at ? new Map(b.at.map((index, place) => [index, b.each[place]])) : new Map();
  const points = comparable && a.at ? a.at.map((index, place) => ({ x: places.get(index), y: a.each[place], index })).filter(({ x, y }) => x !== undefined && x !== null && y !== null) : [];
  draw("images", {
    type: "scatter",
    data: { datasets: [
      { label: comparable ? `${points.length} images` : [a, b].filter((cell) => cell && !cell.complete).map(named).join(", ") || "not stored for both rows", data: points, backgroundColor: COLOURS[0], pointRadius: 3 },
      { label: "equal", data: [0, 100].map((value) => ({ x: value, y: value })), type: "line", borderColor: css("--soft"), borderDash: [4, 4], pointRadius: 0 },
    ] },
    options: {
      scales: { x: { title: { display: true, text: `${labelOf.get(second)}, %` } }, y: { title: { display: true, text: `${labelOf.get(first)}, %` } } },
      plugins: { tooltip: { callbacks: { label: ({ raw }) => (raw.index === undefined ? "" : `image ${raw.index}: ${number(raw.y)} and ${number(raw.x)}`) } } },
    },
  });
}

function ofRow() {
  const chosen = DATA.datasets.find((one) => one.name === $("which").value);
  const cell = cellOf($("of-row").value, chosen.name);
  const names = chosen.classes.map((name) => name.replaceAll("_", " "));
  table("confusion", [cell && cell.text ? `true (${cell.text})` : "true", ...names], (cell && cell.confusion ? cell.confusion : []).map((line, place) => [names[place],
    ...line.map((value) => shaded(number(value), value === null ? null : value / 100))]));
  const pictures = (cell && DATA.thumbnails[cell.row + "\t" + cell.dataset]) || {};
  table("worst", ["Image", cell && cell.text ? `% (${cell.text})` : "%", ""], (cell && cell.worst ? cell.worst : []).map(([id, value]) => {
    const td = element("td");
    if (pictures[id]) td.append(element("img", undefined, { src: pictures[id], alt: `label map of ${id}` }));
    return [id, number(value), td];
  }));
}

function wins() {
  const ahead = (a, b) => DATA.datasets.map((one) => [cellOf(a, one.name), cellOf(b, one.name)]).filter(([x, y]) => x && y && x.complete && y.complete);
  table("wins", ["", ...RANKED.map((row) => row.label)], RANKED.map((one) => [one.label, ...RANKED.map((other) => {
    if (one === other) return "";
    const both = ahead(one.row, other.row);
    const won = both.filter(([x, y]) => x.score > y.score && ((pairOf(one.row, other.row, x.dataset) || {}).holm ?? 1) <= 0.05).length;
    return both.length ? shaded(`${won}/${both.length}`, won / both.length) : "–";
  })]));
}

function ranks() {
  if (!DATA.ranks) {
    $("ranks-note").textContent = "Mean ranks need two rows that have two datasets in common.";
    $("ranks").parentElement.hidden = true;
    return;
  }
  const rows = Object.entries(DATA.ranks.ranks).sort((a, b) => a[1] - b[1]);
  const [friedman, critical] = [DATA.ranks.p === null ? "" : ` Friedman's test: p = ${DATA.ranks.p.toFixed(3)}.`, DATA.ranks.critical];
  const nemenyi = critical ? ` Two rows differ by Nemenyi's test where their mean ranks are ${critical.toFixed(2)} apart (5 %).` : " No rows are distinguishable by ranks.";
  $("ranks-note").textContent = `Over ${DATA.ranks.datasets} datasets that all rows have; 1 is best. Bars: the least and the greatest mean rank with one dataset left out.${friedman}${nemenyi}`;
  draw("ranks", {
    type: "bar",
    data: { labels: rows.map(([row]) => labelOf.get(row)), datasets: [
      { label: "mean rank, one dataset left out", data: rows.map(([row]) => DATA.ranks.ranges[row]), backgroundColor: COLOURS[5], barThickness: 6 },
      { label: "mean rank", type: "line", order: -1, showLine: false, data: rows.map(([, rank]) => rank), borderColor: COLOURS[1], backgroundColor: COLOURS[1], pointRadius: 4 },
    ] },
    options: { scales: { y: { reverse: true, title: { display: true, text: "mean rank" } } } },
  });
}

function cost() {
  const points = RANKED.map((row) => {
    const cells = DATA.cells.filter((cell) => cell.row === row.row && cell.seconds && cell.complete);
    return cells.length && row.mean !== null ? { x: cells.reduce((sum, cell) => sum + cell.seconds, 0) / cells.length, y: row.mean, label: row.label } : null;
  }).filter(Boolean);
  const seconds = points.map((point) => point.x);
  if (points.length > 1 && Math.max(...seconds) - Math.min(...seconds) < 0.01 * Math.max(...seconds)) {
    $("cost-note").textContent = `The rows were counted together and share the time equally: ${seconds[0].toPrecision(2)} s per image each. “bench speed --one-by-one” times each row alone.`;
    $("cost-chart").parentElement.hidden = true;
    return;
  }
  draw("cost-chart", {
    type: "scatter",
    data: { datasets: points.map((point, place) => ({ label: point.label, data: [point], backgroundColor: COLOURS[place % COLOURS.length], pointRadius: 5 })) },
    options: { scales: { x: { title: { display: true, text: "seconds per image" } }, y: { title: { display: true, text: "mean, %" } } } },
  });
}

function provenance() {
  const head = DATA.head;
  $("bands").replaceChildren(...head.bands.map((text) => element("div", text, { class: "band", role: "alert" })));
  $("facts").textContent = `${head.cells} cells: ${Object.entries(head.verdicts).map(([status, count]) => `${count} ${status}`).join(", ")}. ${DATA.differences || ""}`;
  const facts = [["written", `${head.first} to ${head.last}`], ["commits", head.commits.join(", ")], ["weights (sha256)", head.weights.join(", ")],
    ["torch", head.torch.join(", ")], ["machines", head.machines.join(", ")], ["page made by", `ovss-bench ${head.version}`]];
  $("facts-table").replaceChildren(...facts.map(([name, value]) => {
    const tr = element("tr");
    tr.append(element("th", name, { scope: "row" }), element("td", value));
    return tr;
  }));
}

options("task", [["", "all tasks"], ...[...new Set(DATA.datasets.map((one) => one.task))].map((task) => [task, task])]);
options("which", DATA.datasets.map((one) => [one.name, one.title]));
for (const id of ["first", "second", "of-row"]) options(id, RANKED.map((row) => [row.row, row.label]));
options("images-of", DATA.datasets.map((one) => [one.name, one.title]));
if (RANKED.length > 1) $("second").value = RANKED[1].row;
$("task").addEventListener("change", board);
$("filter").addEventListener("input", board);
$("which").addEventListener("change", dataset);
$("of-row").addEventListener("change", ofRow);
$("images-of").addEventListener("change", images);
for (const id of ["first", "second"]) $(id).addEventListener("change", difference);
$("download-csv").addEventListener("click", () => download("leaderboard.csv", DATA.csv));
$("download-latex").addEventListener("click", () => download("leaderboard.tex", DATA.latex));
provenance();
board();
published();
if (DATA.datasets.length) dataset();
if (RANKED.length) { difference(); cost(); wins(); ranks(); }
document.documentElement.dataset.ready = "yes";
