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
  const safe = (text) => (/^[=+@-]/.test(text) ? `'${text}` : text); // no formula, as in bench/report/escape.py
  const quoted = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const averages = (row) => {
    const [value, over] = [shown.means.values.get(row.row), shown.means.common.length];
    if (!known(value)) return [];
    const of = {
      ...DATA.csv.shared,
      row: row.row,
      label: row.label,
      venue: row.venue,
      dataset: "average",
      status: `${over}/${over}`,
      measured: value.toFixed(4),
    };
    return [heads.map((head) => quoted(safe(String(of[head] ?? "")))).join(",")];
  };
  const lines = shown.rows.flatMap((row) => [
    ...DATA.csv.lines.filter(([of, dataset]) => of === row.row && names.has(dataset)).map(([, , text]) => text),
    ...averages(row),
  ]);
  return [DATA.csv.head, ...lines].join("\n") + "\n";
}

// The command that writes what is shown for a paper.
function tablesCommand({ rows, datasets }) {
  const shell = (text) => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'"'"'`)}'`);
  const names = [rows.filter((row) => !isGuess(row)).map((row) => row.row), datasets.map((one) => one.name)];
  const chosen = ["--rows", "--datasets"].map((flag, place) => `${flag} ${shell(names[place].join(","))}`);
  return ["python -m bench tables", ...DATA.head.flags, ...chosen, "--format latex,bibtex"].join(" ");
}

function exportControls() {
  $("download-csv").addEventListener("click", () => download("leaderboard.csv", asCsv()));
}
