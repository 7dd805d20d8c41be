"""The verdict on a stored result: what it is, why, and what it may stand beside.

Every table, figure, page, frame and command asks `verdict`; docs/results.md lists what it can say.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from bench.config import Config, spelled, split_name
from bench.data.cards import Card, load_card
from bench.data.prepared import recipe
from bench.data.vocabularies import shared_vocabularies
from bench.errors import BenchError
from bench.metrics import label_area
from bench.settings import EXTERNAL, DatasetFacts, Overrides
from bench.store.history import setting_changes
from bench.store.result import StoredResult

AS_CONFIGURED: Final = "as benchmark.yaml has it"
COMPARED: Final = ("vocabulary", "protocol", "backbone", "upsampler")  # what rows are compared in, not tuned


@dataclass(frozen=True)
class Facts:
    """Values that the results of one dataset must share to be ranked together; None where one is not known.

    labels: hash of the label pixels of all images, where these are as many as expected.
    pixels: how many were counted.
    images: index -> checksum of the file.
    backbone: AS_CONFIGURED, or its name where the row should have another one.
    weights: backbone, and their hash.
    """

    written: str
    metric: str | None = None
    pixels: int | None = None
    labels: str | None = None
    images: Mapping[int, str] = field(default_factory=dict)
    layout: str | None = None
    backbone: str | None = None
    weights: tuple[str, str] | None = None
    dtype: str | None = None


@dataclass(frozen=True)
class Column:
    """Basis on which a result is judged: the configuration, the dataset's card as it is now, what most results have.

    card: None where there is none.
    usual: None for a result that stands alone.
    weights: of each backbone.
    swept: row -> "3 values of scale", where so many of its settings are stored.
    """

    config: Config
    card: Card | None = None
    usual: Facts | None = None
    weights: Mapping[str, str] = field(default_factory=dict)
    swept: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """State of a result, the reasons for it, and what the result may stand beside.

    images: "ok" (all are counted), "incomplete" (all that there are, but the card expects more), "too many" (it expects
        fewer), "partial" (not all are counted yet), or why there is none ("failed", "no data", "no labels", "damaged").
    counted of expected: their number.
    reason: of a gap.
    stale: what changed since, "name old -> new".
    upper_bound: set where the threshold is not the protocol's, or where several values of a setting were tried.
    differs: "metric", "labels", "images", "weights", "backbone" or "dtype" -> how it departs from most results of its
        dataset; "configuration" -> why it cannot be held against benchmark.yaml.
    caveats: why it may not stand beside a published number.
    footnote: what else to know of its data.
    origin: what it was imported from.
    notes: how it was made.
    chosen: what its words were chosen on, if on the images themselves.
    """

    images: str
    counted: int = 0
    expected: int = 0
    reason: str | None = None
    stale: tuple[str, ...] = ()
    upper_bound: str | None = None
    differs: Mapping[str, str] = field(default_factory=dict)
    caveats: tuple[str, ...] = ()
    footnote: str | None = None
    origin: str | None = None
    notes: tuple[str, ...] = ()
    chosen: str | None = None
    external: bool = False
    demo: bool = False
    limit: int | None = None

    @property
    def ranked(self) -> bool:
        """Whether it may be ranked in its column, be bold, enter a mean, and be compared with another row."""
        return self.status == "ok"

    @property
    def comparable(self) -> bool:
        """Whether it may stand beside a published number."""
        return self.ranked and not (self.demo or self.external or self.caveats) and self.limit is None

    @property
    def status(self) -> str:
        """One word for a program: "ok", or the first reason for which it is not ranked."""
        others = [f"other {kind}" for kind in self.differs]
        found = [*(["stale"] if self.stale else []), *(["upper bound"] if self.upper_bound else []), *others]
        return found[0] if self.images == "ok" and found else self.images

    @property
    def text(self) -> str:
        """Short remark that stands beside the number; "" where there is nothing to say."""
        of = f"{self.counted:,} of {self.expected:,} images"
        words = {
            "ok": [],
            "incomplete": [of],
            "partial": [of],
            "too many": [f"{self.counted:,} images, {self.expected:,} expected"],
        }.get(self.images, [self.images, *([of] if self.counted and self.images == "failed" else [])])
        words = words + (["stale"] if self.stale else []) + (["upper bound"] if self.upper_bound else [])
        return ", ".join(
            [*words, *(f"other {kind}" for kind in self.differs), *(["external"] if self.external else [])]
        )

    @property
    def why(self) -> tuple[str, ...]:
        """Reasons why it is not ranked, or in what it differs, a sentence each."""
        stale = f"changed since it was counted: {', '.join(self.stale)}" if self.stale else None
        return tuple(text for text in (self.reason, stale, self.upper_bound, *self.differs.values()) if text)

    @property
    def sentences(self) -> tuple[str, ...]:
        """All that a reader has to know, beginning with what keeps it from being ranked."""
        return (*self.why, *self.caveats, *filter(None, (self.chosen, self.footnote, self.origin)), *self.notes)

    @property
    def words(self) -> str:
        """`text` and `sentences` in one line: "stale: changed since it was counted: scale 40 -> 50"."""
        reasons = "; ".join(self.sentences)
        return reasons if reasons.startswith(f"{self.text}: ") else ": ".join(filter(None, (self.text, reasons)))

    def beside(self, number: str) -> str:
        """Return the number with `text`: "41.8 (10 of 12 images)"; `text` alone where there is no number."""
        return f"{number} ({self.text})" if number and self.text else number or self.text

    def footnotes(self, row: str, dataset: str) -> list[str]:
        """Return `sentences` for below a table: each names its result or dataset, unless it is about many."""
        about_data = [f"{dataset}: {self.footnote}"] if self.footnote else []
        own = [[f"{row} on {dataset}: {text}" for text in these] for these in (self.why, self.notes)]
        return [*own[0], *about_data, *self.caveats, *filter(None, [self.chosen, self.origin]), *own[1]]


def facts(cell: StoredResult, config: Config, card: Card | None) -> Facts:
    """Return what of a result is held against the others of its dataset; reads its counts."""
    labels = label_area(cell.areas()) if cell.images.num_rows else None  # (images, classes)
    whole = cell.counted == cell.total == _expected(cell, card)
    own = cell.settings.method != EXTERNAL
    as_named = True
    if own and not cell.record.demo:
        with contextlib.suppress(BenchError):  # of a name that benchmark.yaml does not know, as the verdict says
            expected = settings_now(cell, config, card)
            as_named = expected is None or expected.backbone == cell.settings.backbone
    weights = cell.record.inputs.get("weights")
    return Facts(
        written="" if cell.imported else cell.record.written,  # which may be any date
        metric=cell.metric,
        pixels=None if labels is None else int(labels.sum()),
        labels=hashlib.sha256(labels.tobytes()).hexdigest() if whole and labels is not None and labels.any() else None,
        images={index: content.partition(" ")[0] for index, content in cell.contents.items()},
        layout=cell.info.layout,
        backbone=(AS_CONFIGURED if as_named else cell.settings.backbone) if own else None,
        weights=(cell.settings.backbone, weights) if own and weights else None,
        dtype=cell.record.inputs.get("dtype") if own else None,
    )


def columns(
    found: Sequence[tuple[StoredResult, Facts]], config: Config, cards: Mapping[str, Card | None]
) -> dict[tuple[str, bool], Column]:
    """Return what results are judged by: (dataset, whether of the demo) -> column. cards: those of now, by dataset.

    What most have is decided by those that could stand beside a published number, else by those that could be ranked.
    """
    together: dict[tuple[str, bool], list[tuple[StoredResult, Facts]]] = {}
    for cell, of_cell in found:
        together.setdefault((cell.dataset, cell.record.demo), []).append((cell, of_cell))
    judged = {}
    for key, these in together.items():
        alone = Column(config, cards.get(key[0]), swept=_swept([cell.row for cell, _ in these], config))
        known = [(verdict(cell, alone, of_cell), of_cell) for cell, of_cell in these]
        comparable = [of_cell for one, of_cell in known if one.comparable]
        sound = comparable or [of_cell for one, of_cell in known if one.ranked] or [of_cell for _, of_cell in known]
        judged[key] = replace(alone, usual=_usual(sound), weights=_usual_weights(sound))
    return judged


def card_of(dataset: str, cards: Sequence[Path] = ()) -> Card | None:
    """Return the dataset's card as it is now, shipped or in one of the folders; None where there is none."""
    try:
        return load_card(dataset, cards)
    except BenchError as error:
        if str(error).startswith("unknown dataset"):
            return None
        raise


def verdict(cell: StoredResult, column: Column, of_cell: Facts) -> Verdict:
    """Judge a result by what is stored in it, the card and configuration of now, and its column."""
    record, info = cell.record, cell.info
    caveat = info.caveat or (column.card and column.card.caveat(info.layout))
    found = Verdict(
        images=cell.status,
        counted=cell.counted,
        expected=cell.total,
        reason=None if cell.status == "incomplete" else cell.reason,
        differs=_differs(of_cell, column.usual, column.weights) if column.usual else {},
        caveats=(caveat,) if caveat else (),
        footnote=info.footnote,
        origin=f"imported from {cell.imported}" if cell.imported else None,
        notes=(*(f"also run by {run}" for run in cell.runs), *filter(None, [cell.mixture])),
        chosen=next((one.chosen for one in shared_vocabularies() if one.name == cell.settings.vocabulary), None),
        external=cell.settings.method == EXTERNAL,
        demo=record.demo,
        limit=record.limit,
    )
    if of_cell.pixels == 0:
        found = replace(found, images="no labels", reason="nothing was counted: its labels ignore every pixel")
    expected = _expected(cell, column.card)
    if cell.total and cell.total != expected and cell.status in ("ok", "incomplete", "partial"):
        whole = "incomplete" if cell.total < expected else "too many"
        found = replace(found, images="partial" if cell.status == "partial" else whole, expected=expected)
    if not cell.counted:
        return found
    try:
        found = replace(found, upper_bound=_upper_bound(cell, column))
        if record.demo:  # its data and protocol are its own
            return found
        stale, caveats = _against_now(cell, column)
        return replace(found, stale=tuple(stale), caveats=(*found.caveats, *caveats))
    except BenchError as error:
        if record.demo:
            return found
        apart = {"configuration": f"cannot be held against benchmark.yaml: {error}"}
        return replace(found, differs={**found.differs, **apart})


def damaged(reason: str, demo: bool = False, limit: int | None = None) -> Verdict:
    """Return the verdict on a result that cannot be read."""
    return Verdict("damaged", reason=reason, demo=demo, limit=limit)


def differences(verdicts: Mapping[tuple[str, str], Verdict]) -> str | None:
    """Say in one line on which datasets rows differ in what: "Rows differ: vdd in dtype, images.", or None."""
    kinds: dict[str, dict[str, None]] = {}
    for (_, dataset), one in verdicts.items():
        for kind in one.differs:
            kinds.setdefault(dataset, {})[kind] = None
    parts = [f"{name} in {', '.join(of)}" for name, of in kinds.items()]
    return f"Rows differ: {'; '.join(parts)}." if parts else None


def _expected(cell: StoredResult, card: Card | None) -> int:
    """Return how many images the dataset should have; as many as it has where nothing says otherwise."""
    kept = card or cell.record.card
    expected = kept.expected_count if kept else cell.record.images.expected
    return cell.total if cell.record.demo or cell.record.limit is not None else expected or cell.total


def settings_now(cell: StoredResult, config: Config, card: Card | None, row: str | None = None) -> Any:
    """Return the settings that the row would have now; None without a card and without what a result keeps of it."""
    kept: Card | DatasetFacts | None = card or cell.record.card
    if kept is None:
        return None
    return config.settings_of(row or cell.row, kept, Overrides.model_validate(cell.info.method_defaults))


def _against_now(cell: StoredResult, column: Column) -> tuple[list[str], list[str]]:
    """List where benchmark.yaml and the card differ from what it was counted with: what makes it stale, and caveats."""
    record, card = cell.record, column.card
    layout, changed = cell.info.layout, []
    if card is not None and layout in card.layouts and record.inputs.get("card", "") != recipe(card, layout):
        changed.append("dataset card changed")
    if cell.settings.method == EXTERNAL:
        return changed, []
    now = settings_now(cell, column.config, card)
    if now is None:
        no_card = f"no card of {cell.dataset} was kept with it; give --cards"
        return changed, [f"cannot be held against benchmark.yaml: {no_card}"]
    changed = setting_changes(cell.settings, now, without=("backbone",)) + changed
    if card is not None and record.card is not None and record.card.words:
        words = tuple(tuple(of_class) for of_class in column.config.words(card, now.vocabulary))
        if now.vocabulary == cell.settings.vocabulary and words != record.card.words:
            changed.append("words changed")
    if now.backbone == cell.settings.backbone:
        return changed, []
    return changed, [f"backbone {Path(cell.settings.backbone).name}, benchmark.yaml has {now.backbone}"]


def _upper_bound(cell: StoredResult, column: Column) -> str | None:
    """Say why the score is an upper bound: what its row's name sets may have been chosen by the score itself."""
    if cell.settings.method == EXTERNAL:
        return None
    base, fixed, _ = _tuned(cell.row, column.config)
    protocol, now = (settings_now(cell, column.config, column.card, row) for row in (spelled(base, fixed), cell.row))
    if protocol is None or protocol == now.model_copy(update={"row": protocol.row}):
        return None
    if protocol.threshold != now.threshold:
        apart = f"threshold {now.threshold:g}, the protocol has {protocol.threshold:g}"
        return f"upper bound: {apart}; one that was chosen on these labels is no result"
    if several := column.swept.get(cell.row):
        return f"upper bound: one of {several}; the best of them was chosen on these labels and is no result"
    return None


def _swept(rows: Sequence[str], config: Config) -> dict[str, str]:
    """Name the rows that differ from others in nothing but the values of the same settings, with these settings."""
    families: dict[Any, dict[str, tuple[str, ...]]] = {}
    for row in rows:
        base, fixed, tuned = _tuned(row, config)
        values = {key: text for key, text in sorted(tuned) if key != "threshold"}
        families.setdefault((base, tuple(fixed), tuple(values)), {})[row] = tuple(values.values())
    return {
        row: f"{len(set(family.values()))} values of {', '.join(keys)}"
        for (*_, keys), family in families.items()
        for row in family
        if len(set(family.values())) > 1
    }


def _tuned(row: str, config: Config) -> tuple[str, list[tuple[str, str]], list[tuple[str, str]]]:
    """Split a name that benchmark.yaml does not list: the row that it starts with, what is compared, what is tuned."""
    base, pairs = (row, []) if row in config.rows else split_name(row)
    fixed = [pair for pair in pairs if pair[0] in COMPARED or pair[0].startswith("models.")]
    return base, fixed, [pair for pair in pairs if pair not in fixed]


def _usual(results: Sequence[Facts]) -> Facts:
    """Return the facts that most results share."""
    layout = _most(results, lambda one: one.layout)
    images = _most(results, lambda one: tuple(sorted(one.images.items())) if one.layout == layout else None)
    return Facts(
        written="",
        metric=_most(results, lambda one: one.metric),
        labels=_most(results, lambda one: one.labels),
        images=dict(images or ()),
        layout=layout,
        backbone=_most(results, lambda one: one.backbone),
        dtype=_most(results, lambda one: one.dtype),
    )


def _usual_weights(results: Sequence[Facts]) -> dict[str, str]:
    """Return the weights that most results on each backbone have."""
    by_backbone: dict[str, list[Facts]] = {}
    for one in results:
        if one.weights:
            by_backbone.setdefault(one.weights[0], []).append(one)
    return {name: _most(these, lambda one: one.weights)[1] for name, these in by_backbone.items()}


def _most(results: Sequence[Facts], value: Callable[[Facts], Any]) -> Any:
    """Return the value that most results have; of as many the configured one, then that of the newest run here."""
    votes: dict[Any, tuple[int, bool, str]] = {}
    for one in results:
        if own := value(one):
            count, _, newest = votes.get(own, (0, False, ""))
            votes[own] = (count + 1, own == AS_CONFIGURED, max(newest, one.written))
    return max(votes, key=votes.__getitem__, default=None)


def _differs(one: Facts, usual: Facts, weights: Mapping[str, str]) -> dict[str, str]:
    """Say how a result departs from most results of its dataset."""
    found = {}
    if one.metric and usual.metric and one.metric != usual.metric:
        found["metric"] = f"it is scored by {one.metric}, most rows by {usual.metric}"
    if one.labels and usual.labels and one.labels != usual.labels:
        found["labels"] = "its labels are not those of most rows"
    shared = one.images.keys() & usual.images.keys() if one.layout == usual.layout else ()
    if changed := sum(one.images[index] != usual.images[index] for index in shared):
        found["images"] = f"{changed:,} of {len(one.images):,} image files are not those of most rows"
    if one.backbone and usual.backbone and one.backbone != usual.backbone:
        found["backbone"] = f"its backbone is {Path(one.backbone).name}, that of most rows {Path(usual.backbone).name}"
    elif one.weights and (most := weights.get(one.weights[0], one.weights[1])) != one.weights[1]:
        found["weights"] = f"its weights are {one.weights[1][:8]}, those of most rows {most[:8]}"
    if one.dtype and usual.dtype and one.dtype != usual.dtype:
        found["dtype"] = f"its dtype is {one.dtype}, that of most rows {usual.dtype}"
    return found
