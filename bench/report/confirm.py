"""Measured numbers against published ones: the difference, whether they agree, and the likely reason where not."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import NamedTuple

from bench.data.cards import Card
from bench.report.published import TOLERANCE, agrees, read_published
from bench.report.scores import Score

FOOTGUNS = "docs/footguns.md lists what makes numbers differ"


class Confirmation(NamedTuple):
    """One cell against its published number; per cent.

    agrees: None where the two may not be compared, or nothing is published or measured
    reason: why they differ, or why they may not be compared; "" where they agree
    """

    row: str
    dataset: str
    measured: float | None
    published: Decimal | None
    low: float | None
    high: float | None
    agrees: bool | None
    reason: str

    @property
    def difference(self) -> float | None:
        """Measured - published, in points."""
        return None if self.measured is None or self.published is None else self.measured - float(self.published)

    @property
    def verdict(self) -> str:
        """One phrase: "within 0.5", "off by 3.1: …", or why the two may not be compared."""
        if self.agrees:
            return f"within {TOLERANCE}"
        if self.agrees is None or self.difference is None:
            return self.reason
        return f"off by {abs(self.difference):.1f}: {self.reason}"

    @property
    def line(self) -> list[str]:
        """Cells of a table: row, dataset, measured, published, interval, difference, verdict."""
        numbers = [_number(self.measured), str(self.published or "–")]
        ends = "" if self.low is None or self.high is None else f"{self.low:.1f} to {self.high:.1f}"
        difference = "" if self.difference is None else f"{round(self.difference, 1) + 0.0:+.1f}"
        return [self.row, self.dataset, *numbers, ends, difference, self.verdict]


HEADS = ["row", "dataset", "measured", "published", "95 %", "difference", "verdict"]


def confirm(
    found: Score, published: Decimal | None, card: Card, problems: Sequence[str] = (), removed: Sequence[str] = ()
) -> Confirmation:
    """Hold a score against the published number.

    problems: errors that `bench datasets check` found in the dataset.
    removed: classes that the threshold removes, see `removals`.
    """
    value = 100 * found.value if found.value == found.value else None
    ends = found.interval if found.interval is not None and found.interval.known else None
    low, high = (100 * ends.low, 100 * ends.high) if ends else (None, None)
    may = found.complete if found.verdict.demo else found.comparable
    agree = agrees(value - float(published)) if may and value is not None and published is not None else None
    reason = ""
    if value is None or not may:
        reason = f"not to be compared: {found.verdict.words or 'nothing was counted'}"
    elif published is None:
        reason = "nothing is published"
    elif not agree:
        reason = _reason(found, value, card, problems, removed)
    return Confirmation(found.row, found.dataset, value, published, low, high, agree, reason)


def pattern(cells: Sequence[Confirmation]) -> str | None:
    """Say what the rows of one dataset have in common, where more than one was compared and some are off."""
    compared = [cell for cell in cells if cell.agrees is not None]
    off = [cell.row for cell in compared if not cell.agrees]
    if len(compared) < 2 or not off:
        return None
    if len(off) == len(compared):
        return f"{cells[0].dataset}: all {len(off)} rows are off: look at data, labels and words, which they share"
    some = f"{len(off)} of {len(compared)} rows are off ({', '.join(off)})"
    return f"{cells[0].dataset}: {some}: look at what these have and the others lack"


def _reason(found: Score, value: float, card: Card, problems: Sequence[str], removed: Sequence[str]) -> str:
    """Return the first reason that is known for a number that is off."""
    if problems:
        return f"labels or files differ from the card, see `bench datasets check {card.name}`: {problems[0]}"
    vocabulary = found.settings.vocabulary if found.settings else None
    for line in read_published("others.csv"):
        same = (line["method"], line["dataset"]) == (found.label, found.dataset)
        if same and line["grade"] != "second-hand" and agrees(value - float(line["value"])):
            words = "" if line["vocabulary"] == vocabulary else f" with the words {line['vocabulary']}"
            return f"others report {line['value']}{words} ({line['source']})"
    if removed:
        return "; ".join(removed)
    unsure = [statement for statement in card.unverified if "licence" not in statement]
    doubts = f"; the card is not sure of: {'; '.join(unsure)}" if unsure else ""
    return f"no reason is known{doubts}; {FOOTGUNS}, `bench show {found.row} {found.dataset}` the settings"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"
