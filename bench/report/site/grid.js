// A way through the leaderboard by keys, and what is told of the place that has the focus or the pointer.

const stops = (within = $("board")) => [...within.querySelectorAll("[data-stop]")];

function focusOn(stop) {
  if (!stop) return;
  for (const other of document.querySelectorAll('#board [tabindex="0"]')) other.tabIndex = -1;
  stop.tabIndex = 0;
  stop.focus();
  stop.scrollIntoView({ block: "nearest", inline: "nearest" });
}

function nearest(candidates, stop) {
  const middle = (one) => {
    const box = one.getBoundingClientRect();
    return box.left + box.width / 2;
  };
  const distance = (one) => Math.abs(middle(one) - middle(stop));
  return candidates.reduce((best, one) => (best && distance(best) <= distance(one) ? best : one), null);
}

function move(event) {
  const stop = event.target.closest("[data-stop]");
  if (!stop || event.altKey || event.metaKey) return;
  const lines = [...$("board").rows].map((row) => stops(row)).filter((line) => line.length);
  const at = lines.findIndex((line) => line.includes(stop));
  const line = lines[at];
  const place = line.indexOf(stop);
  const targets = {
    ArrowLeft: line[place - 1],
    ArrowRight: line[place + 1],
    ArrowUp: lines[at - 1] && nearest(lines[at - 1], stop),
    ArrowDown: lines[at + 1] && nearest(lines[at + 1], stop),
    Home: event.ctrlKey ? lines[0][0] : line[0],
    End: event.ctrlKey ? lines.at(-1).at(-1) : line.at(-1),
  };
  if (!(event.key in targets)) return;
  event.preventDefault();
  focusOn(targets[event.key]);
}

function describe(target) {
  const td = target.closest("td, th");
  const tr = td && td.closest("tr[data-row]");
  if (!tr) return;
  const row = ROWS.get(tr.dataset.row);
  const dataset = DATASETS.get(td.dataset.dataset);
  const cell = dataset && cellOf(row.row, dataset.name);
  const parts = [];
  if (cell) {
    parts.push(
      `${row.label} on ${dataset.title}: ${known(cell.score) ? `${number(cell.score)} ${dataset.metric}` : "no number"}${cell.text ? ` (${cell.text})` : ""}`,
    );
    if (known(cell.low)) parts.push(`95 %: ${number(cell.low)} to ${number(cell.high)}`);
    if (cell.units) parts.push(cell.units);
    parts.push(`${cell.images.toLocaleString("en")} of ${plural(cell.total, "image")}`, ...cell.notes);
    if (cell.origin) parts.push(cell.origin);
  } else if (dataset) {
    parts.push(isGuess(row) ? `${row.label} on ${dataset.title}, computed from the labels` : `${row.label} on ${dataset.title}: not run`);
  } else if (td.dataset.task) {
    parts.push(
      `${row.label}: mean over ${td.dataset.over === "0" ? `no dataset, for the rows shown share none of ${td.dataset.task} that is complete` : `the ${plural(Number(td.dataset.over), `${td.dataset.task} dataset`)} that the rows shown share`}`,
    );
  } else if (!isGuess(row)) {
    parts.push(
      `${row.label}${row.venue ? ` (${row.venue})` : ""}: backbone ${row.backbone || "–"}`,
      `second model ${row.second || "none"}`,
      `upsampler ${row.upsampler || "none"}`,
    );
    if (row.cost) parts.push(`${row.cost.toPrecision(2)} s per image`);
    if (td.classList.contains("mean")) parts.push("below the mean its rank, in brackets the ranks that the tests of the means leave open");
  } else parts.push(`${row.label}: ignores the image`);
  $("told").textContent = parts.join(" · ");
}
