"""Tables beyond the paper's, from stored counts: per class, by threshold, by vocabulary."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.metrics import BINS, mean_over_classes, score, summary, sweep
from bench.metrics.bootstrap import bootstrap, by_scene, difference
from bench.metrics.boundary import boundary_iou
from bench.store.result import StoredResult

DEFAULT = "cvpr2025"


def per_class_table(cells: Iterable[StoredResult]) -> pd.DataFrame:
    """IoU, accuracy, precision, F1 and, where counted, boundary IoU of each class, in per cent, one line each."""
    lines: list[dict[str, Any]] = []
    for cell in cells:
        if not cell.counted:
            continue
        numbers = summary(cell.areas().total, cell.metric)
        boundary = cell.boundary()
        of_boundary = boundary_iou(boundary.sum(0)) if boundary is not None else None
        for index, name in enumerate(cell.classes):
            of_class = {key: _per_cent(values[index]) for key, values in numbers.items() if isinstance(values, list)}
            line: dict[str, Any] = {"row": cell.row, "dataset": cell.dataset, "class": name, **of_class}
            lines.append(line | {"boundary_iou": None if of_boundary is None else _per_cent(of_boundary[index])})
    frame: pd.DataFrame = pd.DataFrame(lines)
    return frame


def threshold_table(cells: Iterable[StoredResult]) -> pd.DataFrame:
    """The score at the protocol's threshold, at 0, and at the best of all hundredths, in per cent.

    The best is chosen by the labels that it is scored on: an upper bound, no result.
    """
    lines: list[dict[str, Any]] = []
    for cell in cells:
        if not cell.counted:
            continue
        curve = threshold_curve(cell)
        best = int(np.nanargmax(curve)) if not np.isnan(curve).all() else 0
        lines.append(
            {
                "row": cell.row,
                "dataset": cell.dataset,
                "metric": cell.metric,
                "threshold": cell.settings.threshold,
                "score": _per_cent(curve[round(cell.settings.threshold * BINS)]),
                "at_0": _per_cent(curve[0]),
                "best_threshold_by_labels": best / BINS,
                "upper_bound": _per_cent(curve[best]),
            }
        )
    frame: pd.DataFrame = pd.DataFrame(lines)
    return frame


def threshold_curve(cell: StoredResult) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Scores (100,) at the thresholds 0, 0.01, … 0.99, as fractions."""
    confusions = sweep(cell.histogram(), cell.settings.background)
    return np.array([float(score(confusion, cell.metric)) for confusion in confusions])


def threshold_curves(cells: Iterable[StoredResult]) -> pd.DataFrame:
    """Every point of every curve, in per cent."""
    lines: list[dict[str, Any]] = []
    for cell in cells:
        if cell.counted:
            for place, value in enumerate(threshold_curve(cell)):
                lines.append(
                    {"row": cell.row, "dataset": cell.dataset, "threshold": place / BINS, "score": _per_cent(value)}
                )
    frame: pd.DataFrame = pd.DataFrame(lines)
    return frame


def vocabulary_table(cells: Sequence[StoredResult], draws: int) -> pd.DataFrame:
    """What a vocabulary adds to a row, against the default one: paired difference with interval, in points.

    Rows that differ in their vocabulary alone are compared, on the images that both counted. Also the score without
    the background class, and the background's own.
    """
    groups: dict[tuple[str, str], dict[str, StoredResult]] = {}
    for cell in cells:
        if cell.status in ("ok", "incomplete"):
            groups.setdefault((cell.dataset, _plain(cell)), {})[cell.settings.vocabulary] = cell
    lines: list[dict[str, Any]] = []
    for (dataset, row), of_vocabulary in groups.items():
        if len(of_vocabulary) < 2:
            continue
        for vocabulary, cell in of_vocabulary.items():
            numbers = np.asarray(summary(cell.areas().total, "miou")["iou"], float)
            background = cell.settings.background
            line: dict[str, Any] = {"row": row, "dataset": dataset, "vocabulary": vocabulary, "metric": cell.metric}
            line |= {"score": _per_cent(float(score(cell.areas().total, cell.metric)))}
            line |= {"without_background": _per_cent(float(mean_over_classes(np.delete(numbers, background))))}
            line |= {"background_iou": _per_cent(numbers[background])}
            base = of_vocabulary.get(DEFAULT)
            if base is not None and base is not cell and base.indices == cell.indices:
                drawn = [bootstrap(by_scene(one.areas(), one.scenes), one.metric, draws) for one in (cell, base)]
                gain = difference(*drawn).interval()
                line |= {"adds": _per_cent(gain.estimate), "low": _per_cent(gain.low), "high": _per_cent(gain.high)}
            lines.append(line)
    columns = ["row", "dataset", "vocabulary", "metric", "score", "without_background", "background_iou"]
    frame: pd.DataFrame = pd.DataFrame(lines, columns=[*columns, "adds", "low", "high"])
    return frame


def rank_changes(table: pd.DataFrame) -> pd.DataFrame:
    """Kendall's τ between the orders of rows under two vocabularies, dataset by dataset; 1: the same order."""
    from scipy.stats import kendalltau

    lines: list[dict[str, Any]] = []
    for dataset, of_dataset in table.groupby("dataset", sort=False):
        wide = of_dataset.pivot(index="row", columns="vocabulary", values="score")
        for one, other in combinations(wide.columns, 2):
            both = wide[[one, other]].dropna()
            if len(both) > 2:
                tau = float(kendalltau(both[one], both[other]).statistic)
                lines.append(
                    {"dataset": dataset, "first": one, "second": other, "rows": len(both), "tau": round(tau, 3)}
                )
    frame: pd.DataFrame = pd.DataFrame(lines, columns=["dataset", "first", "second", "rows", "tau"])
    return frame


def _plain(cell: StoredResult) -> str:
    """The row's name without its vocabulary and threshold."""
    base, bracket, inside = cell.row.partition("[")
    kept = [part for part in inside.rstrip("]").split(",") if bracket and not part.strip().startswith("vocabulary=")]
    return f"{base}[{','.join(kept)}]" if kept else base


def _per_cent(value: float | None) -> float | None:
    return None if value is None or np.isnan(value) else round(100 * float(value), 4)


def others_table(cells: Sequence[StoredResult], file: Path) -> pd.DataFrame:
    """Published numbers of other papers (results/published/others.csv), with the measured one beside them.

    A measured number is that of a complete cell of the method's label, without settings of its own but the vocabulary.
    """
    published = pd.read_csv(file, comment="#")
    measured = {
        (cell.info.label or cell.row, cell.settings.vocabulary, cell.dataset): cell
        for cell in cells
        if cell.status == "ok" and not cell.record.demo and cell.row.partition("[")[2] in ("", _words(cell))
    }
    values: list[float | None] = []
    for line in published.itertuples():
        cell = measured.get((str(line.method), str(line.vocabulary), str(line.dataset)))
        known = cell is not None and line.grade != "second-hand"  # which is never a target
        values.append(np.nan if not known or cell is None else _per_cent(float(score(cell.areas().total, cell.metric))))
    frame: pd.DataFrame = published.assign(measured=pd.Series(values, dtype=float))
    return frame


def _words(cell: StoredResult) -> str:
    return f"vocabulary={cell.settings.vocabulary}]"
