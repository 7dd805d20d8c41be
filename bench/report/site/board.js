// The leaderboard: which rows and columns are shown, their means and ranks.

const ATTRIBUTES = [
  { key: "backbone", head: "Backbone" },
  { key: "second", head: "Second model" },
  { key: "upsampler", head: "Upsampler" },
  { key: "year", head: "Year" },
  { key: "cost", head: "s / image" },
];
const TASKS = [...new Set(DATA.datasets.map((dataset) => dataset.task))];
const groupName = (task) => task[0].toUpperCase() + task.slice(1);
const meanKey = (task) => `mean of ${task}`;

const shownAtFirst = (key) => key === "backbone" || !ATTRIBUTES.some((one) => one.key === key);
const isShown = (key) => view.turned.includes(key) !== shownAtFirst(key);
const shownDatasets = () => DATA.datasets.filter((one) => (!view.task || one.task === view.task) && isShown(one.name));

function matches(row) {
  if (view.q && !`${row.row} ${row.label}`.toLowerCase().includes(view.q.trim().toLowerCase())) return false;
  if (isGuess(row)) return !view.only && !["backbone", "second", "upsampler", "since", "cost"].some((key) => view[key]);
  const has = (key) => !view[key] || (view[key] === "none" ? !row[key] : (row[key] || "").split(", ").includes(view[key]));
  return (
    has("backbone") &&
    has("second") &&
    has("upsampler") &&
    (!view.since || row.year >= Number(view.since)) &&
    (!view.cost || (row.cost !== null && row.cost <= Number(view.cost))) &&
    (!view.only || view.chosen.includes(row.row))
  );
}

const valueOf = (row, dataset) => {
  if (isGuess(row)) return (DATA.guesses[row.row] || {})[dataset];
  const cell = cellOf(row.row, dataset);
  return cell && cell.complete ? cell.score : null;
};

// Means are over the datasets that all rows have which have at least half as many as the row with most.
function means(rows, names) {
  const done = rows.map((row) => names.filter((name) => known(valueOf(row, name))));
  const most = Math.max(0, ...done.map((of) => of.length));
  const enough = done.filter((of) => of.length && 2 * of.length >= most);
  const common = enough.length ? names.filter((name) => enough.every((of) => of.includes(name))) : [];
  const whole = rows.filter((row) => common.length && common.every((name) => known(valueOf(row, name))));
  const values = new Map(whole.map((row) => [row.row, mean(common.map((name) => valueOf(row, name)))]));
  return { common, values };
}

// Ranks by the mean; their ranges where the means are over datasets that were tested together.
function ranks({ common, values }) {
  const same = (names) => names.length === common.length && names.every((name) => common.includes(name));
  const tested = DATA.tested.find((one) => same(one.datasets));
  const rows = [...values.keys()];
  return new Map(
    rows.map((row) => {
      const rank = 1 + rows.filter((other) => values.get(other) > values.get(row)).length;
      if (!tested) return [row, { rank }];
      const behind = (tested.ahead[row] || []).filter((other) => values.has(other)).length;
      const ahead = rows.filter((other) => (tested.ahead[other] || []).includes(row)).length;
      return [row, { rank, low: 1 + ahead, high: rows.length - behind }];
    }),
  );
}

// all that the table, its files and its details show
function boardView() {
  const rows = DATA.rows.filter(matches);
  const ranked = rows.filter((row) => !isGuess(row));
  const datasets = shownDatasets();
  const whole = means(
    ranked,
    datasets.map((one) => one.name),
  );
  const groups = TASKS.map((task) => ({ task, datasets: datasets.filter((one) => one.task === task) })).filter(
    (one) => one.datasets.length,
  );
  for (const group of groups) {
    group.means = means(
      ranked,
      group.datasets.map((one) => one.name),
    );
    group.withMean = isShown("means") && groups.length > 1 && group.datasets.length > 1;
  }
  const shown = {
    rows,
    ranked,
    datasets,
    groups,
    means: whole,
    ranks: ranks(whole),
    attributes: ATTRIBUTES.filter((one) => isShown(one.key)),
  };
  rows.sort(byOrder(shown));
  return shown;
}

function sortValue(row, column, shown) {
  if (column === "row") return row.label;
  if (column === "mean") return shown.means.values.get(row.row);
  const group = shown.groups.find((one) => meanKey(one.task) === column);
  if (group) return group.means.values.get(row.row);
  return ATTRIBUTES.some((one) => one.key === column) ? row[column] || null : valueOf(row, column);
}

function byOrder(shown) {
  return (a, b) => {
    const [x, y] = [sortValue(a, view.sort, shown), sortValue(b, view.sort, shown)];
    if (!known(x) || !known(y)) return known(y) - known(x);
    const sign = x < y ? -1 : x > y ? 1 : 0;
    return view.up ? sign : -sign;
  };
}

function sortButton(column, text) {
  const on = view.sort === column;
  const button = element("button", text, { type: "button", "data-column": column, "data-stop": "" });
  if (on) button.append(element("span", view.up ? " ▲" : " ▼", { "aria-hidden": "true" }));
  button.addEventListener("click", () => {
    view.up = on ? (view.up ? "" : "1") : ["row", "cost", "backbone", "second", "upsampler"].includes(column) ? "1" : "";
    view.sort = column;
    board();
    focusOn(document.querySelector(`#board [data-column="${CSS.escape(column)}"]`));
  });
  return button;
}

function headCell(column, text, attributes = {}) {
  const order = view.sort === column ? (view.up ? "ascending" : "descending") : "none";
  const th = element("th", undefined, { scope: "col", "aria-sort": order, ...attributes });
  th.append(sortButton(column, text));
  return th;
}

function heads(shown) {
  const [top, below] = [element("tr"), element("tr")];
  const tall = { rowspan: 2 };
  top.append(headCell("row", "Row", { ...tall, class: "row-head" }), headCell("mean", "Mean, rank", { ...tall, class: "mean" }));
  top.append(...shown.attributes.map((one) => headCell(one.key, one.head, { ...tall, class: "attribute" })));
  for (const group of shown.groups) {
    top.append(
      element("th", groupName(group.task), { scope: "colgroup", colspan: group.datasets.length + group.withMean, class: "group first" }),
    );
    const columns = group.datasets.map((one) => headCell(one.name, one.short, { title: one.title, class: "turned" }));
    if (group.withMean) columns.unshift(headCell(meanKey(group.task), "mean", { title: meanKey(group.task), class: "turned group-mean" }));
    columns[0].classList.add("first");
    below.append(...columns);
  }
  const thead = element("thead");
  thead.append(top, below);
  return thead;
}

function rowHead(row) {
  const th = element("th", undefined, { scope: "row", class: "row-head" });
  if (isGuess(row)) {
    th.append(element("span", row.label, { "data-stop": "" }));
    return th;
  }
  const label = element("label");
  const box = element("input", undefined, { type: "checkbox", "data-stop": "", "data-choose": row.row });
  box.checked = view.chosen.includes(row.row);
  box.addEventListener("change", () => {
    view.chosen = box.checked ? [...view.chosen, row.row] : view.chosen.filter((one) => one !== row.row);
    if (view.only) board();
    charts();
    keepView();
  });
  label.append(box, ` ${row.label}`);
  const small = element("span", row.venue, { class: "small" });
  for (const kind of ["paper", "code"]) {
    if (row[kind])
      small.append(
        " ",
        element("a", kind, { href: row[kind], rel: "noreferrer", "data-stop": "", "aria-label": `${kind} of ${row.label}` }),
      );
  }
  th.append(label, small);
  return th;
}

function meanCell(row, shown, best) {
  const value = shown.means.values.get(row.row);
  const td = valueCell(undefined, { class: known(value) && number(value) === number(best) ? "best mean" : "mean" });
  td.append(element("span", number(value)));
  if (!known(value)) return td;
  const { rank, low, high } = shown.ranks.get(row.row);
  td.append(element("small", low < high ? `${rank} [${low}–${high}]` : `${rank}`));
  return td;
}

function valueCell(text, attributes = {}) {
  return element("td", text, { "data-stop": "", ...attributes });
}

function resultCell(row, dataset, span) {
  const cell = cellOf(row.row, dataset.name);
  const value = valueOf(row, dataset.name);
  if (!cell) return valueCell(number(value), { class: known(value) ? "" : "off", "data-dataset": dataset.name });
  const td = element("td", undefined, { "data-dataset": dataset.name });
  const button = element("button", known(cell.score) ? number(cell.score) : "", { type: "button", "data-stop": "", class: "result" });
  if (cell.text) button.append(element("small", cell.text));
  if (cell.notes.length && known(cell.score)) button.append(element("sup", "†"));
  button.addEventListener("click", () => openResult(row.row, dataset.name));
  td.append(button);
  if (!known(value)) td.className = "off";
  else {
    td.style.background = heat(span.most > span.least ? (value - span.least) / (span.most - span.least) : 1);
    if (number(value) === number(span.most)) td.classList.add("best");
  }
  return td;
}

function spanOf(values) {
  const numbers = values.filter(known);
  return { least: Math.min(...numbers), most: Math.max(...numbers) };
}

function board() {
  const shown = boardView();
  const spans = new Map(shown.datasets.map((one) => [one.name, spanOf(shown.ranked.map((row) => valueOf(row, one.name)))]));
  const best = Math.max(...shown.means.values.values());
  const body = shown.rows.map((row) => {
    const tr = element("tr", undefined, { "data-row": row.row });
    tr.append(rowHead(row), meanCell(row, shown, best));
    tr.append(
      ...shown.attributes.map(({ key }) =>
        valueCell(key === "cost" ? (row.cost ? row.cost.toPrecision(2) : "–") : row[key] || "–", { class: "attribute" }),
      ),
    );
    for (const group of shown.groups) {
      const cells = group.datasets.map((one) => resultCell(row, one, spans.get(one.name)));
      if (group.withMean)
        cells.unshift(
          valueCell(number(group.means.values.get(row.row)), {
            class: "group-mean",
            "data-over": group.means.common.length,
            "data-task": group.task,
          }),
        );
      cells[0].classList.add("first");
      tr.append(...cells);
    }
    return tr;
  });
  const tbody = element("tbody");
  tbody.append(...body);
  $("board").replaceChildren(heads(shown), tbody);
  for (const stop of stops()) stop.tabIndex = -1;
  const first = document.querySelector("#board tbody [data-stop]") || document.querySelector("#board [data-stop]");
  if (first) first.tabIndex = 0;
  $("told").textContent = "Arrow keys move, Enter opens a result; point at a number to read about it here.";
  const ranked = shown.ranked.length;
  $("tables-command").textContent = tablesCommand(shown);
  $("tables-part").hidden = !ranked || !shown.datasets.length;
  const over = shown.means.common.length;
  $("board-note").textContent = !shown.rows.length
    ? "No row fits these filters."
    : `${plural(ranked, "row")}, ${plural(shown.datasets.length, "dataset")}. ` +
      (!over
        ? "No mean: the rows shown share no dataset that is complete. "
        : `Means are over the ${plural(over, "dataset")} that ${shown.means.values.size === ranked ? "all of them have" : `the ${plural(shown.means.values.size, "row")} with most results have`}. `) +
      (over && ![...shown.ranks.values()].some((one) => known(one.low))
        ? "Ranks have no range: the tests are of all rows over all datasets, or over one task."
        : "");
  const gaps = DATA.cells.filter((cell) => cell.score === null && cell.notes.length);
  $("gaps").replaceChildren(...gaps.map((cell) => element("li", `${cell.row} on ${cell.dataset}: ${cell.notes.join("; ")}`)));
  $("gaps-part").hidden = !gaps.length;
  keepView();
}

function boardControls() {
  const unique = (key) => [...new Set(RANKED.flatMap((row) => String(row[key] || "").split(", ")))].filter(Boolean).sort();
  const fill = (key, all, values, text = (one) => one) => options(key, [["", all], ...values.map((one) => [one, text(one)])]);
  fill("task", "all", TASKS, groupName);
  fill("backbone", "any", unique("backbone"));
  fill("second", "any", ["none", ...unique("second")]);
  fill("upsampler", "any", ["none", ...unique("upsampler")]);
  fill("since", "any", unique("year"), (year) => `${year} on`);
  const costs = RANKED.map((row) => row.cost)
    .filter(known)
    .sort((a, b) => a - b);
  const steps = [
    ...new Set(
      [0.25, 0.5, 0.75]
        .map((share) => costs[Math.floor(share * (costs.length - 1))])
        .filter(known)
        .map((cost) => (Math.ceil(cost * 100) / 100).toString()),
    ),
  ];
  fill("cost", "any", steps, (cost) => `up to ${cost} s`);
  for (const key of ["q", "task", "backbone", "second", "upsampler", "since", "cost"]) {
    $(key).addEventListener("input", () => {
      view[key] = $(key).value;
      board();
    });
  }
  $("only").addEventListener("change", () => {
    view.only = $("only").checked ? "1" : "";
    board();
  });
  $("reset").addEventListener("click", () => {
    Object.assign(view, structuredClone(START));
    showView();
  });
  const parts = [
    ["Of rows", ATTRIBUTES.map((one) => [one.key, one.head])],
    ["Means", [["means", "mean of each task"]]],
    ...TASKS.map((task) => [groupName(task), DATA.datasets.filter((one) => one.task === task).map((one) => [one.name, one.short])]),
  ];
  $("columns").replaceChildren(
    ...parts.map(([head, columns]) => {
      const set = element("fieldset");
      set.append(
        element("legend", head),
        ...columns.map(([key, text]) => {
          const label = element("label");
          const box = element("input", undefined, { type: "checkbox", "data-turn": key });
          box.addEventListener("change", () => {
            view.turned = view.turned.includes(key) ? view.turned.filter((one) => one !== key) : [...view.turned, key];
            board();
          });
          label.append(box, ` ${text}`);
          return label;
        }),
      );
      return set;
    }),
  );
  $("board").addEventListener("keydown", move);
  for (const kind of ["focusin", "pointerover"]) $("board").addEventListener(kind, (event) => describe(event.target));
}

function showBoardView() {
  for (const key of ["q", "task", "backbone", "second", "upsampler", "since", "cost"]) $(key).value = view[key];
  $("only").checked = Boolean(view.only);
  for (const box of document.querySelectorAll("[data-turn]")) box.checked = isShown(box.dataset.turn);
  board();
}
