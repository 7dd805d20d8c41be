"""`bench datasets check`: whether a dataset on disk is complete and right, before a GPU is busy with it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from tqdm import tqdm

from bench.data.cards import Card, is_shipped
from bench.data.doubts import doubts
from bench.data.inventory import count_is_unverified
from bench.data.label_faults import MOST_HOLD, suspicious
from bench.data.layouts import DatasetMissing
from bench.data.loader import Loaded, load
from bench.data.new_card import UNNAMED
from bench.data.prepared import PreparedSamples, find_samples
from bench.data.samples import SampleSet
from bench.errors import BenchError
from bench.settings import IGNORED, miscount

_SOURCES = 24  # decoded where not all are asked for
_SHOWN = 10  # unreadable files that are named


@dataclass(frozen=True)
class Problem:
    """severity: with an error, results would be wrong or incomplete; a note is good to know.

    where: "" where `what` begins with a file.
    """

    severity: Literal["error", "warning", "note"]
    where: str
    what: str
    advice: str


@dataclass
class Report:
    """Findings of a check. Histograms and sizes are over the images looked at (`checked` of `images`).

    pixels, present: pixels of each class, and images that hold it
    beyond: pixels of values that are no class and that the released labels are known to hold
    files, labels: fingerprints of the list of files, and of the decoded labels that were looked at
    """

    name: str
    layout: str | None = None
    folder: str | None = None
    prepared: bool = False
    images: int = 0
    expected: int | None = None
    checked: int = 0
    sizes: dict[str, int] = field(default_factory=dict)
    pixels: dict[str, int] = field(default_factory=dict)
    present: dict[str, int] = field(default_factory=dict)
    ignored: int = 0
    beyond: dict[int, int] = field(default_factory=dict)
    files: str | None = None
    labels: str | None = None
    problems: list[Problem] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """All images that the card expects were looked at, and nothing is wrong or doubtful."""
        severe = any(problem.severity != "note" for problem in self.problems)
        return self.checked == self.images == self.expected and not severe

    @property
    def healthy(self) -> bool:
        """No problem is an error."""
        return all(problem.severity != "error" for problem in self.problems)


def check(card: Card, data_root: Path, all_labels: bool = False, layout: str | None = None, workers: int = 0) -> Report:
    """Look at a dataset as `run` would read it: count, sizes, pairs, labels.

    What is wrong with it is reported, not raised. all_labels: decode every image and label; else of a
    fixed sample of the files.
    """
    report = Report(name=card.name, expected=card.expected_count)
    try:
        samples = find_samples(card, data_root, layout)
    except DatasetMissing as error:
        report.problems.append(Problem("error", str(data_root), str(error), f"see `bench download {card.name}`"))
        return report
    except BenchError as error:
        report.problems.append(Problem("error", str(data_root), str(error), "correct that, then check again"))
        return report
    report.layout, report.folder = samples.layout, str(samples.root)
    report.prepared = isinstance(samples, PreparedSamples)
    report.images, report.files = len(samples), samples.fingerprint()
    report.problems += _count(card, samples)
    indices = _chosen(samples, all_labels)
    unreadable = _decode(report, samples, indices, workers)
    reasons = suspicious(samples)
    most = any(reason.startswith(MOST_HOLD) for reason in reasons)
    single = [item for item in unreadable if not (most and item.no_class)]
    report.problems += _unreadable(samples, single)
    report.problems += _never(report)
    report.problems += _wrong(samples, report, [one for one in reasons if one not in {item.error for item in single}])
    report.problems += _unnamed(card)
    report.problems += _doubtful(samples, report)
    return report


def _count(card: Card, samples: SampleSet) -> Iterator[Problem]:
    where = str(samples.root)
    for warning in samples.warnings:
        yield Problem("warning", where, warning, f"see the {'notes of the ' * bool(card.notes)}card")
    if wrong := miscount(len(samples), card.expected_count):
        doubt = " (a number that is not verified)" if count_is_unverified(card) else ""
        yield Problem("error", where, f"incomplete: {wrong}{doubt}", f"compare with the split: {card.split_note}")


def _chosen(samples: SampleSet, everything: bool) -> list[int]:
    """Return indices of the samples to decode, increasing; whole sources, the same ones every time."""
    if everything:
        return list(range(len(samples)))
    sources = np.random.default_rng(0).permutation(len(samples.sources))[:_SOURCES]
    return sorted(index for source in sources.tolist() for index in samples.sources[source])


def _decode(report: Report, samples: SampleSet, indices: list[int], workers: int) -> list[Loaded]:
    """Fill the report from the decoded samples; gives those that cannot be read."""
    counts = np.zeros(256, np.int64)
    holding = np.zeros(256, np.int64)
    sizes: Counter[str] = Counter()
    digest = hashlib.sha256()
    unreadable = []
    for item in tqdm(load(samples, indices, (), workers), total=len(indices), desc=samples.card.name, disable=None):
        if item.error:
            unreadable.append(item)
            continue
        found = np.bincount(item.label.ravel(), minlength=256)
        counts += found
        holding += found > 0
        sizes[f"{item.label.shape[1]}x{item.label.shape[0]}"] += 1
        digest.update(f"{item.id} {item.label.shape}".encode())
        digest.update(item.label.tobytes())
    classes = samples.card.classes
    report.checked = len(indices) - len(unreadable)
    report.sizes = dict(sizes.most_common())
    report.pixels = {name: int(counts[value]) for value, name in enumerate(classes)}
    report.present = {name: int(holding[value]) for value, name in enumerate(classes)}
    report.ignored = int(counts[IGNORED])
    report.beyond = {value: int(counts[value]) for value in range(len(classes), IGNORED) if counts[value]}
    report.labels = digest.hexdigest()[:16]
    return unreadable


def _unreadable(samples: SampleSet, items: list[Loaded]) -> Iterator[Problem]:
    reasons = Counter(item.error or "" for item in items)
    for reason, images in list(reasons.items())[:_SHOWN]:
        yield Problem("error", "", reason, f"{images:,} images cannot be evaluated")
    if len(reasons) > _SHOWN:
        what = f"{len(reasons) - _SHOWN:,} more files cannot be read"
        yield Problem("error", str(samples.root), what, "correct the above, then check again")


def _never(report: Report) -> Iterator[Problem]:
    """Classes without a pixel: the mark of a broken conversion, if all labels were looked at."""
    never = ", ".join(name for name, pixels in report.pixels.items() if not pixels)
    where = report.folder or ""
    if never and report.checked == report.images:
        yield Problem("warning", where, f"in no label: {never}", "see whether a conversion lost them")
    elif never and report.checked:
        what = f"in none of the {report.checked:,} labels looked at: {never}"
        yield Problem("note", where, what, "look at all labels with --all")


def _wrong(samples: SampleSet, report: Report, reasons: list[str]) -> Iterator[Problem]:
    """Say what upstream tools are known to spoil, and which values beyond the classes are known of these labels."""
    where = str(samples.root)
    advice = "do not evaluate on these labels" if is_shipped(samples.card.name) else "correct that, then check again"
    for reason in reasons:
        yield Problem("error", where, reason, advice)
    for value, pixels in report.beyond.items():
        what = f"label value {value} on {pixels:,} pixels is no class; it counts in the union, as in the reference"
        yield Problem("note", where, what, "nothing to do")


def _doubtful(samples: SampleSet, report: Report) -> Iterator[Problem]:
    """Say what can be read but does not look right."""
    for doubt in doubts(samples, [*report.pixels.values()], report.checked):
        yield Problem("warning", "", doubt, f"look at `bench datasets show {samples.card.name}`")


def _unnamed(card: Card) -> Iterator[Problem]:
    """Classes that still have the names that `datasets new` gave them."""
    if unnamed := [name for name in card.classes if UNNAMED.fullmatch(name)]:
        what = f"classes are called {', '.join(unnamed)}, which no model knows"
        yield Problem("warning", f"card {card.name}", what, "name them under `classes` and `vocabularies`")
