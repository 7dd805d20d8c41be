"""Labels that can be read but must be wrong: what upstream tools are known to have made of them."""

from __future__ import annotations

import numpy as np

from bench.data.labels import PILLOW_FAULT
from bench.data.samples import SampleSet
from bench.data.schema import IGNORED
from bench.errors import BenchError

_LABELS = 32  # looked at
_ENOUGH = 8  # so many labels without a further class are no accident
_PIXELS = 100_000_000  # after so many, `_ENOUGH` labels will do


def suspicious(samples: SampleSet) -> tuple[str, ...]:
    """Reasons not to evaluate on these labels, from a look at some; empty if they seem right."""
    rule = samples.card.layouts[samples.layout].labels
    classes = len(samples.card.classes)
    reasons: list[str] = []
    counts = np.zeros(256, np.int64)
    looked_at = 0
    for source in np.random.default_rng(0).permutation(len(samples.sources))[:_LABELS].tolist():
        if looked_at >= _ENOUGH and counts.sum() > _PIXELS:
            break
        try:
            label = samples.read_label(source)
        except BenchError as error:
            return (str(error),)
        counts += np.bincount(label.ravel(), minlength=256)
        looked_at += 1
    seen = set(np.flatnonzero(counts).tolist()) - {IGNORED}
    for value in sorted(seen - set(range(classes)) - set(rule.stray)):
        reason = rule.foreign.get(value, "the labels are those of another dataset or version")
        reasons.append(f"labels hold the value {value}, but the {classes} classes are 0 to {classes - 1}: {reason}")
    if looked_at >= _ENOUGH and len(seen) < 2:
        only = f"class {seen.pop()}" if seen else "ignored pixels"
        reasons.append(
            f"{looked_at} labels hold only {only}: masks of 0 and 255 that were not converted, or empty ones"
        )
    elif looked_at >= _ENOUGH and classes > 2 and seen == {0, 1}:
        reasons.append(f"{looked_at} labels hold only classes 0 and 1 of {classes}; {PILLOW_FAULT}")
    return tuple(reasons)
