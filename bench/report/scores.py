"""What tables show of a stored cell: its score, how far it can be trusted, and why not further."""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from bench.config import Config
from bench.data.cards import load_card
from bench.data.inventory import shortfall
from bench.errors import BenchError
from bench.metrics import chance_score, constant_score, label_area, mean_over_classes
from bench.metrics import score as metric_of
from bench.metrics.bootstrap import Draws, Interval, bootstrap, by_scene
from bench.metrics.boundary import boundary_iou
from bench.settings import Overrides
from bench.store.history import sentence, setting_changes
from bench.store.record import Status
from bench.store.result import StoredResult
from bench.store.store import Store, limits

DRAWS = 1000  # of the bootstrap: an end of a 95 % interval then wobbles by some 4 % of its width


@dataclass(frozen=True, eq=False)
class Score:
    """One cell; value, interval and draws are fractions.

    value: nan where nothing was counted. constant, chance: what the best constant prediction and a random one
    score on the same labels. draws: bootstrap, only of complete cells. stale: settings that
    benchmark.yaml and the card now give otherwise, "name old -> new". caveats: why it cannot be held against
    published numbers: another backbone, part of a dataset, or what the run that wrote it said. peak_memory:
    bytes. mixture: how the machines differ that counted its images. footnote: what a reader must know of its data.
    boundary: mean boundary IoU; nan where it was not counted. history: earlier scores and what changed, newest first.
    """

    row: str
    dataset: str
    label: str
    venue: str
    metric: str
    status: Status
    reason: str | None
    counted: int
    total: int
    value: float
    draws: Draws | None
    constant: float
    chance: float
    stale: tuple[str, ...]
    caveats: tuple[str, ...]
    demo: bool
    limit: int | None
    seconds_per_image: float | None
    peak_memory: int | None
    mixture: str | None = None
    footnote: str | None = None
    boundary: float = float("nan")
    history: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether it may be ranked against its column and enter a mean: all images, present settings."""
        return self.status == "ok" and not self.stale

    @property
    def comparable(self) -> bool:
        """Whether it may be held against a published number."""
        return self.complete and not self.demo and self.limit is None and not self.caveats

    @functools.cached_property
    def interval(self) -> Interval | None:
        return self.draws.interval() if self.draws else None


@dataclass(frozen=True, eq=False)
class Collection:
    """Cells that may stand in one table: all of full runs, of the demo, or of one --limit.

    name: "" for full runs, else what marks every file and title: "demo", "limited-20", "demo-limited-20".
    """

    name: str
    scores: dict[tuple[str, str], Score]

    @property
    def datasets(self) -> list[str]:
        return list(dict.fromkeys(dataset for _, dataset in self.scores))

    @property
    def rows(self) -> list[str]:
        return list(dict.fromkeys(row for row, _ in self.scores))


def collect(results: Path, config: Config, draws: int = DRAWS) -> list[Collection]:
    """Everything below a results folder; if that is nothing, one empty collection."""
    stores = [Store(results, limit=limit) for limit in (None, *limits(results))]
    cells = [cell for store in stores for cell in store.cells()]
    found: dict[str, dict[tuple[str, str], Score]] = {}
    with ThreadPoolExecutor(2) as pool:  # of replace(cell), so that the counts it reads are freed with it
        for score in pool.map(lambda cell: read_score(replace(cell), config, draws), cells):
            parts = ["demo"] if score.demo else []
            name = "-".join([*parts, f"limited-{score.limit}"] if score.limit else parts)
            found.setdefault(name, {})[score.row, score.dataset] = score
    for store in stores:  # a damaged cell stands where the others of its store do
        demo = all(score.demo for scores in found.values() for score in scores.values()) and bool(found)
        name = "-".join([*(["demo"] if demo else []), *([f"limited-{store.limit}"] if store.limit else [])])
        for (row, dataset), reason in store.damaged().items():
            found.setdefault(name, {})[row, dataset] = _damaged(row, dataset, reason, demo, store.limit)
    return [Collection(name, found[name]) for name in sorted(found)] or [Collection("", {})]


def _damaged(row: str, dataset: str, reason: str, demo: bool, limit: int | None) -> Score:
    nan = float("nan")
    return Score(
        row=row,
        dataset=dataset,
        label=row,
        venue="",
        metric="miou",
        status="failed",
        reason=reason,
        counted=0,
        total=0,
        value=nan,
        draws=None,
        constant=nan,
        chance=nan,
        stale=(),
        caveats=(),
        demo=demo,
        limit=limit,
        seconds_per_image=None,
        peak_memory=None,
    )


def read_score(cell: StoredResult, config: Config, draws: int = DRAWS) -> Score:
    """Computes one cell's score and bootstrap from its counts."""
    info, cost = cell.info, cell.record.cost
    stale, caveats = standing(cell, config)
    status, reason = cell.status, cell.reason
    if status == "ok" and (short := _shortfall(cell)):  # counted before cells knew what the card expects
        status, reason = "incomplete", short
    value, drawn, boundary = float("nan"), None, float("nan")
    constant, chance = float("nan"), float("nan")
    if cell.images.num_rows:
        images = cell.areas()
        value = float(metric_of(images.total, cell.metric))
        labels = label_area(images.total)
        constant, chance = constant_score(labels, cell.metric), chance_score(labels, cell.metric)
        if (of_boundary := cell.boundary()) is not None:
            boundary = float(mean_over_classes(boundary_iou(of_boundary.sum(0))))
        if status in ("ok", "incomplete"):
            drawn = bootstrap(by_scene(images, cell.scenes), cell.metric, draws)
    return Score(
        row=cell.row,
        dataset=cell.dataset,
        label=info.label or cell.row,
        venue=info.venue,
        metric=cell.metric,
        status=status,
        reason=reason,
        counted=cell.counted,
        total=cell.total,
        value=value,
        draws=drawn,
        constant=constant,
        chance=chance,
        stale=stale,
        caveats=caveats,
        demo=cell.record.demo,
        limit=cell.record.limit,
        mixture=cell.mixture,
        footnote=info.footnote,
        boundary=boundary,
        history=tuple(sentence(previous) for previous in reversed(cell.record.history)),
        seconds_per_image=cost.seconds / cost.images if cost else None,
        peak_memory=cost.peak_memory_bytes if cost else None,
    )


def _shortfall(cell: StoredResult) -> str | None:
    """ "4 of 1,669 images" where the card of the dataset expects more than the cell has."""
    if cell.record.demo or cell.record.limit is not None:
        return None
    try:
        return shortfall(load_card(cell.dataset), cell.total)
    except BenchError:
        return None


def standing(cell: StoredResult, config: Config) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(stale, caveats) of a cell, see `Score`.

    A demo cell has neither, since it is compared with nothing and brings a protocol of its own; nor has a
    cell whose dataset or row is unknown here, beyond the caveat of its run.
    """
    told = [text for text in [cell.info.caveat] if text]
    if cell.record.demo or cell.settings.method == "external":
        return (), tuple(told)
    try:
        card = load_card(cell.dataset)
        now = config.settings_of(cell.row, card, Overrides.model_validate(cell.info.method_defaults))
    except BenchError:
        return (), tuple(told)
    if cell.settings.backbone != now.backbone:
        told.append(f"backbone {Path(cell.settings.backbone).name}, benchmark.yaml has {now.backbone}")
    if cell.counted and cell.record.limit is None and cell.total > (card.expected_count or cell.total):
        told.append(f"{cell.dataset}: {cell.total} images, the card expects {card.expected_count}")
    known = {name: value for name, value in cell.settings.options.items() if name in now.options}
    then = cell.settings.model_copy(update={"options": known})
    return tuple(setting_changes(then, now, without=("backbone",))), tuple(told)
