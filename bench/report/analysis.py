"""Tables beyond the paper's, from stored counts: per class, by threshold, by vocabulary."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.config import FIRST, spelled, split_name
from bench.metrics import BINS, mean_over_classes, score, summary, sweep
from bench.metrics.boundary import boundary_iou
from bench.metrics.intervals import Scenes, by_scene, interval
from bench.metrics.significance import PERMUTATIONS, holm, permutation_test, tests_of_rows
from bench.report.scores import rounded
from bench.report.verdict import card_of
from bench.settings import IGNORED
from bench.store.result import StoredResult

DEFAULT = "cvpr2025"


def per_class_table(cells: Iterable[StoredResult], fractions: bool = False) -> pd.DataFrame:
    """IoU, accuracy, precision, F1, and boundary IoU where counted, in per cent or fractions; a line for each class."""
    lines: list[dict[str, Any]] = []
    for cell in cells:
        if not cell.images.num_rows:
            continue
        numbers = summary(cell.areas().total, cell.metric)
        boundary = cell.boundary()
        of_boundary = boundary_iou(boundary.sum(0)) if boundary is not None else None
        for index, name in enumerate(cell.classes):
            of_class = {key: values[index] for key, values in numbers.items() if isinstance(values, list)}
            of_class["boundary_iou"] = None if of_boundary is None else of_boundary[index]
            shown = of_class if fractions else {key: rounded(value) for key, value in of_class.items()}
            lines.append({"row": cell.row, "dataset": cell.dataset, "class": name, **shown})
    frame: pd.DataFrame = pd.DataFrame(lines)
    return frame


def threshold_table(cells: Iterable[StoredResult]) -> pd.DataFrame:
    """Return the score at the protocol's threshold, at 0, and at the best of all hundredths, in per cent.

    The best is chosen by the labels that it is scored on: an upper bound, no result.
    """
    lines: list[dict[str, Any]] = []
    for cell in cells:
        if not cell.images.num_rows:
            continue
        curve = threshold_curve(cell)
        best = int(np.nanargmax(curve)) if not np.isnan(curve).all() else 0
        lines.append(
            {
                "row": cell.row,
                "dataset": cell.dataset,
                "metric": cell.metric,
                "threshold": cell.settings.threshold,
                "score": rounded(curve[round(cell.settings.threshold * BINS)]),
                "at_0": rounded(curve[0]),
                "best_threshold_by_labels": best / BINS,
                "upper_bound": rounded(curve[best]),
            }
        )
    frame: pd.DataFrame = pd.DataFrame(lines)
    return frame


def threshold_curve(cell: StoredResult) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return the scores (100,) at the thresholds 0, 0.01, … 0.99, as fractions."""
    confusions = sweep(cell.histogram(), cell.settings.background)
    return np.array([float(score(confusion, cell.metric)) for confusion in confusions])


def removed_classes(cell: StoredResult) -> dict[str, float]:
    """Classes that are predicted at threshold 0 and nowhere at the cell's, with their IoU at 0 as a fraction."""
    place, background = round(cell.settings.threshold * BINS), cell.settings.background
    if not cell.counted or not place:
        return {}
    confusions = sweep(cell.histogram(), background)[[0, place]]
    kept, ious = confusions[1].sum(0), summary(confusions[0], cell.metric)["iou"]
    return {name: ious[k] for k, name in enumerate(cell.classes) if k != background and not kept[k] and ious[k] > 0}


def removals(cells: Iterable[StoredResult]) -> list[str]:
    """Name the classes that thresholds remove, one line for each class of a dataset."""
    found: dict[tuple[str, str, float], list[str]] = {}
    for cell in cells:
        for name, iou in removed_classes(cell).items():
            rows = found.setdefault((cell.dataset, name, cell.settings.threshold), [])
            rows.append(f"{cell.row} (IoU at 0: {100 * iou:.1f})")
    return [
        f"{dataset}: {name} is never predicted at threshold {threshold:g} by {', '.join(rows[:3])}"
        + (f" and {len(rows) - 3} more" if len(rows) > 3 else "")
        for (dataset, name, threshold), rows in found.items()
    ]


def threshold_curves(cells: Iterable[StoredResult]) -> pd.DataFrame:
    """Every point of every curve, in per cent."""
    lines: list[dict[str, Any]] = []
    for cell in cells:
        if cell.images.num_rows:
            for place, value in enumerate(threshold_curve(cell)):
                lines.append(
                    {"row": cell.row, "dataset": cell.dataset, "threshold": place / BINS, "score": rounded(value)}
                )
    frame: pd.DataFrame = pd.DataFrame(lines)
    return frame


def vocabulary_table(cells: Sequence[StoredResult], permutations: int = PERMUTATIONS) -> pd.DataFrame:
    """Return how many points each vocabulary or protocol adds to a row against the default one, with interval.

    The differences are paired. Rows that differ in it alone are compared, on the images and labels that both counted;
    p_holm is over all lines. Also given: the score without the background class, and the background's own.
    """
    lines: list[dict[str, Any]] = []
    for (dataset, row), of_words in _by_words(cells).items():
        for words, cell in of_words.items() if len(of_words) > 1 else ():
            numbers = np.asarray(summary(cell.areas().total, "miou")["iou"], float)
            background = cell.settings.background
            line: dict[str, Any] = {"row": row, "dataset": dataset, "vocabulary": words, "metric": cell.metric}
            line |= {"score": rounded(float(score(cell.areas().total, cell.metric)))}
            if background != IGNORED:
                line |= {"without_background": rounded(float(mean_over_classes(np.delete(numbers, background))))}
                line |= {"background_iou": rounded(numbers[background])}
            base = of_words.get(DEFAULT)
            if base is not None and base is not cell and (both := _paired(cell, base)):
                gain = interval(*both)
                line |= {"adds": rounded(gain.estimate), "low": rounded(gain.low), "high": rounded(gain.high)}
                line |= {"unit": gain.unit, "units": gain.scenes}
                line |= {"p": permutation_test(both[:1], both[1:], permutations).p_value}
            lines.append(line)
    columns = ["row", "dataset", "vocabulary", "metric", "score", "without_background", "background_iou"]
    frame: pd.DataFrame = pd.DataFrame(lines, columns=[*columns, "adds", "low", "high", "unit", "units", "p"])
    frame["p_holm"] = holm(frame.p.astype(float).tolist())
    return frame


def rank_changes(cells: Sequence[StoredResult], permutations: int = PERMUTATIONS) -> pd.DataFrame:
    """Kendall's τ between the orders of rows under two vocabularies or protocols, by dataset; 1: the same order.

    low, high: what τ can be if each pair of rows that the permutation test does not tell apart, under either, may stand
    in any order (5 %, Holm over the pairs of both); none for fewer than six scenes. Three rows at least.
    """
    from scipy.stats import kendalltau

    found: dict[str, dict[str, dict[str, StoredResult]]] = {}  # dataset -> words -> row -> cell
    for (dataset, row), of_words in _by_words(cells).items():
        for words, cell in of_words.items():
            found.setdefault(dataset, {}).setdefault(words, {})[row] = cell
    lines: list[dict[str, Any]] = []
    for dataset, by_words in found.items():
        counts = {
            words: {row: [by_scene(cell.areas(), cell.scenes, cell.metric)] for row, cell in of_rows.items()}
            for words, of_rows in by_words.items()
        }
        tests = {
            words: tests_of_rows(rows, list(combinations(rows, 2)), permutations) for words, rows in counts.items()
        }
        for one, other in combinations(sorted(by_words), 2):
            rows = [row for row in by_words[one] if row in by_words[other]]
            if len(rows) < 3:
                continue
            scores = [{row: counts[words][row][0].score for row in rows} for words in (one, other)]
            tau = float(kendalltau(*(list(of_row.values()) for of_row in scores)).statistic)
            low, high = _possible_tau(rows, scores, [tests[one], tests[other]])
            line = {"dataset": dataset, "first": one, "second": other, "rows": len(rows), "tau": round(tau, 3)}
            lines.append(line | {"low": round(low, 3), "high": round(high, 3)})
    frame: pd.DataFrame = pd.DataFrame(lines, columns=["dataset", "first", "second", "rows", "tau", "low", "high"])
    return frame


def synonym_table(cells: Sequence[StoredResult]) -> pd.DataFrame:
    """Return how many points of IoU the synonyms of each class add against its first word alone.

    The first words are the vocabulary NAME/first. One line for each class of a row that was counted with both; `score`
    is what they add to the row's.
    """
    lines: list[dict[str, Any]] = []
    for (dataset, row), of_words in _by_words(cells).items():
        for words, full in of_words.items():
            first = of_words.get(f"{words}{FIRST}")
            if first is None or first.indices != full.indices:
                continue
            both = [np.asarray(summary(cell.areas().total, "miou")["iou"], float) for cell in (full, first)]
            total = [float(score(cell.areas().total, cell.metric)) for cell in (full, first)]
            for name, with_all, with_first in zip(full.classes, *both, strict=True):
                line = {"row": row, "dataset": dataset, "vocabulary": words, "class": name}
                line |= {"iou": rounded(with_all), "first_word_alone": rounded(with_first)}
                line |= {"adds": rounded(with_all - with_first), "score_adds": rounded(total[0] - total[1])}
                lines.append(line)
    columns = ["row", "dataset", "vocabulary", "class", "iou", "first_word_alone", "adds", "score_adds"]
    frame: pd.DataFrame = pd.DataFrame(lines, columns=columns)
    return frame


def _possible_tau(
    rows: Sequence[str], scores: Sequence[Mapping[str, float]], tests: Sequence[Mapping[tuple[str, str], float]]
) -> tuple[float, float]:
    """Return the least and the greatest Kendall's τ of two orders that the tests of their pairs of rows leave open."""
    pairs = list(combinations(rows, 2))
    p_values = [of.get(pair, of.get(pair[::-1], np.nan)) for of in tests for pair in pairs]
    if np.isnan(p_values).all():
        return np.nan, np.nan
    decided = (holm(p_values) <= 0.05).reshape(2, -1).all(0)
    agreed = [np.prod([np.sign(of[first] - of[second]) for of in scores]) for first, second in pairs]
    known, open_pairs = float(np.sum(agreed, where=decided)), float((~decided).sum())
    return (known - open_pairs) / len(pairs), (known + open_pairs) / len(pairs)


def _paired(first: StoredResult, second: StoredResult) -> tuple[Scenes, Scenes] | None:
    """Return the counts of both by scene; None for other images, labels or metrics."""
    if first.indices != second.indices or first.metric != second.metric:
        return None
    ours, theirs = (by_scene(cell.areas(), cell.scenes, cell.metric) for cell in (first, second))
    return (ours, theirs) if np.array_equal(ours.label_counts, theirs.label_counts) else None


def _by_words(cells: Sequence[StoredResult]) -> dict[tuple[str, str], dict[str, StoredResult]]:
    """Group cells by (dataset, row without its words): vocabulary, or "protocol NAME" -> cell."""
    found: dict[tuple[str, str], dict[str, StoredResult]] = {}
    for cell in cells:
        base, pairs = split_name(cell.row)
        protocol = dict(pairs).get("protocol")
        words = f"protocol {protocol}" if protocol else cell.settings.vocabulary
        row = spelled(base, [(key, text) for key, text in pairs if key not in ("vocabulary", "protocol")])
        found.setdefault((cell.dataset, row), {})[words] = cell
    return found


def others_table(cells: Sequence[StoredResult], file: Path) -> pd.DataFrame:
    """Return the published numbers of other papers (results/published/others.csv), with the measured one beside each.

    cells: that may stand beside published numbers. A measured number is the score of the cell of the method's label
    whose settings differ from the protocol's in the vocabulary at most. leak: what the dataset's card says of the
    training set of a method that was trained.
    """
    published = pd.read_csv(file, comment="#")
    measured = {
        (cell.info.label or cell.row, cell.settings.vocabulary, cell.dataset): cell
        for cell in cells
        if split_name(cell.row)[1] in ([], [("vocabulary", cell.settings.vocabulary)])
    }
    values: list[float | None] = []
    for line in published.itertuples():
        cell = measured.get((str(line.method), str(line.vocabulary), str(line.dataset)))
        known = cell is not None and line.grade != "second-hand"  # which is never a target
        values.append(np.nan if not known or cell is None else rounded(float(score(cell.areas().total, cell.metric))))
    trained = published.extra_models.fillna("").str.startswith("trained")
    cards = {dataset: card_of(dataset) for dataset in published.dataset[trained].unique()}
    leaks = [
        next((text for text in (card.leaks if card else ()) if method in text), "")
        for method, card in zip(published.method, published.dataset.map(cards.get), strict=True)
    ]
    frame: pd.DataFrame = published.assign(measured=pd.Series(values, dtype=float), leak=leaks)
    return frame
