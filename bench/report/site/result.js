// One result, opened: all that `bench show` prints, classes, confusion, and its images.

const AT_ONCE = 50; // images that are listed before one asks for all

function openResult(row, name) {
  view.open = `${row}\t${name}`;
  showResult();
  keepView();
}

function showResult() {
  const [row, name] = view.open.split("\t");
  const [cell, of] = [cellOf(row, name), DATASETS.get(name)];
  if (!cell || !of) return;
  $("result-title").textContent = `${labelOf(row)} on ${of.title}`;
  $("result-score").textContent =
    `${known(cell.score) ? `${number(cell.score)} % ${of.metric}` : "No number"}${cell.text ? ` (${cell.text})` : ""}`;
  const about = ROWS.get(row) || {};
  $("result-links").replaceChildren(
    ...["paper", "code"]
      .filter((kind) => about[kind])
      .flatMap((kind) => [element("a", `${kind} of ${about.label}`, { href: about[kind], rel: "noreferrer" }), " "]),
  );
  $("result-command").textContent = cell.command || "";
  $("result-command").parentElement.hidden = !cell.command;
  const blocks = (cell.told || []).map((places) => places.map((place) => DATA.values[place]));
  $("result-blocks").replaceChildren(
    ...blocks.map(([title, ...parts], place) => {
      const block = element("details");
      block.open = !place;
      const list = element("dl");
      for (let at = 0; at < parts.length; at += 2) list.append(element("dt", parts[at]), element("dd", parts[at + 1] || "–"));
      block.append(element("summary", place ? title : "verdict, history and notes"), list);
      return block;
    }),
  );
  if (!blocks.length) $("result-blocks").replaceChildren(...cell.notes.map((note) => element("p", note)));
  const none = known(cell.score)
    ? "It was counted on other classes than the card has now."
    : `No counts: ${cell.notes.join("; ") || cell.text}.`;
  table(
    "result-classes",
    ["Class", "of the labels, %", "IoU", "accuracy"],
    !cell.iou
      ? []
      : classNames(of).map((text, place) => [
          swatched(of, place, text),
          number(of.labelled[place]),
          shaded(number(cell.iou[place]), known(cell.iou[place]) ? cell.iou[place] / 100 : null),
          number(cell.acc[place]),
        ]),
    none,
  );
  table(
    "confusion",
    ["True class", ...classNames(of), ...(cell.confusion && cell.confusion[0].length > of.classes.length ? ["no class"] : [])],
    !cell.confusion
      ? []
      : cell.confusion.map((line, place) => [
          classNames(of)[place],
          ...line.map((value) => shaded(number(value), known(value) ? value / 100 : null)),
        ]),
    none,
  );
  imageTable(cell, of);
  if (!$("result").open) $("result").showModal();
  $("result").scrollTop = 0;
}

function swatched(of, place, text) {
  const th = element("th", undefined, { scope: "row" });
  if (of.palette[place]) {
    const swatch = element("span", undefined, { class: "swatch" });
    swatch.style.background = `rgb(${of.palette[place].join(", ")})`;
    th.append(swatch);
  }
  th.append(text);
  return th;
}

const imageOrder = { by: "score", down: false, all: false };

function imageTable(cell, of) {
  const lines = imageScores(cell)
    .map((score, index) => ({ index, id: of.ids[index], score, pictures: picturesOf(of.name, index) }))
    .filter((line) => line.id);
  const map = (line) => line.pictures && line.pictures.maps[cell.row];
  const withPictures = lines.some(map);
  const value = { id: (line) => line.id, score: (line) => line.score ?? -1, picture: (line) => Boolean(map(line)) }[imageOrder.by];
  lines.sort((x, y) => (value(x) < value(y) ? -1 : value(x) > value(y) ? 1 : 0) * (imageOrder.down ? -1 : 1));
  const shown = imageOrder.all ? lines : lines.slice(0, AT_ONCE);
  const sorter = (by, text) => {
    const on = imageOrder.by === by;
    const th = element("th", undefined, { scope: "col", "aria-sort": on ? (imageOrder.down ? "descending" : "ascending") : "none" });
    const button = element("button", text, { type: "button", "data-by": by });
    if (on) button.append(element("span", imageOrder.down ? " ▼" : " ▲", { "aria-hidden": "true" }));
    button.addEventListener("click", () => {
      Object.assign(imageOrder, { by, down: on ? !imageOrder.down : by === "picture" });
      imageTable(cell, of);
      document.querySelector(`#result-images [data-by=${by}]`).focus();
    });
    th.append(button);
    return th;
  };
  const heads = [
    sorter("id", "Image"),
    sorter("score", "Score, %"),
    ...(withPictures ? [sorter("picture", "Label map"), "Label", "Picture"] : []),
  ];
  table(
    "result-images",
    heads,
    shown.map((line) => [
      line.id,
      number(line.score),
      ...(withPictures
        ? [
            pictureCell(map(line), `label map of ${line.id}`),
            pictureCell(line.pictures && line.pictures.label, "label"),
            pictureCell(line.pictures && line.pictures.image, "image"),
          ]
        : []),
    ]),
    lines.length ? "" : `No image has counts. ${cell.notes.join("; ")}`,
  );
  $("result-images-note").textContent =
    `${shown.length} of ${plural(lines.length, "image")}. ${withPictures || !lines.length ? "" : "Pictures come with “run --save-predictions N” and “report --data-root D”."}`;
  $("result-all").hidden = shown.length === lines.length;
  $("result-all").onclick = () => {
    imageOrder.all = true;
    imageTable(cell, of);
  };
}

function resultControls() {
  $("result-close").addEventListener("click", () => $("result").close());
  $("result").addEventListener("close", () => {
    view.open = "";
    imageOrder.all = false;
    keepView();
  });
  $("result").addEventListener("click", (event) => {
    if (event.target === $("result")) $("result").close();
  });
}
