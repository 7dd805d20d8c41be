// Charts of what is published, of one dataset, of cost, and of ranks.

Chart.defaults.color = css("--ink");
Chart.defaults.borderColor = css("--line");
Chart.defaults.animation = false;
Chart.defaults.maintainAspectRatio = false;
const drawnCharts = {};

// draws a chart, or says in its place why there is none
function draw(id, config, empty = "") {
  if (drawnCharts[id]) drawnCharts[id].destroy();
  delete drawnCharts[id];
  const place = $(id).parentElement;
  place.hidden = Boolean(empty);
  let said = place.nextElementSibling;
  if (!said || !said.classList.contains("empty")) {
    said = element("p", "", { class: "empty" });
    place.after(said);
  }
  said.textContent = empty;
  said.hidden = !empty;
  if (!empty) drawnCharts[id] = new Chart($(id), config);
}

const dots = (data, more) => ({ type: "line", showLine: false, data, pointRadius: 4, ...more });
const equalLine = () => ({
  label: "equal",
  type: "line",
  data: [
    { x: 0, y: 0 },
    { x: 100, y: 100 },
  ],
  borderColor: css("--soft"),
  borderDash: [4, 4],
  pointRadius: 0,
});
const axis = (text, more = {}) => ({ title: { display: true, text }, ...more });
const colourOf = (place) => COLOURS[place % COLOURS.length];
const dashOf = (place) => [[], [6, 3], [2, 2]][Math.floor(place / COLOURS.length) % 3];

// the best and the chosen of rows (or cells) that are in order; all on demand
function drawn(inOrder) {
  if (view.draw === "all") return inOrder;
  const chosen = inOrder.filter((one) => view.chosen.includes(one.row));
  if (view.draw === "chosen") return chosen;
  return inOrder.filter((one, place) => place < MOST_DRAWN || chosen.includes(one));
}

function byMean() {
  const { values } = means(
    RANKED,
    DATA.datasets.map((one) => one.name),
  );
  return RANKED.filter((row) => values.has(row.row))
    .sort((a, b) => values.get(b.row) - values.get(a.row))
    .map((row) => ({ ...row, mean: values.get(row.row) }));
}

function published() {
  const comparable = DATA.cells.filter((cell) => cell.comparable && cell.published !== null && cell.score !== null);
  const agreeing = comparable.filter((cell) => Math.abs(cell.score - cell.published) <= DATA.tolerance);
  const all = DATA.cells.filter((cell) => cell.published !== null).length;
  $("published-note").textContent = comparable.length
    ? `${comparable.length} results can be compared with a published number; ${agreeing.length} of them agree with it up to ${DATA.tolerance} points.`
    : "";
  draw(
    "published-chart",
    {
      type: "scatter",
      data: {
        datasets: [
          {
            label: "comparable",
            data: comparable.map((cell) => ({ x: cell.published, y: cell.score, cell })),
            backgroundColor: COLOURS[0],
            pointRadius: 5,
          },
          equalLine(),
        ],
      },
      options: {
        scales: { x: axis("published, %"), y: axis("measured, %") },
        plugins: {
          tooltip: {
            callbacks: {
              label: ({ raw }) =>
                raw.cell
                  ? [
                      `${labelOf(raw.cell.row)}, ${raw.cell.dataset}`,
                      `measured ${number(raw.y)}, published ${number(raw.x)}`,
                      ...raw.cell.notes,
                    ]
                  : "",
            },
          },
        },
      },
    },
    comparable.length
      ? ""
      : `No result can be compared with a published number (${all} have one): another backbone, other or generated data, or not all images.`,
  );
}

function dataset() {
  const chosen = DATASETS.get(view.dataset) || DATA.datasets[0];
  const cells = RANKED.map((row) => cellOf(row.row, chosen.name)).filter((cell) => cell && cell.score !== null);
  cells.sort((a, b) => b.complete - a.complete || b.score - a.score); // what may not be ranked comes last
  const shown = drawn(cells);
  $("dataset-note").textContent =
    `${chosen.title}, ${chosen.metric}; ${shown.length} of ${plural(cells.length, "row")} drawn. ` +
    (chosen.unverified.length ? `Not verified: ${chosen.unverified.join("; ")}.` : "");
  const none = cells.length ? "None of the ticked rows has a number here." : "No row has a number here.";
  const uncounted = shown.length ? "These rows were counted on other classes than the card has now." : none;
  draw(
    "forest",
    {
      type: "bar",
      data: {
        labels: shown.map(named),
        datasets: [
          {
            label: "95 %",
            data: shown.map((cell) => (cell.low === null ? null : [cell.low, cell.high])),
            backgroundColor: COLOURS[5],
            barThickness: 6,
          },
          dots(
            shown.map((cell) => cell.score),
            { label: "score", borderColor: COLOURS[1], backgroundColor: COLOURS[1] },
          ),
          dots(
            shown.map((cell) => (cell.comparable ? cell.published : null)),
            { label: "published", borderColor: COLOURS[2], backgroundColor: COLOURS[2], pointStyle: "crossRot", pointRadius: 5 },
          ),
        ],
      },
      options: { indexAxis: "x", scales: { y: axis("%") } },
    },
    shown.length ? "" : none,
  );
  const without = shown.filter((cell) => cell.low === null);
  const whys = [...new Set(without.map((cell) => (cell.units || cell.text || "not complete").replace(": no interval", "")))];
  $("forest-note").textContent =
    !shown.length || !without.length
      ? ""
      : without.length === shown.length
        ? `No intervals: ${whys.join("; ")}.`
        : `No interval of ${without.map(named).join(", ")}: ${whys.join("; ")}.`;
  const curved = shown.filter((cell) => cell.curve);
  draw(
    "curves",
    {
      type: "line",
      data: {
        labels: [...Array(100).keys()].map((place) => place / 100),
        datasets: curved.map((cell, place) => ({
          label: named(cell),
          data: cell.curve,
          borderColor: colourOf(place),
          backgroundColor: colourOf(place),
          borderWidth: 1.5,
          borderDash: dashOf(place),
          pointRadius: cell.curve.map((_, at) => (at === Math.round(100 * cell.threshold) ? 4 : 0)),
        })),
      },
      options: { scales: { x: axis("threshold"), y: axis("%") } },
    },
    curved.length
      ? ""
      : shown.some((cell) => cell.iou)
        ? "Label maps of other programs have no probabilities, so there is no threshold to move."
        : uncounted,
  );
  $("curves-note").hidden = !curved.length;
  const bounded = shown.filter((cell) => cell.boundary !== null);
  draw(
    "boundary",
    {
      type: "scatter",
      data: {
        datasets: bounded.map((cell, place) => ({
          label: named(cell),
          data: [{ x: cell.score, y: cell.boundary }],
          backgroundColor: colourOf(place),
          pointRadius: 5,
        })),
      },
      options: { scales: { x: axis("score, %"), y: axis("mean boundary IoU, %") } },
    },
    bounded.length ? "" : "No boundary IoU was counted; “run --boundary” counts it.",
  );
  table(
    "classes",
    ["Row", ...classNames(chosen)],
    shown
      .filter((cell) => cell.iou)
      .map((cell) => [named(cell), ...cell.iou.map((value) => shaded(number(value), known(value) ? value / 100 : null))]),
    uncounted,
  );
}

function wins() {
  const rows = drawn(byMean());
  const both = (a, b) =>
    DATA.datasets.map((one) => [cellOf(a, one.name), cellOf(b, one.name)]).filter(([x, y]) => x && y && x.complete && y.complete);
  table(
    "wins",
    ["Row", ...rows.map((row) => row.label)],
    rows.map((one) => [
      one.label,
      ...rows.map((other) => {
        if (one === other) return "";
        const on = both(one.row, other.row);
        const won = on.filter(([x, y]) => x.score > y.score && ((testOf(one.row, other.row, x.dataset) || {}).holm ?? 1) <= 0.05).length;
        return on.length ? shaded(`${won}/${on.length}`, won / on.length) : "–";
      }),
    ]),
    "No rows to compare.",
  );
}

function meanRanks() {
  const found = DATA.ranks;
  const rows = found
    ? drawn(
        Object.entries(found.ranks)
          .sort((a, b) => a[1] - b[1])
          .map(([row, rank]) => ({ row, rank })),
      )
    : [];
  if (found) {
    const friedman = found.p === null ? "" : ` Friedman's test: p ${found.p < 0.001 ? "< 0.001" : `= ${found.p.toFixed(3)}`}.`;
    const nemenyi = found.critical
      ? ` Two rows differ by Nemenyi's test where their mean ranks are ${found.critical.toFixed(2)} apart (5 %).`
      : " No rows are distinguishable by ranks.";
    $("ranks-note").textContent =
      `Over ${found.datasets} datasets that all rows have; 1 is best. Bars: the least and the greatest mean rank with one dataset left out.${friedman}${nemenyi}`;
  }
  draw(
    "ranks",
    {
      type: "bar",
      data: {
        labels: rows.map(({ row }) => labelOf(row)),
        datasets: [
          {
            label: "mean rank, one dataset left out",
            data: rows.map(({ row }) => found.ranges[row]),
            backgroundColor: COLOURS[5],
            barThickness: 6,
          },
          dots(
            rows.map(({ rank }) => rank),
            { label: "mean rank", order: -1, borderColor: COLOURS[1], backgroundColor: COLOURS[1] },
          ),
        ],
      },
      options: { scales: { y: axis("mean rank", { reverse: true }) } },
    },
    !found ? "Mean ranks need two rows that have two datasets in common." : rows.length ? "" : "None of the ticked rows has a mean rank.",
  );
}

function cost() {
  const byYear = view.axis === "year";
  const rows = drawn(byMean()).filter((row) => known(byYear ? row.year : row.cost));
  const seconds = rows.map((row) => row.cost);
  const together = !byYear && rows.length > 1 && Math.max(...seconds) - Math.min(...seconds) < 0.01 * Math.max(...seconds);
  $("cost-note").textContent = byYear
    ? "Mean score by the year of the row's paper."
    : "Mean seconds per image of the run that counted it (its share of a pass), against the mean score.";
  draw(
    "cost-chart",
    {
      type: "scatter",
      data: {
        datasets: rows.map((row, place) => ({
          label: row.label,
          data: [{ x: byYear ? row.year : row.cost, y: row.mean }],
          backgroundColor: colourOf(place),
          pointRadius: 5,
        })),
      },
      options: {
        scales: {
          x: axis(byYear ? "year" : "seconds per image", byYear ? { ticks: { precision: 0, callback: String } } : {}),
          y: axis("mean, %"),
        },
      },
    },
    together
      ? `The rows were counted together and share the time equally: ${seconds[0].toPrecision(2)} s per image each. “bench speed --one-by-one” times each row alone.`
      : rows.length
        ? ""
        : byYear
          ? "No row with a mean says when its paper appeared."
          : "No row with a mean says how long it took.",
  );
}

function provenance() {
  const head = DATA.head;
  const day = head.last.slice(0, 10);
  $("bands").replaceChildren(...head.bands.map((text) => element("div", text, { class: "band", role: "note" })));
  $("stand").textContent =
    `${day ? `Results up to ${day}` : "No results"}, ovss-bench ${head.version}. ` +
    `${plural(head.cells, "result")}: ${Object.entries(head.verdicts)
      .map(([status, count]) => `${count} ${status}`)
      .join(", ")}. ${DATA.differences || ""}`;
  table(
    "facts-table",
    ["What", element("th", "Value", { scope: "col", class: "text" })],
    [
      ["written", `${head.first} to ${head.last}`],
      ["commits", head.commits.join(", ")],
      ["weights (sha256)", head.weights.join(", ")],
      ["torch", head.torch.join(", ")],
      ["machines", head.machines.join(", ")],
      ["page made by", `ovss-bench ${head.version}`],
    ].map(([what, value]) => [what, element("td", value, { class: "text" })]),
  );
}

// all that depends on which rows are drawn
function charts() {
  if (DATA.datasets.length) dataset();
  if (!RANKED.length) return;
  wins();
  meanRanks();
  cost();
}

function chartControls() {
  options(
    "which",
    DATA.datasets.map((one) => [one.name, one.title]),
  );
  const bind = (id, key, then) =>
    $(id).addEventListener("change", () => {
      view[key] = $(id).value;
      then();
      keepView();
    });
  bind("which", "dataset", dataset);
  bind("axis", "axis", cost);
  for (const select of document.querySelectorAll(".draw")) {
    select.append(
      ...[
        ["", "best eight and ticked"],
        ["chosen", "ticked alone"],
        ["all", "all rows"],
      ].map(([value, text]) => element("option", text, { value })),
    );
    select.addEventListener("change", () => {
      view.draw = select.value;
      for (const other of document.querySelectorAll(".draw")) other.value = view.draw;
      charts();
      keepView();
    });
  }
}

function showChartView() {
  $("which").value = DATASETS.has(view.dataset) ? view.dataset : (DATA.datasets[0] || {}).name;
  $("axis").value = view.axis;
  for (const select of document.querySelectorAll(".draw")) select.value = view.draw;
  published();
  charts();
}
