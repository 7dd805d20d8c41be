// Files of what the leaderboard shows: its rows, its columns, its means.

function download(name, text) {
  const link = element("a", "", { download: name, href: URL.createObjectURL(new Blob([text], { type: "text/plain" })) });
  link.click();
  URL.revokeObjectURL(link.href);
}

// the lines of `bench tables` that belong to what is shown, and a mean over it for each row
function asCsv() {
  const shown = boardView();
  const heads = DATA.csv.head.split(",");
  const names = new Set(shown.datasets.map((one) => one.name));
  const quoted = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const averages = (row) => {
    const value = shown.means.values.get(row.row);
    if (!known(value)) return [];
    const of = {
      table: "leaderboard",
      row: row.row,
      label: row.label,
      venue: row.venue,
      dataset: "average",
      measured: value.toFixed(4),
      images: shown.means.common.length,
    };
    return [heads.map((head) => quoted(String(of[head] ?? ""))).join(",")];
  };
  const lines = shown.rows.flatMap((row) => [
    ...DATA.csv.lines.filter(([of, dataset]) => of === row.row && names.has(dataset)).map(([, , text]) => text),
    ...averages(row),
  ]);
  return [DATA.csv.head, ...lines].join("\n") + "\n";
}

const TEX = { "\\": "\\textbackslash{}", "^": "\\textasciicircum{}", "~": "\\textasciitilde{}", λ: "$\\lambda$", "†": "\\dag{}" };
const tex = (text) => text.replace(/[\\^~λ†&%$#_{}]/g, (sign) => TEX[sign] || `\\${sign}`);

// best bold and second best underlined, of numbers that may be ranked; equal print, equal mark
function marked(values) {
  const prints = values.map((value) => (known(value) ? number(value) : null));
  const [best, second] = [...new Set(prints.filter(known))].sort((a, b) => b - a);
  return prints.map((print) =>
    print === null ? "--" : print === best ? `\\textbf{${print}}` : print === second ? `\\underline{${print}}` : print,
  );
}

function asLatex() {
  const shown = boardView();
  const notes = [];
  const columns = shown.groups.flatMap((group) => [
    ...group.datasets.map((one) => ({ head: one.short, values: marked(shown.ranked.map((row) => valueOf(row, one.name))), of: one.name })),
    ...(group.withMean ? [{ head: "mean", values: marked(shown.ranked.map((row) => group.means.values.get(row.row))) }] : []),
  ]);
  columns.push({ head: "Mean", values: marked(shown.ranked.map((row) => shown.means.values.get(row.row))) });
  const noted = (row, column) => {
    const cell = column.of && cellOf(row.row, column.of);
    const text =
      cell && (cell.text || cell.notes.length)
        ? `${labelOf(cell.row)} on ${DATASETS.get(cell.dataset).title}: ${[cell.text, ...cell.notes].filter(Boolean).join("; ")}`
        : "";
    if (!text) return "";
    if (!notes.includes(text)) notes.push(text);
    return `$^{${notes.indexOf(text) + 1}}$`;
  };
  const lines = shown.ranked.map(
    (row, place) =>
      [
        tex(row.venue ? `${row.label} (${row.venue})` : row.label),
        ...columns.map((column) => column.values[place] + noted(row, column)),
      ].join(" & ") + " \\\\",
  );
  const groups = shown.groups.map((group) => `\\multicolumn{${group.datasets.length + group.withMean}}{c}{${tex(groupName(group.task))}}`);
  return (
    [
      ...DATA.head.bands.map((text) => `% ${text}`),
      `% ${location.href.split("/").pop()}`,
      `\\begin{tabular}{l${"r".repeat(columns.length)}}`,
      "\\toprule",
      `& ${groups.join(" & ")} & \\\\`,
      `Method & ${columns.map((column) => tex(column.head)).join(" & ")} \\\\`,
      "\\midrule",
      ...lines,
      "\\bottomrule",
      "\\end{tabular}",
      ...[...DATA.head.bands, ...notes.map((text, place) => [place + 1, text])].map((note) =>
        Array.isArray(note) ? `\\par{\\footnotesize $^{${note[0]}}$ ${tex(note[1])}}` : `\\par{\\footnotesize ${tex(note)}}`,
      ),
    ].join("\n") + "\n"
  );
}

function exportControls() {
  $("download-csv").addEventListener("click", () => download("leaderboard.csv", asCsv()));
  $("download-latex").addEventListener("click", () => download("leaderboard.tex", asLatex()));
}
