"""Estimate of the time that the whole paper takes, from timings of images of a few sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from scipy.optimize import nnls

from bench.config import Config
from bench.data.cards import Card
from bench.evaluation.speed import Bench, Case, Timing
from bench.inference.windows import window_boxes
from bench.registry import Method, find_method
from bench.settings import ResizeRule

TYPICAL: Final = {  # height and width of most images, as they are evaluated; only for `whole_paper`
    **dict.fromkeys(("openearthmap", "loveda", "xbd_pre", "deepglobe_road"), (1024, 1024)),
    **dict.fromkeys(("udd5", "vdd"), (3000, 4000)),
    **dict.fromkeys(("whu_aerial", "whu_sat_ii", "chn6_cug", "wbs_si"), (512, 512)),
    "massachusetts_road": (1500, 1500),
    "spacenet_road": (1300, 1300),
}


QUERIES: Final = 9
"""Prompt words of a quick measurement."""


class Estimate(NamedTuple):
    """Seconds that all images of a dataset take in one process."""

    dataset: str
    images: int
    seconds: float


def whole_paper(
    config: Config, cards: Sequence[Card], cases: Sequence[Case], timings: Sequence[Timing]
) -> list[Estimate]:
    """Estimate the time of each dataset from timings of images of some sizes.

    An image costs so much per window and so much per megapixel of its original; both are fitted to the timings (least
    squares, not negative). Needs two sizes of different numbers of megapixels. Images of a dataset: the card's count,
    without which it is left out; their size: `original_size`; their windows: the card's geometry, else the protocol's.
    """
    measured = np.array(
        [[timing.windows, case.height * case.width / 1e6] for case, timing in zip(cases, timings, strict=True)]
    )
    (per_window, per_megapixel), _ = nnls(measured, np.array([timing.all_rows for timing in timings]))
    found = []
    for card in cards:
        if card.expected_count is None:
            continue
        height, width = original_size(card)
        geometry = config.protocol.model_dump() | card.overrides()
        rule = ResizeRule.model_validate(geometry["resize"])
        windows = len(window_boxes(*rule.size(height, width), geometry["window"], geometry["stride"]))
        seconds = card.expected_count * (per_window * windows + per_megapixel * height * width / 1e6)
        found.append(Estimate(card.name, card.expected_count, seconds))
    return found


def original_size(card: Card) -> tuple[int, int]:
    """Height and width of most images of a dataset: the card's tiles, else TYPICAL, else 1024 x 1024."""
    tile = (card.tiling.height, card.tiling.width) if card.tiling else None
    return tile or TYPICAL.get(card.name, (1024, 1024))


class Costs(NamedTuple):
    """Seconds on this machine: of a window of `side` pixels for the trunk, a row, an upsampled row; of a megapixel."""

    side: int
    trunk: float
    row: float
    upsampled: float
    megapixel: float


def quick_costs(config: Config, methods: dict[str, Method], rows: Sequence[str], device: str) -> Costs:
    """Measure what rows cost, on one image of noise and with random weights: seconds.

    On a CPU the image has one window. One row at least has to have an upsampler, and one none.
    """
    side = config.protocol.resize.size(1000, 1000)[0] if device.startswith("cuda") else config.protocol.window
    bench = Bench(config, methods, config.backbones[config.protocol.backbone].model, device, "fp32")
    timing = bench.once(Case(1000, 1000, QUERIES, tuple(rows)), ResizeRule(long_side=side))
    seconds, count = timing.shares, len(rows)
    trunk, upsampled = seconds["trunk"], seconds["operator"] + seconds["scores"]
    megapixel = seconds["decode, resize"] + seconds["post-processing"] + seconds["metrics"]
    rest = timing.all_rows - trunk - upsampled - megapixel
    return Costs(
        side=config.protocol.window,
        trunk=trunk / timing.windows,
        row=rest / timing.windows / count,
        upsampled=upsampled / timing.windows / sum(map(bench.upsampled, rows)),
        megapixel=megapixel / count,
    )


def quick_seconds(config: Config, methods: dict[str, Method], rows: Sequence[str], card: Card, costs: Costs) -> float:
    """Seconds that an image of a dataset takes with these rows together, as if all had the protocol's backbone."""
    height, width = original_size(card)
    settings = [config.settings_of(row, card, find_method(config.row(row).method, methods).defaults) for row in rows]
    total = costs.megapixel * len(rows) * height * width / 1e6
    trunks = set()
    for one in settings:
        small = one.resize.size(height, width)
        window = one.window or max(small)  # the whole image
        windows = len(window_boxes(*small, window, one.stride)) * (window / costs.side) ** 2
        total += windows * (costs.row + (costs.upsampled if one.upsampler != "none" else 0))
        trunks.add((one.backbone, windows))
    return total + sum(windows * costs.trunk for _, windows in trunks)
