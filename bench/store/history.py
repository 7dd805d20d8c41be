"""Earlier scores of a cell: what it showed before it was counted or scored again, and what changed in between."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from bench.metrics import score
from bench.runtime.provenance import utc_now
from bench.settings import Settings
from bench.store.record import DONE, NAMING, SCORING, Previous, Record
from bench.store.result import StoredResult

KEPT = 20  # previous scores in a cell.json, the oldest are dropped
AGAIN = "counted again from the start (--fresh)"
PLAIN = {
    "vocabulary": "words changed",
    "data list": "list of images changed",
    "card": "dataset card changed",
    "plug-in": "code of the method changed",
    "harness": "code that counts changed",
    "upsampler": "weights of the upsampler changed",
}
"""Inputs of a cell -> what to say of a change, where "<name> changed" would not do."""


def history_of(
    old: StoredResult | None, new: Record, contents: Sequence[str | None] | None, fresh: bool
) -> list[Previous]:
    """Return the history of a record that replaces a stored cell: the cell's own and, if it was whole, its score.

    A run that continues, and a return to what was stored last, add nothing. contents: checksums of the images' files
    now.
    """
    if old is None:
        return []
    entries, same = list(old.record.history), old.record.fingerprint == new.fingerprint
    notes: list[str] = []
    last: Previous | None = None
    if old.status in DONE and (old.record.status in DONE or not same):
        last = _snapshot(old)
        changed_images = old.changed_images(contents) if same else 0
        notes = [f"images or labels changed ({changed_images:,} of {old.total:,})"] if changed_images else []
        notes += [AGAIN] if fresh and same else []
    elif entries and not same:  # nothing was completed since, so that its end is known from what comes now
        last = entries.pop()
    if last is not None and (changed := differences(last, new) + notes):
        until = last.until or utc_now()
        entries.append(last.model_copy(update={"changed": changed, "until": until}))
    return entries[-KEPT:]


def history_of_gap(old: StoredResult | None, why: str) -> list[Previous]:
    """Return the history of a cell that could not be started: what was there is its last entry."""
    if old is None:
        return []
    if old.status not in DONE:
        return old.record.history
    now = utc_now()
    return [*old.record.history, _snapshot(old).model_copy(update={"changed": [why], "until": now})][-KEPT:]


def without_repeats(history: Sequence[Previous], counts_sha256: str) -> list[Previous]:
    """Return the history without a last entry that was counted again from the start to the same counts."""
    last = history[-1] if history else None
    repeated = last is not None and last.changed == [AGAIN] and last.counts_sha256 == counts_sha256
    return list(history[:-1] if repeated else history)


def differences(previous: Previous, new: Record) -> list[str]:
    """Describe what changed between a previous score and a record, in plain words; empty where nothing did."""
    names = sorted({*previous.inputs, *new.inputs})
    changed = [name for name in names if previous.inputs.get(name) != new.inputs.get(name)]
    if set(changed) == {"data list"} and previous.total != new.images.total:
        return [f"{previous.total:,} -> {new.images.total:,} images"]
    of_inputs = [PLAIN.get(name, f"{name} changed") for name in changed]
    if "plug-in" in changed or "harness" in changed:
        commits = [previous.commit[:9], str(new.made_with.get("commit", ""))[:9]]
        of_inputs += [f"commit {commits[0]} -> {commits[1]}"] if all(commits) and commits[0] != commits[1] else []
    return setting_changes(previous.settings, new.settings) + of_inputs


def sentence(previous: Previous) -> str:
    """Describe a previous score: "was 36.42 until 2026-11-20: words changed"."""
    value = "undefined" if previous.score is None else f"{100 * previous.score:.2f}"
    return f"was {value} until {previous.until[:10]}: {'; '.join(previous.changed)}"


def setting_changes(
    old: Settings, new: Settings, only: Collection[str] = (), without: Collection[str] = ()
) -> list[str]:
    """List the settings that differ as "name old -> new", options of the method one by one."""
    before, after = _flat(old), _flat(new)
    names = [name for name in {**before, **after} if (not only or name in only) and name not in (*without, *NAMING)]
    missing = "none"
    return [
        f"{name} {before.get(name, missing)} -> {after.get(name, missing)}"
        for name in names
        if before.get(name, missing) != after.get(name, missing)
    ]


def changes_for_recount(old: StoredResult, settings: Settings, inputs: Mapping[str, str]) -> list[str]:
    """List settings and inputs that differ from those that decided the stored counts."""
    stored = old.record.inputs
    named = sorted(name for name in {**stored, **inputs} if stored.get(name) != inputs.get(name))
    return setting_changes(old.settings, settings, without=SCORING) + [f"{name} changed" for name in named]


def _flat(settings: Settings) -> dict[str, Any]:
    values = {name: getattr(settings, name) for name in type(settings).model_fields if name != "options"}
    options = settings.model_dump(mode="json", include={"options"})["options"]  # a tuple is stored as a list
    return values | {f"option {name}": value for name, value in options.items()}


def _snapshot(cell: StoredResult) -> Previous:
    record = cell.record
    value = record.metrics.get("score") if len(cell.pieces) == 1 else None
    if not isinstance(value, float):
        value = float(score(cell.areas().total, cell.metric))
    return Previous(
        score=None if value != value else value,
        metric=cell.metric,
        counted=cell.counted,
        total=cell.total,
        written=record.written,
        settings=cell.settings,
        inputs=record.inputs,
        commit=str(record.made_with.get("commit", "")),
        counts_sha256=record.counts_sha256,
    )
