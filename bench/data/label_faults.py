"""Labels that can be read but must be wrong: what upstream tools are known to have made of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bench.data.labels import PILLOW_FAULT
from bench.data.samples import SampleSet
from bench.data.schema import PaletteRule
from bench.errors import BenchError
from bench.settings import IGNORED

_LABELS = 32  # looked at
_ENOUGH = 8  # so many labels without a further class are no accident
_PIXELS = 100_000_000  # after so many, `_ENOUGH` labels will do


def impossible_values(samples: SampleSet, name: str, label: NDArray[np.uint8]) -> str | None:
    """Say why a label is impossible, because it holds values that are no class; None for a right one.

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
    reason = next((rule.foreign[value] for value in found if value in rule.foreign), "get the original label")
    return (
        f"{samples.root}: the label of {name} holds {shown}{shift} on {pixels:,} pixels, "
        f"but the classes are 0 to {classes - 1}: {reason}"
    )


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
    classes = len(samples.card.classes)
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
        reason = rule.foreign.get(value, "the labels are of another dataset or version")
        reasons.append(f"labels hold the value {value}, but the {classes} classes are 0 to {classes - 1}: {reason}")
    if isinstance(rule, PaletteRule) and _is_label_map(samples):
        reasons.append(
            "the images hold nothing but the colours of the labels: the ground truth is where images should be"
        )
    if looked_at >= _ENOUGH and len(seen) < 2:
        only = f"class {seen.pop()}" if seen else "ignored pixels"
        reasons.append(
            f"{looked_at} labels hold only {only}: masks of 0 and 255 that were not converted, or empty ones"
        )
    elif looked_at >= _ENOUGH and classes > 2 and seen == {0, 1}:
        reasons.append(f"{looked_at} labels hold only classes 0 and 1 of {classes}; {PILLOW_FAULT}")
    return tuple(reasons)
