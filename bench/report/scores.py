"""What tables show of a stored cell: its score, how far it can be trusted, and why not further."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path

from bench.config import Config
from bench.data.cards import load_card
from bench.data.inventory import shortfall
from bench.errors import BenchError
from bench.metrics import chance_score, constant_score, label_area, mean_over_classes
from bench.metrics import score as metric_of
from bench.metrics.boundary import boundary_iou
from bench.metrics.intervals import Interval, Scenes, by_scene, interval
from bench.metrics.significance import PERMUTATIONS, tests_of_rows
from bench.settings import Overrides
from bench.store.history import sentence, setting_changes
from bench.store.record import Status
from bench.store.result import StoredResult
from bench.store.store import Store, limits


@dataclass(frozen=True, eq=False)
class Score:
    """One cell; value and interval are fractions.

    value: nan where nothing was counted. constant, chance: what the best constant prediction and a random one
    score on the same labels. scenes, interval: only of complete cells. stale: settings that
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
    scenes: Scenes | None
    interval: Interval | None
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


@dataclass(frozen=True, eq=False)
class Collection:
    """Cells that may stand in one table: all of full runs, of the demo, or of one --limit.

    name: "" for full runs, else what marks every file and title: "demo", "limited-20", "demo-limited-20".
    permutations: of each test.
    """

    name: str
    scores: dict[tuple[str, str], Score]
    permutations: int = PERMUTATIONS
    _tested: dict[tuple[frozenset[str], tuple[str, ...]], float | None] = field(default_factory=dict)

    @property
    def datasets(self) -> list[str]:
        return list(dict.fromkeys(dataset for _, dataset in self.scores))

    @property
    def rows(self) -> list[str]:
        return list(dict.fromkeys(row for row, _ in self.scores))

    def p_values(
        self, rows: Sequence[str], datasets: Sequence[str], best: str | None = None
    ) -> dict[tuple[str, str], float]:
        """p of the mean difference over these datasets, of all pairs of these rows, or of those with `best` alone.

        Rows that are not complete, and pairs that were not counted on the same images, have none. What was computed
        once is remembered, for several tables show it.
        """
        of_rows = {row: [self.scores.get((row, dataset)) for dataset in datasets] for row in rows}
        counts = {
            row: [one.scenes for one in scores if one and one.complete and one.scenes]
            for row, scores in of_rows.items()
        }
        whole = [row for row in rows if len(counts[row]) == len(datasets) > 0]
        keys = {
            pair: (frozenset(pair), tuple(datasets)) for pair in combinations(whole, 2) if best is None or best in pair
        }
        missing = [pair for pair, key in keys.items() if key not in self._tested]
        found = tests_of_rows(counts, missing, self.permutations)
        self._tested.update({keys[pair]: found.get(pair) for pair in missing})
        return {pair: p for pair, key in keys.items() if (p := self._tested[key]) is not None}


def collect(results: Path, config: Config, permutations: int = PERMUTATIONS) -> list[Collection]:
    """Everything below a results folder; if that is nothing, one empty collection."""
    stores = [Store(results, limit=limit) for limit in (None, *limits(results))]
    cells = [cell for store in stores for cell in store.cells()]
    found: dict[str, dict[tuple[str, str], Score]] = {}
    with ThreadPoolExecutor(2) as pool:  # of replace(cell), so that the counts it reads are freed with it
        for score in pool.map(lambda cell: read_score(replace(cell), config), cells):
            parts = ["demo"] if score.demo else []
            name = "-".join([*parts, f"limited-{score.limit}"] if score.limit else parts)
            found.setdefault(name, {})[score.row, score.dataset] = score
    for store in stores:  # a damaged cell stands where the others of its store do
        demo = all(score.demo for scores in found.values() for score in scores.values()) and bool(found)
        name = "-".join([*(["demo"] if demo else []), *([f"limited-{store.limit}"] if store.limit else [])])
        for (row, dataset), reason in store.damaged().items():
            found.setdefault(name, {})[row, dataset] = _damaged(row, dataset, reason, demo, store.limit)
    return [Collection(name, found[name], permutations) for name in sorted(found)] or [Collection("", {})]


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
        scenes=None,
        interval=None,
        constant=nan,
        chance=nan,
        stale=(),
        caveats=(),
        demo=demo,
        limit=limit,
        seconds_per_image=None,
        peak_memory=None,
    )


def read_score(cell: StoredResult, config: Config) -> Score:
    """Computes one cell's score and interval from its counts."""
    info, cost = cell.info, cell.record.cost
    stale, caveats = standing(cell, config)
    status, reason = cell.status, cell.reason
    if status == "ok" and (short := _shortfall(cell)):  # counted before cells knew what the card expects
        status, reason = "incomplete", short
    value, scenes, boundary = float("nan"), None, float("nan")
    constant, chance = float("nan"), float("nan")
    if cell.images.num_rows:
        images = cell.areas()
        value = float(metric_of(images.total, cell.metric))
        labels = label_area(images.total)
        constant, chance = constant_score(labels, cell.metric), chance_score(labels, cell.metric)
        if (of_boundary := cell.boundary()) is not None:
            boundary = float(mean_over_classes(boundary_iou(of_boundary.sum(0))))
        if status in ("ok", "incomplete"):
            scenes = by_scene(images, cell.scenes, cell.metric)
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
        scenes=scenes,
        interval=interval(scenes) if scenes else None,
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
