"""A run's cells, each complete when it is made: settings, models, what is stored of it, and what there is to do."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from bench.config import FIRST, NoWords
from bench.data.cards import Card
from bench.data.contents import ContentCache
from bench.data.label_faults import suspicious
from bench.data.layouts import DatasetMissing
from bench.data.prepared import find_samples, recipe
from bench.data.samples import SampleSet
from bench.data.vocabularies import shared_vocabularies
from bench.demo.datasets import demo_data_root
from bench.errors import BenchError, SharedStateLost
from bench.evaluation.models import ModelCache, build_row, check_tower
from bench.inference.row import Row
from bench.models.upsamplers import kind_file
from bench.models.weights import look_for_weights
from bench.paths import data_root
from bench.registry import Method, earlier_hashes, find_method, find_refinement
from bench.runtime.device import rounding
from bench.runtime.distributed import Distributed
from bench.settings import Settings, miscount
from bench.spec import RunSpec
from bench.store.history import changes_for_recount, setting_changes
from bench.store.maps import LabelMaps
from bench.store.record import DONE, SCORING, identity
from bench.store.result import StoredResult
from bench.store.store import Store

COUNTS_VERSION: Final = "2"
"""Of the code that turns images into counts; raised when a change moves numbers, so that old results are stale."""

State: TypeAlias = Literal["missing", "partial", "failed", "damaged", "stale", "rescore", "no maps", "cached"]


@dataclass(frozen=True)
class Cell:
    """One row on one dataset."""

    settings: Settings
    label: str
    """Title of the row in tables."""
    method: Method
    ready: Row | None = None
    """The row ready to be asked about images; None where its models cannot be had."""
    error: str | None = None
    """Why they cannot be had."""
    wordless: bool = False
    """Whether its vocabulary has no words for the dataset."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Hashes of all that decides the counts besides the settings."""
    state: State = "missing"
    changes: tuple[str, ...] = ()
    """What changed since the cell was stored, in plain words."""

    @property
    def row(self) -> str:
        """Name of the row."""
        return self.settings.row

    @property
    def identity(self) -> str:
        """See `bench.store.record.identity`."""
        return identity(self.settings, self.inputs)

    def label_maps(self, store: Store) -> LabelMaps:
        """Where label maps of the cell are kept."""
        return LabelMaps(store.place(self.row, self.settings.dataset), self.identity, self.settings)


@dataclass(frozen=True)
class DatasetPlan:
    """One dataset of a run: its samples, as far as they fall to this run, and its cells."""

    card: Card
    samples: SampleSet | None = None
    """None where there is nothing to evaluate on."""
    missing: str | None = None
    """Why there are no samples."""
    refused: str | None = None
    """Why the samples cannot be used: their labels are known to be broken."""
    total: int = 0
    """Images that a complete result of this run holds."""
    indices: Sequence[int] = range(0)
    """Images that fall to this run: all, or the consecutive share of its shard, or whatever a caller chose."""
    kept: tuple[tuple[int, str], ...] = ()
    """Images (number, id) of this run whose label maps are kept."""
    expected: int | None = None
    """Images that the card expects; None where it does not say, for the demo, and with a limit."""
    incomplete: str | None = None
    """ "4 of 1,669 images" where there are fewer or more than the card expects."""
    contents: Sequence[str | None] | None = None
    """Checksums of the samples' files, where results hold some; on the main process."""
    cells: tuple[Cell, ...] = ()

    @property
    def due(self) -> tuple[Cell, ...]:
        """Cells that need images evaluated or scores renewed."""
        return tuple(cell for cell in self.cells if cell.state != "cached")

    def only(self, states: Sequence[str]) -> DatasetPlan:
        """Keep the cells in one of the states alone (missing takes partial and damaged along)."""
        wanted = {*states, *(["partial", "damaged"] if "missing" in states else [])}
        return replace(self, cells=tuple(cell for cell in self.cells if cell.state in wanted))


def plan(
    spec: RunSpec,
    models: ModelCache,
    store: Store,
    processes: Distributed,
    report_word: Callable[[str], None],
    tolerant: bool = False,
) -> tuple[DatasetPlan, ...]:
    """Every dataset of a run with its cells.

    All models are loaded, so that a run does not stop at the tenth dataset for a file that was never there.
    report_word: called with each word whose text has to be encoded
    tolerant: a plan is wanted even where no cell can be run

    Raises BenchError where settings do not fit, where a dataset that was named is not there, and where no cell at all
    can be run.
    """
    cards, root = spec.dataset_cards, _data_root(spec, processes)
    settings = [_settings_on(spec, card, models.methods) for card in cards]
    found = [_find(spec, card, root) for card in cards]
    absent = [dataset for dataset in found if dataset.missing]
    if absent and spec.named and not spec.demo:
        raise DatasetMissing(
            _no_data(absent, root, absent_weights((cell.settings for row in settings for cell in row), models))
        )
    datasets = []
    for dataset, of_rows in zip(found, settings, strict=True):
        cells = [_with_models(cell, dataset, models, report_word) for cell in of_rows]
        states: list[dict[str, Any]] = []
        if processes.is_main:
            stored = [store.cell(cell.row, dataset.card.name) for cell in cells]
            if dataset.samples is not None and any(old and old.contents for old in stored):
                dataset = replace(dataset, contents=ContentCache(dataset.samples).all())
            states = [_state(cell, old, dataset, store, spec) for cell, old in zip(cells, stored, strict=True)]
        pairs = zip(cells, processes.shared(states), strict=True)
        datasets.append(replace(dataset, cells=tuple(replace(cell, **state) for cell, state in pairs)))
    errors = [cell.error for dataset in datasets for cell in dataset.cells if dataset.samples is not None]
    if errors and all(errors) and not tolerant:
        raise BenchError(f"{errors[0]}{_further(absent, len(found))}")
    return tuple(dataset.only(spec.only) if spec.only else dataset for dataset in datasets)


def absent_weights(settings: Iterable[Settings], models: ModelCache) -> list[str]:
    """Names of the weights that rows need and that are neither there nor given."""
    needed = {name for one in settings for name in (one.backbone, one.upsampler, *one.models.values())}
    given = {*models.upsampler_files, *([models.config.protocol.backbone] if models.checkpoint else [])}
    return [one.name for one in look_for_weights(models.config) if one.name in needed - given and not one.there]


def _no_data(absent: Sequence[DatasetPlan], root: Path, weights: Sequence[str]) -> str:
    """Say which datasets are not there, and which weights are not there either."""
    names = ", ".join(dataset.card.name for dataset in absent)
    said = str(absent[0].missing) if len(absent) == 1 else f"{names}: no data in {root}"
    more = f"weights {', '.join(weights)} are not there either; " if weights else ""
    return f"{said.rstrip('.')}; {more}`python -m bench doctor` says how to get what is missing"


def _further(absent: Sequence[DatasetPlan], count: int) -> str:
    """Say which datasets are not there, behind an error that says which weights are not."""
    return f"; {len(absent)} of {count} datasets have no data either, see `python -m bench doctor`" if absent else ""


def share(total: int, part: int, parts: int) -> range:
    """Return the `part`-th of `parts` consecutive shares of `total` numbers, nearly equally long."""
    return range(total * part // parts, total * (part + 1) // parts)


def _settings_on(spec: RunSpec, card: Card, methods: Mapping[str, Method]) -> list[Cell]:
    """Return the rows on one dataset, of which the settings alone are known. BenchError where these do not fit.

    A vocabulary or protocol that has no words for this dataset costs the cell alone.
    """
    known = {*spec.configuration.vocabularies, *(vocabulary.name for vocabulary in shared_vocabularies())}
    cells = []
    for name, row in spec.rows.items():
        method = find_method(row.method, methods)
        settings = spec.configuration.settings_of(name, card, method.defaults, row)
        check_tower(settings, method, spec.configuration)
        cell = Cell(settings, row.title(method.label), method)
        try:
            spec.configuration.words(card, settings.vocabulary)
        except NoWords as error:
            if settings.vocabulary.removesuffix(FIRST) not in known:
                raise BenchError(f"row '{name}': {error}") from None
            cell = replace(cell, wordless=True, error=str(error))
        cells.append(cell)
    return cells


def _data_root(spec: RunSpec, processes: Distributed) -> Path:
    """Return the folder of all datasets; the demo's are written first where they are not there yet."""
    if not spec.demo:
        return data_root(spec.data_root)
    names = [card.name for card in spec.dataset_cards]
    if processes.is_main:
        demo_data_root(names)
    processes.wait()
    return demo_data_root(names)


def _find(spec: RunSpec, card: Card, root: Path) -> DatasetPlan:
    """Find the dataset on the disk."""
    expected = None if spec.demo or spec.limit else card.expected_count
    try:
        samples = find_samples(card, root, spec.layouts.get(card.name))
    except DatasetMissing as error:
        return DatasetPlan(card, missing=str(error), expected=expected)
    except BenchError as error:
        return DatasetPlan(card, refused=str(error), expected=expected)
    total = min(len(samples), spec.limit or sys.maxsize)
    indices = share(total, *(spec.shard or (0, 1)))
    count = min(spec.save_predictions, total)
    spread = [number * total // count for number in range(count)]
    return DatasetPlan(
        card,
        samples,
        refused="; ".join(suspicious(samples)) or None,
        total=total,
        indices=indices,
        kept=tuple((index, samples.ids[index]) for index in spread if index in indices),
        expected=expected,
        incomplete=None if spec.demo else miscount(len(samples), card.expected_count),
    )


def _with_models(cell: Cell, dataset: DatasetPlan, models: ModelCache, report_word: Callable[[str], None]) -> Cell:
    """Return the cell with its models and the hashes of its inputs, or with the reason why it cannot have them."""
    samples = dataset.samples
    if samples is None or cell.wordless:
        return cell
    try:
        words = models.config.words(dataset.card, cell.settings.vocabulary)
        ready = build_row(cell.settings, words, models, report_word)
    except SharedStateLost:
        raise
    except BenchError as error:
        return replace(cell, error=str(error))
    data = {"data list": samples.names_fingerprint(), "card": recipe(dataset.card, samples.layout)}
    inputs = {**ready.inputs, **data, "dtype": rounding(models.device, models.dtype), "harness": COUNTS_VERSION}
    return replace(cell, ready=ready, inputs=inputs)


def _state(cell: Cell, old: StoredResult | None, dataset: DatasetPlan, store: Store, spec: RunSpec) -> dict[str, Any]:
    """Return the state of a cell, of which `old` is stored, with what changed and its inputs as stored."""
    samples = dataset.samples
    if cell.ready and old and samples and not spec.fresh:
        cell = replace(cell, inputs={**cell.inputs, **_names_in(old.record.inputs, cell, samples)})
    state, changes = _compared(cell, old, dataset, store, spec.boundary)
    if state == "cached" and cell.ready and cell.label_maps(store).missing(dataset.kept):
        state = "no maps"
    if spec.fresh and cell.ready:
        state = "missing"
    return {"state": state, "changes": changes, "inputs": cell.inputs}


def _names_in(stored: Mapping[str, str], cell: Cell, samples: SampleSet) -> dict[str, str]:
    """Return the stored hashes of inputs that are what they were, but that earlier versions hashed in another way."""
    earlier = {"data list": lambda: {samples.fingerprint()}, "plug-in": lambda: earlier_hashes(cell.method.file)}
    if cell.settings.refine != "none":
        earlier["refinement"] = lambda: earlier_hashes(find_refinement(cell.settings.refine).file)
    if cell.ready and (upsampler := cell.ready.upsampler) is not None:
        weights = cell.inputs["upsampler"].rpartition(", ")[0]
        earlier["upsampler"] = lambda: {f"{weights}, {code}" for code in earlier_hashes(kind_file(type(upsampler)))}
    differing = [name for name in earlier if name in stored and stored[name] != cell.inputs.get(name)]
    return {name: stored[name] for name in differing if stored[name] in earlier[name]()}


def _compared(
    cell: Cell, old: StoredResult | None, dataset: DatasetPlan, store: Store, boundary: bool
) -> tuple[State, tuple[str, ...]]:
    """Compare a cell with what is stored: its state, and what changed.

    boundary: cells without boundary counts are partial
    """
    if damage := store.damage(cell.row, cell.settings.dataset):
        return "damaged", (damage,)
    if old is None or old.status == "no data":
        if cell.ready and store.twin(cell.settings, cell.identity):
            return "rescore", ("its counts are shared with another row",)
        return "missing", ()
    recount = changes_for_recount(old, cell.settings, cell.inputs) if cell.ready else []
    if recount and old.counted:
        return "stale", tuple(recount)
    if changed := old.changed_images(dataset.contents):
        return "partial", (f"the files of {changed:,} images changed",)
    if boundary and old.status in DONE and old.boundary() is None:
        return "partial", ()
    rescore = setting_changes(old.settings, cell.settings, only=SCORING) if cell.ready else []
    if old.status in DONE and rescore:
        return "rescore", tuple(rescore)
    if old.status in DONE and any(piece.record.status not in DONE for piece in old.pieces):
        return "partial", ()  # all is counted, and the run was killed before it put that together
    return (old.status if old.status in ("partial", "failed") else "cached"), ()
