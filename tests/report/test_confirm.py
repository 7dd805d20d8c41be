"""Measured numbers against published ones, by hand."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from store_helpers import certain, settings, spec

from bench.config import load_config
from bench.data.cards import load_card
from bench.report.analysis import removals
from bench.report.confirm import Confirmation, confirm, pattern
from bench.report.published import published_number
from bench.report.scores import Score
from bench.report.verdict import Verdict
from bench.store.store import Store


def score(value: float, dataset: str = "udd5", row: str = "segearth-ov", **known: Any) -> Score:
    label = {"segearth-ov": "SegEarth-OV"}.get(row, row)
    verdict = Verdict(**{"images": "ok", "counted": 40, "expected": 40, **known})
    of_cell = settings(row, dataset, vocabulary="cvpr2025")
    return Score(row, dataset, label, "miou", verdict, value=value, settings=of_cell)


def confirmed(value: float, dataset: str = "udd5", problems: tuple[str, ...] = (), **known: Any) -> Confirmation:
    published = published_number(load_config(), "segearth-ov", dataset)
    return confirm(score(value, dataset, **known), published, load_card(dataset), problems)


def test_the_published_number_is_the_papers() -> None:
    config = load_config()
    assert published_number(config, "segearth-ov", "udd5") == Decimal("50.6")
    assert published_number(config, "segearth-ov-896", "inria") == Decimal("48.9")
    assert published_number(config, "naclip", "udd5") is None


@pytest.mark.parametrize(
    ("value", "agrees", "verdict"),
    [(0.506, True, "within 0.5"), (0.5101, True, "within 0.5"), (0.475, False, "off by 3.1: ")],
)
def test_half_a_point_is_near(value: float, agrees: bool, verdict: str) -> None:
    found = confirmed(value)
    assert found.agrees is agrees and found.verdict.startswith(verdict)
    assert found.difference == pytest.approx(100 * value - 50.6)


def test_reasons_begin_with_what_is_known_of_the_data() -> None:
    assert "see `bench datasets check udd5`: 46 images" in confirmed(0.4, problems=("46 images",)).verdict
    by_others = confirmed(0.3975, "openearthmap")
    assert by_others.verdict == "off by 0.5: others report 39.75 (likyoo/SegEarth-OV issue 8 (2024-11-24))"
    other_words = confirmed(0.485, "potsdam")
    assert "others report 48.5 with the words ov2" in other_words.verdict
    unknown = confirmed(0.3)
    assert "the card is not sure of: image sizes" in unknown.verdict and "docs/footguns.md" in unknown.verdict
    assert "not sure" not in confirmed(0.3, "whu_aerial").verdict  # of the licence alone


def test_a_class_that_the_threshold_removes_is_a_reason(tmp_path: Path) -> None:
    sure, unsure = [[9, 0], [0, 0]], [[0, 0], [0, 9]]
    writer = Store(tmp_path).open(spec(1, settings=settings("clip", "udd5", threshold=0.5), classes=("ground", "road")))
    counts = [certain(sure), certain(unsure, 20)]  # the road at a probability of 0.2
    writer.add(0, *(np.concatenate(part) for part in zip(*counts, strict=True)))
    writer.finish(seconds=1.0)
    removed = removals(Store(tmp_path).cells())
    published = Decimal("50.6")
    found = confirm(score(0.3), published, load_card("udd5"), removed=removed)
    assert found.verdict == "off by 20.6: udd5: road is never predicted at threshold 0.5 by clip (IoU at 0: 100.0)"
    assert confirm(score(0.506), published, load_card("udd5"), removed=removed).verdict == "within 0.5"


def test_what_may_not_be_compared_says_why() -> None:
    few = confirmed(0.506, images="incomplete", counted=4)
    assert few.agrees is None and few.verdict == "not to be compared: 4 of 40 images"
    caveat = confirmed(0.506, caveats=("another layout",))
    assert caveat.agrees is None and "another layout" in caveat.verdict
    assert confirm(score(0.5, row="mine"), None, load_card("udd5")).verdict == "nothing is published"
    demo = confirmed(0.506, demo=True)
    assert demo.agrees  # against the demo's reference


def test_the_line_has_signs_and_no_minus_zero() -> None:
    assert confirmed(0.50596).line == ["segearth-ov", "udd5", "50.6", "50.6", "", "+0.0", "within 0.5"]
    assert confirmed(0.5).line[5] == "-0.6"


def test_what_rows_have_in_common() -> None:
    off, near = confirmed(0.3), confirmed(0.506)._replace(row="clip")
    assert pattern([off]) is None and pattern([near, near]) is None
    assert "all 2 rows are off" in str(pattern([off, off._replace(row="clip")]))
    assert "1 of 2 rows are off (segearth-ov): " in str(pattern([off, near]))
