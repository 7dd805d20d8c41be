"""Stored results as pandas frames, comparisons and tables: the part of the Python API that needs no torch."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Collection as Names
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from bench.config import Config, Table, load_config
from bench.data.cards import card_names, load_card
from bench.data.citations import bibtex
from bench.data.prepared import find_samples
from bench.data.samples import SampleSet
from bench.errors import BenchError, check_known, listed
from bench.metrics import score, summary
from bench.metrics.significance import PERMUTATIONS
from bench.paths import Paths, demo_hint, each_path, existing_root, shipped
from bench.report.analysis import (
    others_table,
    per_class_table,
    rank_changes,
    synonym_table,
    threshold_curves,
    threshold_table,
    vocabulary_table,
)
from bench.report.comparison import Comparison
from bench.report.comparison import compare as compare_rows
from bench.report.escape import csv_text
from bench.report.render import COST_COLUMNS, cost_lines, gains_table, html_table, latex, markdown, to_csv
from bench.report.scores import Collection, Score, collect, readable, scores_of, stored_score
from bench.report.site.page import page
from bench.report.tables import Grid, boundary_table, build, gains, leaderboard
from bench.report.verdict import card_of
from bench.runtime.atomic import write_together
from bench.store.bundle import chosen
from bench.store.bundle import export as write_archive
from bench.store.store import Store

CHOSEN: Final = "chosen"  # files of a table of one's own
FORMATS: Final = ("md", "csv", "latex", "latex-intervals", "html", "bibtex")


def scores(
    results: str | Path = "results",
    limit: int | None = None,
    config: str | Path | None = None,
    cards: Paths = (),
) -> pd.DataFrame:
    """Return stored cells, one line each: row, dataset, the verdict on it, and every number of it as a fraction.

    status: "ok", or why the cell may not be ranked, with the reason. cards: folders of further dataset cards.

    >>> bench.scores("results/demo-run")[["row", "dataset", "status"]].values.tolist()
    [['clip', 'wbs_si', 'ok'], ['sclip', 'wbs_si', 'ok']]
    """
    lines = []
    for known in scores_of(Store(results, limit=limit), load_config(config), cards=each_path(cards)).values():
        said = known.said
        ends = (known.interval.low, known.interval.high) if known.interval else (np.nan, np.nan)
        line = {"row": known.row, "dataset": known.dataset, "score": known.value, "low": ends[0], "high": ends[1]}
        line |= {"unit": known.interval and known.interval.unit, "units": known.interval and known.interval.scenes}
        line |= {"status": said.pop("status"), "metric": known.metric, "demo": said.pop("demo")}
        line |= {"images": known.verdict.counted, "total": known.verdict.expected}
        numbers = summary(known.cell.areas(), known.metric) if known.cell and not np.isnan(known.value) else {}
        line |= {name: value for name, value in numbers.items() if not isinstance(value, list)}
        lines.append(line | {"boundary_iou": known.boundary} | said)
    frame: pd.DataFrame = pd.DataFrame(lines)
    return frame


def per_class(
    results: str | Path = "results",
    limit: int | None = None,
    config: str | Path | None = None,
    cards: Paths = (),
) -> pd.DataFrame:
    """Return IoU, accuracy, precision and F1 of each class of the stored cells as fractions, and the verdict on each.

    >>> bench.per_class("results/demo-run").columns.tolist()
    ['row', 'dataset', 'class', 'iou', 'acc', 'precision', 'f1', 'status', 'reason']
    """
    known = scores_of(Store(results, limit=limit), load_config(config), cards=each_path(cards))
    found = per_class_table(readable(known).values(), fractions=True)
    return _judged(found.drop(columns="boundary_iou", errors="ignore"), known)


def _judged(frame: pd.DataFrame, known: Mapping[tuple[str, str], Score]) -> pd.DataFrame:
    """Return the frame, a line for each row and dataset or several, with the verdict on each."""
    if not len(frame):
        return frame
    said = [known[key].said for key in zip(frame["row"], frame["dataset"], strict=True)]
    found: pd.DataFrame = frame.assign(**{name: [one[name] for one in said] for name in ("status", "reason")})
    return found


def per_image(
    row: str,
    dataset: str,
    results: str | Path = "results",
    limit: int | None = None,
    config: str | Path | None = None,
    cards: Paths = (),
) -> pd.DataFrame:
    """Return the score of each image of a stored cell (a fraction, nan where undefined), and the verdict on the cell.

    >>> bench.per_image("clip", "wbs_si", "results/demo-run").columns.tolist()
    ['index', 'id', 'scene', 'score', 'status', 'reason']
    """
    cell, found = stored_score(Store(results, limit=limit), row, dataset, load_config(config), each_path(cards))
    said, values = found.said, score(cell.areas(), cell.metric)
    columns = {"index": cell.indices, "id": cell.ids, "scene": cell.scenes, "score": values}
    frame: pd.DataFrame = pd.DataFrame(columns).assign(status=said["status"], reason=said["reason"])
    return frame


def compare(
    first: str,
    second: str,
    results: str | Path = "results",
    datasets: str | Sequence[str] | None = None,
    config: str | Path | None = None,
    cards: Paths = (),
) -> Comparison:
    """Compare two stored rows, first - second, with intervals and tests: `bench compare` as an object.

    >>> [pair.dataset for pair in bench.compare("sclip", "clip", "results/demo-run").pairs]
    ['wbs_si']
    """
    store, names = Store(results), listed(datasets, "datasets")
    scores = scores_of(store, load_config(config), each_path(cards), names)
    return compare_rows(store, first, second, names, scores=scores)


def _existing(results: str | Path) -> Path:
    folder = Path(results)
    if not folder.is_dir():
        advice = f"run something first, or give another --results{demo_hint(folder)}"
        raise BenchError(f"results folder {folder}: does not exist; {advice}")
    return folder


def tables(  # noqa: PLR0913 (each is a flag)
    results: str | Path = "results",
    out: str | Path | None = None,
    formats: str | Sequence[str] = ("md", "csv"),
    only: str | Sequence[str] | None = None,
    config: str | Path | None = None,
    draws: int | None = None,
    cards: Paths = (),
    *,
    rows: str | Sequence[str] | None = None,
    datasets: str | Sequence[str] | None = None,
    name: str = CHOSEN,
    caption: str = "",
) -> list[Path]:
    """Write the tables of benchmark.yaml, the leaderboard and the costs from what is stored; return the files.

    out: folder (default: tables/ in the results folder). only: names of tables. draws: swaps of each permutation test.
    cards: folders of further dataset cards; a cell on a dataset of theirs is stale where the card changed since.
    rows, datasets: one table instead, of stored rows and datasets in this order, with two predictions that ignore the
    image; name: of its files and its label in LaTeX, caption: its title.

    >>> [file.name for file in bench.tables("results/demo-run", only=["1"])]
    ['table1-demo.csv', 'table1-demo.md']
    """
    kinds, only = listed(formats, "--format") or (), listed(only, "--table")
    rows, datasets = listed(rows, "--rows"), listed(datasets, "--datasets")
    if only and (rows or datasets):
        raise BenchError("--table: goes with neither --rows nor --datasets")
    if (caption or name != CHOSEN) and not (rows or datasets):
        raise BenchError("--caption and --name: are of a table of your own; give --rows or --datasets")
    if not re.fullmatch(r"[\w-][\w.-]*", name):
        raise BenchError(f"--name {name}: is part of a file name; give letters, digits, - and _")
    for kind in kinds:
        check_known(kind, FORMATS, f"--format {','.join(kinds)}: unknown format '{kind}'")
    loaded, folder = load_config(config), _existing(results)
    for one in only or ():
        check_known(one, loaded.tables, f"--table {one}: no such table")
    folders = each_path(cards)
    loaded.check_datasets(card_names(folders), config)
    collections = collect(folder, loaded, draws or PERMUTATIONS, folders)
    target = Path(out) if out else folder / "tables"
    where = f"tables folder {target}", "give another --out"
    if rows or datasets:
        table = _own_table(rows, datasets, caption, collections, loaded)
        grids = [build(name, table, loaded, collection, own=True) for collection in collections]
        own = {file: text for grid in grids if grid.measured for file, text in _rendered(grid, kinds, folders).items()}
        if not own:
            raise BenchError(f"{folder}: nothing is stored of these rows on these datasets")
        write_together({target / file: text.encode() for file, text in own.items()}, *where)
        return [target / file for file in own]
    analysis = [] if only else [_analysis(collection) for collection in collections]
    further = {name: csv_text(frame) for frames in analysis for name, frame in frames.items() if len(frame)}
    shown, empty = _rendered_tables(collections, loaded, kinds, only)
    texts = {target / file: text.encode() for file, text in (further | shown).items()}
    write_together(texts, *where)
    for file, text in empty.items():
        if _is_ours(target / file, text):
            (target / file).unlink()
    return list(texts)


def _own_table(
    rows: Sequence[str] | None,
    datasets: Sequence[str] | None,
    caption: str,
    collections: Sequence[Collection],
    config: Config,
) -> Table:
    """Make a table of what is stored of these rows and datasets, or groups. BenchError for one of which nothing is."""
    pairs = [pair for collection in collections for pair in collection.scores]
    columns = _there(datasets, config.dataset_group, [dataset for _, dataset in pairs], "--datasets")
    lines = _there(rows, config.row_group, [row for row, dataset in pairs if dataset in columns], "--rows")
    title = caption or "Chosen rows and datasets"
    return Table(title=title, rows=tuple(lines), columns=tuple(columns), average=len(columns) > 1)


def _there(
    names: Sequence[str] | None, group: Callable[[str], Sequence[str]], there: Sequence[str], flag: str
) -> list[str]:
    """Fill in groups with what is there of them; all for None. BenchError for another name that is not there."""
    for name in names or ():
        if group(name) == (name,):
            check_known(name, there, f"{flag} {name}: nothing is stored of it")
    return [one for one in dict.fromkeys(one for name in names or there for one in group(name)) if one in there]


def _analysis(collection: Collection) -> dict[str, pd.DataFrame]:
    """Return the further tables by file name: per class, by threshold, by vocabulary, beside other papers.

    The last two hold cells that may be ranked alone; the first say of each cell whether it may.
    """
    cells = list(readable(collection.scores).values())
    ranked = [cell for cell in cells if collection.scores[cell.row, cell.dataset].complete]
    mark = f"-{collection.name}" if collection.name else ""
    words = vocabulary_table(ranked, collection.permutations)
    frames = {
        f"per_class{mark}.csv": _judged(per_class_table(cells), collection.scores),
        f"thresholds{mark}.csv": _judged(threshold_table(cells), collection.scores),
        f"threshold_curves{mark}.csv": _judged(threshold_curves(cells), collection.scores),
        f"words{mark}.csv": words,
        f"words_order{mark}.csv": rank_changes(ranked, collection.permutations) if len(words) else words,
        f"synonyms{mark}.csv": synonym_table(ranked),
    }
    comparable = [cell for cell in ranked if collection.scores[cell.row, cell.dataset].comparable]
    others = others_table(comparable, shipped("results/published") / "others.csv")
    return frames | ({"others.csv": others} if others.measured.notna().any() else {})


def html_report(  # noqa: PLR0913 (each is a flag)
    results: str | Path = "results",
    out: str | Path | None = None,
    *,
    limit: int | None = None,
    draws: int | None = None,
    config: str | Path | None = None,
    cards: Paths = (),
    data_root: str | Path | None = None,
) -> Path:
    """Write one page with leaderboard, charts and provenance of all that is stored, which needs no server; return it.

    Beside it comes a folder of pictures, report_pictures/, where there are more than a megabyte of them.
    out: the file (default: report.html in the results folder). limit: of the results of runs on the first N images.
    cards: folders of further dataset cards. data_root: folder of all datasets, from which image and label are shown
    beside label maps that were kept. Raises BenchError where nothing is stored.

    >>> bench.html_report("results/demo-run").name
    'report.html'
    """
    loaded, folder = load_config(config), _existing(results)
    found = [one for one in collect(folder, loaded, draws or PERMUTATIONS, each_path(cards)) if one.scores]
    fitting = [one for one in found if one.limit == limit]
    if not fitting:
        names = ", ".join(one.name or "full runs" for one in found) or "nothing"
        raise BenchError(
            f"results folder {folder}: holds {names}; give --limit, or run something first{demo_hint(folder)}"
        )
    file, folders = Path(out) if out else folder / "report.html", each_path(cards)
    root = existing_root(data_root) if data_root else None
    beside = file.with_name(f"{file.stem}_pictures")

    @functools.cache
    def samples_of(name: str) -> SampleSet | None:
        try:
            return find_samples(load_card(name, folders), root) if root else None
        except BenchError:  # of data that is not there
            return None

    made = page(fitting[0], loaded, folders, samples_of, beside.name)
    files = {beside / name: data for name, data in made.pictures.items() if not (beside / name).is_file()}
    write_together({**files, file: made.text.encode()}, f"-o {file}", "give another file")
    for old in beside.glob("*"):
        if re.fullmatch(r"[0-9a-f]{16}\.(png|jpeg)", old.name) and old.name not in made.pictures:
            old.unlink()
    with contextlib.suppress(OSError):  # not there, or not empty
        beside.rmdir()
    return file


def export(
    file: str | Path,
    results: str | Path = "results",
    methods: str | Sequence[str] | None = None,
    datasets: str | Sequence[str] | None = None,
    limit: int | None = None,
) -> Path:
    """Write stored results to one archive (.zip), which `bench import` takes in; return it.

    methods, datasets: only these. limit: of the results of runs on the first N images.

    >>> bench.export("demo.zip", "results/demo-run").name
    'demo.zip'
    """
    store = Store(results, limit=limit)
    write_archive(store, Path(file), chosen(store, listed(methods, "--methods"), listed(datasets, "--datasets")))
    return Path(file)


def _rendered_tables(
    collections: Sequence[Collection], config: Config, formats: Names[str], only: Sequence[str] | None = None
) -> tuple[dict[str, str], dict[str, str]]:
    """Render tables of benchmark.yaml, leaderboard, headline gains and costs of each collection: file name -> text.

    Names say what they hold: table1.md, table1-demo.csv, leaderboard-limited-20.md; the leaderboard is the last.
    A table without a measured number is left out where another has one, and comes second: what an earlier call wrote
    of it is to be removed. `only` names tables of benchmark.yaml, which come whatever they hold, and leaves out the
    rest.
    """
    texts: dict[str, str] = {}
    empty: set[str] = set()
    for collection in collections:
        suffix = f"-{collection.name}" if collection.name else ""
        grids = [build(name, config.tables[name], config, collection) for name in only or config.tables]
        if not only:
            grids.append(leaderboard(config, collection))
            grids += filter(None, [boundary_table(collection)])
            if "md" in formats:
                texts[f"headline{suffix}.md"] = gains_table(gains(collection), collection.name)
            if "csv" in formats and (lines := cost_lines(collection)):
                texts[f"cost{suffix}.csv"] = csv_text(pd.DataFrame(lines, columns=list(COST_COLUMNS)))
        some_measured = any(grid.measured for grid in grids)
        for grid in grids:
            files = _rendered(grid, formats, collection.cards)
            texts |= files
            if some_measured and not only and not grid.measured:
                empty |= set(files)
    names = sorted(texts, key=lambda name: (name.startswith("leaderboard"), name))
    return {name: texts[name] for name in names if name not in empty}, {name: texts[name] for name in empty}


def _rendered(grid: Grid, formats: Names[str], cards: Sequence[Path]) -> dict[str, str]:
    """Render a table in each of the formats: file name -> text."""
    texts, suffix = {}, f"-{grid.collection}" if grid.collection else ""
    if "md" in formats:
        texts[f"{grid.name}{suffix}.md"] = markdown(grid)
    if "csv" in formats:
        texts[f"{grid.name}{suffix}.csv"] = to_csv(grid)
    if "latex" in formats or "latex-intervals" in formats:
        texts[f"{grid.name}{suffix}.tex"] = latex(grid, "latex-intervals" in formats)
    if "html" in formats:
        texts[f"{grid.name}{suffix}.html"] = html_table(grid)
    if "bibtex" in formats:
        texts[f"{grid.name}{suffix}.bib"] = _bibliography(grid, cards)
    return texts


def _bibliography(grid: Grid, cards: Sequence[Path]) -> str:
    """Return BibTeX of the datasets of a table, and of the methods and models of the rows that were measured."""
    scores = [score for line in grid.lines for entry in line.entries.values() if (score := entry.score)]
    used = [one for one in (score.settings for score in scores) if one]
    parts = [name for of in used for name in (of.method, of.upsampler, of.refine, of.backbone, *of.models.values())]
    datasets = dict.fromkeys(score.dataset for score in scores)
    known = [card for name in datasets if (card := card_of(name, cards))]
    return bibtex(known, dict.fromkeys(parts)) + "\n"


def _is_ours(file: Path, text: str) -> bool:
    """Tell whether a file begins with the line that a table of this name begins with, so that a user's own stays."""
    first = text.encode().splitlines()[0]
    return file.is_file() and file.read_bytes().splitlines()[:1] == [first]
