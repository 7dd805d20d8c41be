"""Labels that can be read but must be wrong: what upstream tools are known to have made of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bench.data.cards import is_shipped
from bench.data.labels import PILLOW_FAULT
from bench.data.samples import SampleSet
from bench.data.schema import IndexRule, PaletteRule
from bench.errors import BenchError
from bench.settings import IGNORED

_LABELS = 32  # looked at
_ENOUGH = 8  # so many labels without a further class are no accident
_PIXELS = 100_000_000  # after so many, `_ENOUGH` labels will do
MOST_HOLD = "labels hold "  # how the reason begins where most labels hold values that are no class


def impossible_values(samples: SampleSet, source: int, label: NDArray[np.uint8]) -> str | None:
    """Say why a label of a source is impossible, because it holds values that are no class; None for a right one.

    Values that the released labels are known to hold (`stray` of the card's layout) are right.
    """
    rule, classes = samples.card.layouts[samples.layout].labels, len(samples.card.classes)
    counts = np.bincount(label.ravel(), minlength=256)
    found = [value for value in range(classes, IGNORED) if counts[value] and value not in rule.stray]
    if not found:
        return None
    pixels = sum(int(counts[value]) for value in found)
    shown = ", ".join(map(str, found[:3])) + (f" and {len(found) - 3} more" if len(found) > 3 else "")
    shift = " (one less than the file stores)" if getattr(rule, "reduce_zero", False) else ""
    other = "get the original label" if is_shipped(samples.card.name) else "correct the label, or `labels` of the card"
    reason = next((rule.foreign[value] for value in found if value in rule.foreign), other)
    pair = samples.pair(source)
    file = pair.label if pair else f"{samples.root}: the label of {samples.ids[samples.sources[source].start]}"
    return f"{file}: holds {shown}{shift} on {pixels:,} pixels, but the classes are 0 to {classes - 1}: {reason}"


def _is_label_map(samples: SampleSet) -> bool:
    """Return whether the first image is a ground truth in the card's colours."""
    try:
        image = next(samples.read_source(0)).image
    except (BenchError, StopIteration):
        return False
    found = np.unique(image.reshape(-1, 3)[:: max(1, image.size // 300_000)], axis=0)
    colours = {tuple(colour) for colour in samples.card.colours}
    return all(tuple(colour) in colours for colour in found.tolist())


def suspicious(samples: SampleSet) -> tuple[str, ...]:
    """Reasons not to evaluate on these labels, from a look at some; empty if they seem right."""
    rule = samples.card.layouts[samples.layout].labels
    classes, own = len(samples.card.classes), not is_shipped(samples.card.name)
    reasons: list[str] = []
    counts = np.zeros(256, np.int64)
    beyond = [value for value in range(classes, IGNORED) if value not in rule.stray]
    looked_at = impossible = 0
    unreadable: list[str] = []
    for source in np.random.default_rng(0).permutation(len(samples.sources))[:_LABELS].tolist():
        if looked_at >= _ENOUGH and counts.sum() > _PIXELS:
            break
        try:
            label = samples.read_label(source)
        except BenchError as error:
            unreadable.append(str(error))
            continue
        of_label = np.bincount(label.ravel(), minlength=256)
        counts += of_label
        looked_at += 1
        impossible += bool(of_label[beyond].any())
    if unreadable and not looked_at:
        return (unreadable[0],)
    seen = set(np.flatnonzero(counts).tolist()) - {IGNORED}
    if 2 * impossible > looked_at:  # else it is single labels, and each of these costs its image
        value = next((value for value in beyond if value in seen and value in rule.foreign), min(seen & set(beyond)))
        if own and isinstance(rule, IndexRule):
            reasons.append(_lacking(samples, rule, sorted(seen)))
        else:
            reason = rule.foreign.get(value, "the labels are of another dataset or version")
            reasons.append(f"{MOST_HOLD}the value {value}, but the {classes} classes are 0 to {classes - 1}: {reason}")
    if isinstance(rule, PaletteRule) and _is_label_map(samples):
        reasons.append(
            "the images hold nothing but the colours of the labels: the ground truth is where images should be"
        )
    if looked_at >= _ENOUGH and len(seen) < 2:
        only = f"class {seen.pop()}" if seen else "ignored pixels"
        masks = "if they are masks of 0 and 255, write `labels: {rule: threshold}` in the card"
        why = masks if own and classes == 2 else "masks of 0 and 255 that were not converted, or empty ones"
        reasons.append(f"{looked_at} labels hold only {only}: {why}")
    elif looked_at >= _ENOUGH and classes > 2 and seen == {0, 1}:
        reasons.append(f"{looked_at} labels hold only classes 0 and 1 of {classes}; {PILLOW_FAULT}")
    return tuple(reasons)


def _lacking(samples: SampleSet, rule: IndexRule, seen: list[int]) -> str:
    """Say what a card must say of labels that hold these values, most of which are no class; 255 is not among them."""
    stored = [(value + 1) % 256 for value in seen] if rule.reduce_zero else seen
    count = len(samples.card.classes)
    beyond = [value for value in stored if value >= count + rule.reduce_zero]
    classes = next((values for values in (stored, beyond) if len(values) == count), None)
    if classes is None:
        advice = "name a class for each value in the card, and list the values in `raw_ids`"
    else:
        left = ", others are ignored" if len(classes) < len(stored) else ""
        advice = f"if {', '.join(map(str, classes))} are the classes, write `labels: {{raw_ids: {classes}}}`{left}"
    return f"{MOST_HOLD}{', '.join(map(str, stored))}, the card has {count} classes, numbered from 0: {advice}"
