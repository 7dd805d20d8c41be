"""Estimates of a run's time: windows and megapixels by hand, and which rows are timed apart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from reference import tiny_config

from bench.config import Config, load_config
from bench.data.cards import load_card
from bench.errors import BenchError
from bench.evaluation.estimate import TYPICAL, Costs, Timer, Work, whole_paper
from bench.evaluation.models import build_row
from bench.evaluation.speed import Case, RandomModels, Timing
from bench.inference.row import Row
from bench.paths import shipped
from bench.registry import find_method, load_methods
from bench.settings import ResizeRule, Settings


def test_the_whole_paper_by_hand() -> None:
    """2 s per window and 3 s per megapixel, exactly."""
    plan = [Case(448, 448, 9, ("clip",)), Case(3000, 4000, 9, ("clip",)), Case(1000, 1000, 9, ("clip",))]
    timings = [Timing(n, 1.0, 2 * n + 3 * c.height * c.width / 1e6) for n, c in zip((9, 6, 9), plan, strict=True)]
    config = load_config()
    isaid, udd5 = whole_paper(config, [load_card("isaid"), load_card("udd5")], plan, timings)
    assert (isaid.dataset, isaid.images, udd5.dataset) == ("isaid", 11_644, "udd5")
    assert isaid.seconds == pytest.approx(11_644 * (2 * 9 + 3 * 0.896**2))
    assert udd5.seconds == pytest.approx(udd5.images * (2 * 6 + 3 * 12))
    unknown = load_card("udd5").model_copy(update={"expected_count": None})
    assert whole_paper(config, [unknown], plan, timings) == []
    half = config.model_copy(update={"protocol": config.protocol.model_copy(update={"stride": 224})})
    (udd5,) = whole_paper(half, [load_card("udd5")], plan, timings)
    assert udd5.seconds == pytest.approx(udd5.images * (2 * 4 + 3 * 12))


def test_typical_sizes_are_of_datasets_that_exist() -> None:
    assert set(TYPICAL) <= set(load_config().default_datasets)


def test_the_time_of_an_image_by_hand() -> None:
    """Windows: 9 of a square image at 448 pixels, 49 at 896, one where it is the whole image."""
    costs, card = Costs(window=2.0, megapixel=1.0), load_card("whu_aerial")
    megapixels = 512 * 512 / 1e6
    assert costs.image(card, ResizeRule(long_side=448), 224, 112) == pytest.approx(9 * 2 + megapixels)
    assert costs.image(card, ResizeRule(long_side=896), 224, 112) == pytest.approx(49 * 2 + megapixels)
    assert costs.image(card, ResizeRule(long_side=896), 0, 112) == pytest.approx(2 + megapixels)


class Rehearsal:
    """Rows of a small configuration with two backbones and random weights, and which of them were built."""

    def __init__(self, folder: Path) -> None:
        for name, layers in (("one", 2), ("deep", 12)):
            (folder / f"{name}.json").write_text(json.dumps(tiny_config(image_size=64, layers=layers)))
        content = yaml.safe_load(shipped("benchmark.yaml").read_text())
        content["protocol"] |= {"resize": {"long_side": 96}, "window": 64, "stride": 32, "backbone": "one"}
        content["backbones"] |= {name: {"model": str(folder / f"{name}.json")} for name in ("one", "deep")}
        content["rows"] |= {"clip-deep": {"method": "clip", "backbone": "deep"}}
        (folder / "benchmark.yaml").write_text(yaml.safe_dump(content))
        self.config: Config = load_config(folder / "benchmark.yaml")
        self.methods = load_methods()
        self.models = RandomModels(self.config, self.methods)
        self.timer = Timer(self.models, self.build, 4)

    def build(self, settings: Settings) -> Row:
        if settings.method == "radseg":
            raise BenchError("as without transformers")
        return build_row(settings, [["road"], ["tree"]], self.models)

    def seconds(self, row: str, dataset: str = "loveda", processes: int = 1) -> float | None:
        card = load_card(dataset)
        settings = self.config.settings_of(row, card, find_method(self.config.row(row).method, self.methods).defaults)
        return self.timer.seconds([Work([settings], card, 10)], processes)


def test_rows_of_other_backbones_and_upsamplers_are_timed_apart(tmp_path: Path) -> None:
    rehearsal = Rehearsal(tmp_path)
    once = rehearsal.seconds("clip")
    assert once and rehearsal.seconds("clip", "openearthmap") == once  # images of the same size: timed once
    assert rehearsal.seconds("clip", processes=4) == once / 4
    others = {rehearsal.seconds(row) for row in ("clip-deep", "clip+simfeatup", "clip+nearest")}
    assert len({once, *others}) == 4 and None not in others


def test_the_time_of_rows_that_cannot_be_made_is_unknown(tmp_path: Path) -> None:
    assert Rehearsal(tmp_path).seconds("radseg") is None
