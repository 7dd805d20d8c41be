// Two rows against each other: by dataset, by class, by confusion, by image.

// the rows and the dataset that were chosen, else the two best and the first
function bothOf() {
  const best = [...byMean(), ...RANKED].map((row) => row.row);
  const first = ROWS.has(view.a) ? view.a : best[0];
  const second = ROWS.has(view.b) ? view.b : best.find((row) => row !== first) || first;
  return { first, second, of: DATASETS.get(view.on) || DATA.datasets[0], names: [labelOf(first), labelOf(second)] };
}

function testOf(first, second, name) {
  const [low, high, p, holm] = (DATA.paired[first + "\t" + second] || {})[name] || [];
  if (low !== undefined) return { low, high, p, holm };
  const [otherLow, otherHigh, otherP, otherHolm] = (DATA.paired[second + "\t" + first] || {})[name] || [];
  return otherLow === undefined ? null : { low: otherHigh && -otherHigh, high: otherLow && -otherLow, p: otherP, holm: otherHolm };
}

function byDataset() {
  const { first, second, names } = bothOf();
  const both = DATA.datasets
    .map((one) => [one, cellOf(first, one.name), cellOf(second, one.name)])
    .filter(([, a, b]) => a && b && a.complete && b.complete);
  const values = both.map(([, a, b]) => a.score - b.score);
  draw(
    "difference",
    {
      type: "bar",
      data: {
        labels: both.map(([one]) => one.short),
        datasets: [{ label: names.join(" − "), data: values, backgroundColor: values.map((value) => COLOURS[value < 0 ? 1 : 0]) }],
      },
      options: { scales: { y: axis("points") } },
    },
    first === second ? "Choose two rows." : both.length ? "" : `${names.join(" and ")} have no dataset in common that both have complete.`,
  );
  const tests = Object.values(DATA.paired)
    .flatMap((of) => Object.values(of))
    .filter((line) => known(line[2])).length;
  table(
    "pairs",
    ["Dataset", "scenes", "difference", "95 %", "p", `p (Holm, ${tests} tests)`],
    both.map(([one, a, b]) => {
      const test = testOf(first, second, one.name) || {};
      return [
        one.title,
        a.units || "–",
        signed(a.score - b.score),
        known(test.low) ? `${number(test.low)} to ${number(test.high)}` : "–",
        chance(test.p),
        chance(test.holm),
      ];
    }),
    "No dataset that both have complete.",
  );
}

// a difference in points as a cell, blue for a gain, orange for a loss
function gainCell(value) {
  const td = element("td", signed(value));
  if (known(value) && value) {
    td.style.background = `rgba(${css(value > 0 ? "--heat" : "--loss")}, ${(0.08 + 0.4 * Math.min(1, Math.abs(value) / 30)).toFixed(3)})`;
  }
  return td;
}

function why() {
  const { first, second, of, names } = bothOf();
  const [a, b] = [cellOf(first, of.name), cellOf(second, of.name)];
  const missing = [
    [a, names[0]],
    [b, names[1]],
  ]
    .filter(([cell]) => !cell || !cell.iou)
    .map(([cell, name]) => `${name}${cell && cell.text ? ` (${cell.text})` : ""}`);
  const barred = [a, b].filter((cell) => cell && !cell.complete).map(named);
  const empty = first === second ? "Choose two rows." : missing.length ? `No counts of ${missing.join(" and ")} on ${of.title}.` : "";
  $("why-note").textContent = barred.length && !empty ? `May not be ranked, so the differences say little: ${barred.join(", ")}.` : "";
  byClass(of, a, b, names, empty);
  byConfusion(of, a, b, names, empty);
  byObject(of, a, b, names, empty);
  byImage(of, a, b, names, empty);
}

function byClass(of, a, b, names, empty) {
  const lines = empty
    ? []
    : classNames(of).map((name, place) => ({
        name,
        share: of.labelled[place],
        values: [a.iou[place], b.iou[place]],
        difference: known(a.iou[place]) && known(b.iou[place]) ? a.iou[place] - b.iou[place] : null,
        adds: a.parts[place] - b.parts[place],
      }));
  lines.sort((x, y) => y.adds - x.adds || (y.difference ?? 0) - (x.difference ?? 0));
  table(
    "by-class",
    ["Class", "of the labels, %", `IoU ${names[0]}`, `IoU ${names[1]}`, "difference", "adds to the score"],
    lines.map((line) => [line.name, number(line.share), ...line.values.map(number), gainCell(line.difference), signed(line.adds)]),
    empty,
  );
}

// Shares of a class's true pixels that went elsewhere in one row and not in the other, those that weigh most first.
function byConfusion(of, a, b, names, empty) {
  const classes = [...classNames(of), "no class"];
  const lines = empty
    ? []
    : of.classes
        .flatMap((_, label) => classes.map((_, given) => ({ label, given, values: [a, b].map((cell) => cell.confusion[label][given] ?? 0) })))
        .map((one) => ({ ...one, difference: one.values[0] - one.values[1] }))
        .filter((one) => one.label !== one.given && Math.abs(one.difference) >= 0.05);
  const weight = (one) => Math.abs(one.difference) * of.labelled[one.label];
  lines.sort((x, y) => weight(y) - weight(x));
  table(
    "changed",
    [
      "True",
      element("th", "taken for", { scope: "col", class: "text" }),
      `${names[0]}, %`,
      `${names[1]}, %`,
      "difference",
      "of all pixels",
    ],
    lines
      .slice(0, 15)
      .map((one) => [
        classes[one.label],
        element("td", classes[one.given], { class: "text" }),
        ...one.values.map(number),
        signed(one.difference),
        signed((one.difference * of.labelled[one.label]) / 100),
      ]),
    empty || "The two rows confuse the same classes equally often.",
  );
}

// How much is right of objects of each size, and of pixels at each distance from an edge.
function byObject(of, a, b, names, empty) {
  const found = empty ? null : DATA.objects[of.name];
  const counted = found && found.sizes.of[a.row] && found.sizes.of[b.row];
  const none =
    empty ||
    "Needs label maps of the same images of both rows, and their labels: “run --save-predictions N” or “score”, then “report --data-root D”.";
  $("objects-note").textContent = counted
    ? `Right pixels, and objects of which at least half is right, on ${found.images[0]} of ${plural(found.images[1], "image")}; sizes and distances in pixels.`
    : none;
  $("objects").hidden = !counted;
  if (!counted) return;
  const share = (part, all) => (all ? (100 * part) / all : null);
  const lines = (kind, pixels) => {
    const [all, ...both] = ["all", a.row, b.row].map((key) => kind.of[key]);
    const sum = all.reduce((total, line) => total + pixels(line), 0);
    return kind.names.map((name, place) => {
      const right = both.map((of) => share(pixels(of[place]), pixels(all[place])));
      return {
        name,
        of: share(pixels(all[place]), sum),
        right,
        difference: known(right[0]) ? right[0] - right[1] : null,
        all: all[place],
        both: both.map((of) => of[place]),
      };
    });
  };
  table(
    "by-size",
    [
      "Objects",
      "number",
      "of the pixels, %",
      ...names.map((name) => `${name}, %`),
      "difference",
      ...names.map((name) => `found by ${name}, %`),
    ],
    lines(found.sizes, (line) => line[1]).map((line) => [
      line.name,
      line.all[0].toLocaleString("en"),
      number(line.of),
      ...line.right.map(number),
      gainCell(line.difference),
      ...line.both.map((of) => number(share(of[0], line.all[0]))),
    ]),
  );
  table(
    "by-distance",
    ["From an edge", "of the pixels, %", ...names.map((name) => `${name}, %`), "difference"],
    lines(found.distances, (line) => line).map((line) => [
      line.name,
      number(line.of),
      ...line.right.map(number),
      gainCell(line.difference),
    ]),
  );
}

function byImage(of, a, b, names, empty) {
  const [ours, theirs] = [imageScores(a), imageScores(b)];
  const lines = empty ? [] : ours.map((value, index) => ({ index, x: theirs[index], y: value })).filter(({ x, y }) => known(x) && known(y));
  draw(
    "images",
    {
      type: "scatter",
      data: { datasets: [{ label: plural(lines.length, "image"), data: lines, backgroundColor: COLOURS[0], pointRadius: 3 }, equalLine()] },
      options: {
        scales: { x: axis(`${names[1]}, %`), y: axis(`${names[0]}, %`) },
        plugins: {
          tooltip: {
            callbacks: {
              label: ({ raw }) => (raw.index === undefined ? "" : `${of.ids[raw.index]}: ${number(raw.y)} and ${number(raw.x)}`),
            },
          },
        },
      },
    },
    empty || (lines.length ? "" : "No image has a score in both rows."),
  );
  const sorted = lines.map((line) => ({ ...line, gain: line.y - line.x })).sort((x, y) => y.gain - x.gain);
  const pictured = sorted.filter((line) => picturesOf(of.name, line.index));
  const some = sorted.length > 12 ? [...sorted.slice(0, 6), ...sorted.slice(-6)] : sorted;
  const shown = [...new Set([...some, ...pictured])].sort((x, y) => y.gain - x.gain);
  const withPictures = pictured.length > 0;
  $("gains-note").textContent = !shown.length
    ? ""
    : `The greatest gains and losses${shown.length > some.length ? ", and the images with pictures" : ""}. ` +
      (withPictures ? "" : "Pictures come with “run --save-predictions N” and “report --data-root D”.");
  const heads = ["Image", names[0], names[1], "difference", ...(withPictures ? ["image", "label", ...names, "where they differ"] : [])];
  table(
    "gains",
    heads,
    shown.map((line) => {
      const pictures = picturesOf(of.name, line.index);
      const map = (row) => pictures && pictures.maps[row];
      const cells = withPictures
        ? [
            pictureCell(pictures && pictures.image, `image ${of.ids[line.index]}`),
            pictureCell(pictures && pictures.label, "label"),
            pictureCell(map(a.row), names[0]),
            pictureCell(map(b.row), names[1]),
            differenceCell(map(a.row), map(b.row)),
          ]
        : [];
      return [of.ids[line.index], number(line.y), number(line.x), gainCell(line.gain), ...cells];
    }),
    empty || "No image has a score in both rows.",
  );
}

function pictureCell(name, text) {
  const td = element("td", name ? undefined : "–", { class: "picture" });
  if (name) td.append(picture(name, text));
  return td;
}

// two label maps laid over each other: what is equal turns black, the rest white
function differenceCell(first, second) {
  const td = element("td", first && second ? undefined : "–", { class: "picture" });
  if (!first || !second) return td;
  const stack = element("div", undefined, { class: "differ", role: "img", "aria-label": "where the two label maps differ, in white" });
  stack.append(...[first, second].map((name) => element("img", undefined, { src: pictureOf(name), alt: "" })));
  td.append(stack);
  return td;
}

function pair() {
  byDataset();
  why();
}

function pairControls() {
  for (const id of ["a", "b"])
    options(
      id,
      RANKED.map((row) => [row.row, row.label]),
    );
  options(
    "on",
    DATA.datasets.map((one) => [one.name, one.title]),
  );
  for (const id of ["a", "b", "on"])
    $(id).addEventListener("change", () => {
      view[id] = $(id).value;
      (id === "on" ? why : pair)();
      keepView();
    });
}

function showPairView() {
  const { first, second, of } = bothOf();
  [$("a").value, $("b").value, $("on").value] = [first, second, of.name];
  pair();
}
