"""Figures of label maps and of the paper: the data come from runs and stored results, `bench.report` draws them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Unpack

from bench.config import load_config
from bench.errors import BenchError, check_known, listed
from bench.evaluation.dataset_run import Run
from bench.evaluation.pictures import bias_of, label_maps
from bench.evaluation.plan import DatasetPlan
from bench.evaluation.run import planned
from bench.notebook import RunOptions, spelled_out
from bench.report.breakdown import breakdown
from bench.report.comparison import compare
from bench.report.figure import Example, FigureBlock, draw_bias, draw_blocks, draw_gains, draw_radar
from bench.report.scores import Collection, collect, scores_of, stored_score
from bench.settings import EXTERNAL
from bench.spec import RunSpec
from bench.store.maps import LabelMaps
from bench.store.result import StoredResult
from bench.store.store import Store

Stored: TypeAlias = Mapping[tuple[str, str], StoredResult]  # by row and dataset: rows that cannot be run here


@spelled_out(RunOptions, RunSpec)
def figure(
    dataset: str,
    methods: str | Sequence[str] | None,
    out: str | Path,
    samples: Sequence[str | int] | None = None,
    gains: tuple[str, str] | None = None,
    count: int = 1,
    **options: Unpack[RunOptions],
) -> Path:
    """Draw image | ground truth | methods for some samples of a dataset, as .png or .pdf; return the file.

    methods: rows, also stored ones that cannot be run here, such as those of `score` (None: those of `gains`).
    samples: names or numbers (default: the first `count`). gains: (A, B), two stored rows: the `count` samples on which
    A beats B most, and where they differ. Label maps that a run kept are shown as they are, others are computed now;
    nothing is stored.

    >>> bench.figure("wbs_si", "clip,sclip", "figure.png", demo=True, device="cpu")
    PosixPath('figure.png')
    """
    names = listed(methods, "--methods") or list(gains or ())
    counted: list[str] = []
    if gains is not None:
        samples, counted = _largest_gains(RunSpec(datasets=[dataset], methods=[], **options), gains, count)
    spec, stored = _drawn(names, [dataset], options, counted)
    with planned(spec, writes=False) as run:
        (chosen,) = run.datasets
        block = _block(run, chosen, samples, count, stored, names)
    if gains is not None and set(gains) <= block.labels.keys():
        block = replace(block, differing=gains)
    draw_blocks([block], Path(out), DEMO_NOTE if spec.demo else "")
    return Path(out)


@spelled_out(RunOptions, RunSpec)
def gains_figure(first: str, second: str, out: str | Path, **options: Unpack[RunOptions]) -> Path:
    """Draw by how much one stored row beats another on each dataset, with 95 % intervals; return the file."""
    spec = RunSpec(methods=[], **options)
    scores = scores_of(Store(spec.folder, limit=spec.limit), spec.configuration, spec.cards)
    found = compare(Store(spec.folder, limit=spec.limit), first, second, scores=scores)
    labels, known = {row: score.label for (row, _), score in scores.items()}, Collection("", scores, cards=spec.cards)
    draw_gains(found, labels, known.head, Path(out))
    return Path(out)


PAPER_FIGURES: Final = {
    1: (),  # a radar of stored results: rows of Table 1 that are there
    4: ("msa+nearest", "msa+jbu-one", "msa+rec-image"),
    5: ("segearth-ov",),
    6: ("maskclip", "sclip", "gem", "clearclip", "segearth-ov"),
}


@spelled_out(RunOptions, RunSpec)
def paper_figure(
    number: int,
    out: str | Path,
    methods: str | Sequence[str] | None = None,
    samples: Sequence[str | int] | None = None,
    **options: Unpack[RunOptions],
) -> Path:
    """Draw Figure 1, 4, 5 or 6 of the SegEarth-OV paper; return the file.

    1: a radar over all datasets, from stored results. 4: with and without the image reconstruction loss, 5: before and
    after the global bias is alleviated, both on OpenEarthMap; 6: methods on OpenEarthMap, UDD5 and WHU Aerial, one
    sample each. methods: other rows. samples: of OpenEarthMap. Raises BenchError for another number and for what is
    not there.
    """
    if number not in PAPER_FIGURES:
        raise BenchError(f"paper-{number}: figures 1, 4, 5 and 6 of the paper can be drawn")
    if number == 1:
        return _radar(Path(out), listed(methods, "--methods"), RunSpec(methods=[], **options))
    datasets = ["openearthmap", *(["udd5", "whu_aerial"] if number == 6 else [])]
    names = listed(methods, "--methods") or PAPER_FIGURES[number]
    spec, stored = _drawn(names, datasets, options)
    with planned(spec, writes=False) as run:
        first = run.datasets[0]
        if number == 5:
            biases = [bias_of(run, first, one) for one in _numbers(first, samples, 2)]
        else:
            blocks = [_block(run, one, samples if one is first else None, 1, stored, names) for one in run.datasets]
    note = DEMO_NOTE if spec.demo else ""
    draw_bias(biases, Path(out), note) if number == 5 else draw_blocks(blocks, Path(out), note)
    return Path(out)


def _radar(out: Path, rows: Sequence[str] | None, spec: RunSpec) -> Path:
    config = load_config(spec.config)
    found = collect(spec.folder, config, 1, spec.cards)
    collection = next((one for one in found if one.scores and spec.limit in (None, one.limit)), None)
    if collection is None:
        raise BenchError(f"{spec.folder}: holds no results; give another with --results, or run first")
    wanted = rows or [row for row in config.tables["1"].rows if row in collection.rows]
    for row in wanted:
        check_known(row, collection.rows, f"--methods: nothing is stored of row '{row}' in {spec.folder}")
    ranked = {key for key, score in collection.scores.items() if score.complete}
    shared = [name for name in config.default_datasets if all((row, name) in ranked for row in wanted)]
    scores = [
        (
            collection.scores[row, shared[0]].label,
            {collection.head(name): collection.scores[row, name].value for name in shared},
        )
        for row in wanted
        if shared
    ]
    limited = f"the first {collection.limit} images only" if collection.limit else ""
    draw_radar(scores, out, "; ".join(filter(None, (DEMO_NOTE if "demo" in collection.name else "", limited))))
    return out


DEMO_NOTE: Final = "demo: rendered scenes and a tiny CLIP; says nothing about the methods"


def _drawn(
    names: Sequence[str], datasets: Sequence[str], options: Mapping[str, Any], counted: Sequence[str] = ()
) -> tuple[RunSpec, Stored]:
    """Part the rows that a run computes, of which the spec is, from stored ones that cannot be run here.

    counted: rows whose stored label maps are to be shown in any case.
    """
    spec = RunSpec(datasets=datasets, methods=[], **options)
    store, cards = Store(spec.folder, limit=spec.limit), spec.dataset_cards
    found = {(name, card.name): store.cell(name, card.name) for name in names for card in cards}
    stored = {key: cell for key, cell in found.items() if cell and (cell.row in counted or not _can_run(cell, spec))}
    rows = [name for name in names if not any((name, card.name) in stored for card in cards)]
    return RunSpec(datasets=datasets, methods=rows, **options), stored


def _can_run(cell: StoredResult, spec: RunSpec) -> bool:
    try:
        return cell.settings.method != EXTERNAL and bool(spec.row(cell.row))
    except BenchError:
        return False


def _block(
    run: Run,
    dataset: DatasetPlan,
    samples: Sequence[str | int] | None,
    count: int,
    stored: Stored,
    names: Sequence[str],
) -> FigureBlock:
    """Collect samples of a dataset with the label maps of its rows, in the order of `names`."""
    card, examples = dataset.card, []
    others = {row: stored[row, card.name] for row in names if (row, card.name) in stored}
    labels = {cell.row: cell.label for cell in dataset.cells}
    labels |= {row: cell.info.label or row for row, cell in others.items()}
    order = sorted(labels, key=lambda row: names.index(row) if row in names else -1)
    for number in _numbers(dataset, samples, count):
        assert dataset.samples is not None
        sample = dataset.samples.read(number)
        maps = label_maps(run, dataset, number) if dataset.cells else {}
        maps |= {row: _kept(cell, sample.id) for row, cell in others.items()}
        examples.append(Example(sample.id, sample.image, sample.label, {row: maps[row] for row in order}))
    return FigureBlock(examples, card, labels)


def _kept(cell: StoredResult, sample: str) -> NDArray[np.uint8]:
    labels = LabelMaps.of(cell).labels(sample)
    if labels is None:
        where = f"{cell.row} on {cell.dataset}: the label map of {sample}"
        raise BenchError(f"{where} was not kept; `bench run --save-predictions` and `bench score` keep them")
    return labels


def _numbers(dataset: DatasetPlan, samples: Sequence[str | int] | None, count: int) -> list[int]:
    """Numbers of the samples that are drawn. BenchError where the data or a row's models are not there."""
    if dataset.samples is None:
        raise BenchError(dataset.missing or dataset.refused or f"{dataset.card.name}: no samples")
    if failed := [f"{cell.row}: {cell.error}" for cell in dataset.cells if cell.error]:
        raise BenchError("; ".join(failed))
    ids = list(dataset.samples.ids)
    return [_sample_number(sample, ids, dataset.card.name) for sample in (samples or range(min(count, len(ids))))]


def _largest_gains(spec: RunSpec, rows: tuple[str, str], count: int) -> tuple[list[str], list[str]]:
    """Names of the samples on which the first row beats the second most, and the rows that have kept their label maps.

    By stored scores that may be compared.
    """
    store, cells, (card,) = Store(spec.folder, limit=spec.limit), [], spec.dataset_cards
    dataset = card.name
    for row in rows:
        cell, score = stored_score(store, row, dataset, load_config(spec.config), spec.cards)
        if score.verdict.status != "ok":
            words = score.verdict.words
            raise BenchError(f"--gains: {row} on {dataset} may not be compared: {words}; run it again")
        cells.append(cell)
    images = breakdown(*cells).images
    samples = list(images["id"][images["difference"].notna()][:count])
    return samples, [cell.row for cell in cells if all(LabelMaps.of(cell).find(name) for name in samples)]


def _sample_number(sample: str | int, ids: Sequence[str], dataset: str) -> int:
    if isinstance(sample, int) or (sample.isdigit() and sample not in ids):
        if int(sample) >= len(ids):
            raise BenchError(f"--samples {sample}: {dataset} has {len(ids)} samples, numbered from 0")
        return int(sample)
    check_known(sample, ids, f"--samples {sample}: {dataset} has no such sample")
    return ids.index(sample)
