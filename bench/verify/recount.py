"""Images of submitted results, chosen at random and counted again where data and weights are."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch

from bench.data.layouts import DatasetMissing
from bench.data.prepared import find_samples
from bench.demo.datasets import demo_data_root
from bench.errors import BenchError
from bench.evaluation.run import execute, planned
from bench.metrics import Uint8s, label_area
from bench.metrics.intervals import units
from bench.paths import data_root
from bench.report.verdict import card_of
from bench.runtime.device import choose_device, rounding
from bench.settings import EXTERNAL
from bench.spec import RunSpec
from bench.store.agreement import agreement
from bench.store.result import StoredResult
from bench.store.store import Store
from bench.store.submission import SUBMISSIONS, codes
from bench.verify.board import Board, shipped_hashes

_JUDGED: Final = ("data list changed", "card changed", "plug-in changed", "refinement changed")
"""Differences that are `check`'s to judge: with the layout, hashes of names and rules are others."""


class Recount(NamedTuple):
    """What is asked for: how many images of each dataset, of which data root, on which device."""

    images: int
    data_root: Path | None = None
    device: str | None = None


def recount(
    board: Board, cells: Mapping[str, Sequence[StoredResult]], asked: Recount, chance: random.Random | None = None
) -> tuple[list[str], list[str]]:
    """Count random images of each dataset again; return what is wrong, and what was done and what was not.

    cells: by submission. chance: what chooses the images; nobody can foresee it by default.

    Of every cell the label pixels are held against the labels here. What shipped methods counted is computed again;
    source that was submitted is not run. What differs in another layout than the cell's is said, and not wrong.
    """
    faults, said = list[str](), list[str]()
    chance = chance or random.SystemRandom()
    together: dict[tuple[str, str], dict[str, StoredResult]] = {}
    for name, cell in [(name, cell) for name, of in cells.items() for cell in of]:
        these = together.setdefault((cell.dataset, cell.info.layout or ""), {})
        these[f"{SUBMISSIONS}/{name}: {cell.row} on {cell.dataset}"] = cell
    for (dataset, layout), these in sorted(together.items()):
        card = card_of(dataset, board.cards)
        try:
            if card is None:
                raise BenchError("the board has no such dataset")
            root = demo_data_root([dataset]) if board.demo else data_root(asked.data_root)
            try:
                samples = find_samples(card, root, layout)
            except DatasetMissing:  # another one may hold the same
                samples = find_samples(card, root)
            indices = sorted(chance.sample(range(len(samples)), min(asked.images, len(samples))))
            labels = {samples.ids[index]: samples.read(index).label for index in indices}
        except BenchError as error:
            said.append(f"{dataset}: not counted again: {error}")
            continue
        apart, into = "", faults
        if samples.layout != layout:
            apart, into = f"; it was counted in the layout '{layout}', here is '{samples.layout}'", said
        wrong = {where: _other_labels(cell, labels) for where, cell in these.items()}
        into += [f"{where}: {fault}{apart}" for where, fault in wrong.items() if fault]
        said.append(f"{dataset}: labels of {len(labels)} of {units(len(samples), 'image')} counted again")
        for where, cell, again in _computed(board, these, samples.layout, indices, asked):
            if isinstance(again, str):
                said.append(f"{where}: not computed again: {again}")
                continue
            found = agreement(again, cell)
            found = found._replace(changed=tuple(one for one in found.changed if one not in _JUDGED))
            if found.changed or not found.good:
                into.append(f"{where}: computed again, it is {found.points:.2f} points away: {found.words}{apart}")
            else:
                said.append(f"{where}: {units(found.images, 'image')} computed again: {found.words}")
    return faults, said


def _other_labels(cell: StoredResult, labels: Mapping[str, Uint8s]) -> str | None:
    """Say whether a cell has other label pixels than the labels (id -> map) here."""
    areas, classes = dict(zip(cell.ids, label_area(cell.areas()), strict=True)), len(cell.classes)
    for name, label in labels.items():
        if name not in areas:
            return f"has no image '{name}', which the dataset here has"
        if not np.array_equal(np.bincount(label.ravel(), minlength=256)[:classes], areas[name]):
            return f"its label pixels of '{name}' are not those here"
    return None


def _computed(
    board: Board, cells: Mapping[str, StoredResult], layout: str, indices: Sequence[int], asked: Recount
) -> Iterator[tuple[str, StoredResult, StoredResult | str]]:
    """Compute images of one dataset again: yield where a cell is, itself, and its run here, or why there is none."""
    passes: dict[str, dict[str, StoredResult]] = {}
    device = choose_device(asked.device)
    for where, cell in cells.items():
        dtype, rounded = cell.info.dtype or "fp32", cell.record.inputs.get("dtype", "fp32")
        if cell.settings.method == EXTERNAL:
            yield where, cell, "another program made its label maps"
        elif not all(shipped_hashes(name, board.methods) for name in codes(cell)):
            yield where, cell, "its source was submitted; read it, then run it yourself with --plugin"
        elif rounding(device, dtype) != rounded:
            yield where, cell, f"it was counted in {rounded}, which a {torch.device(device).type} does not do"
        else:
            passes.setdefault(dtype, {})[where] = cell
    for dtype, these in passes.items():
        with tempfile.TemporaryDirectory() as folder:
            options: dict[str, Any] = {"dtype": dtype, "device": device, "data_root": asked.data_root}
            options |= {"layouts": {one.dataset: layout for one in these.values()}, "results": Path(folder)}
            again = _run(board, list(these.values()), indices, options)
            for where, cell in these.items():
                yield where, cell, again[cell.row]


def _run(
    board: Board, cells: Sequence[StoredResult], indices: Sequence[int], options: Mapping[str, Any]
) -> dict[str, StoredResult | str]:
    """Compute images of one dataset with the rows of these cells; return each as it is stored, or why it is not."""
    rows, dataset = sorted({cell.row for cell in cells}), cells[0].dataset
    try:
        spec = RunSpec(
            methods=rows,
            datasets=[dataset],
            demo=board.demo,
            config=board.overlay,
            cards=board.cards,
            workers=0,
            **options,
        )
        with planned(spec, tolerant=True) as run:
            execute(replace(run, datasets=tuple(replace(one, indices=indices) for one in run.datasets)))
    except BenchError as error:
        return dict.fromkeys(rows, str(error))
    store = Store(options["results"], demo=board.demo)
    stored = {cell.row: cell if cell.counted else str(cell.reason) for cell in store.cells()}
    return {row: stored.get(row, "it failed") for row in rows}
