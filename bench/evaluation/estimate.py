"""Estimate of the time that the whole paper takes, from timings of images of a few sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from scipy.optimize import nnls

from bench.config import Config
from bench.data.cards import Card
from bench.evaluation.speed import Case, Timing
from bench.inference.windows import window_boxes
from bench.settings import ResizeRule

TYPICAL: Final = {  # height and width of most images, as they are evaluated; only for `whole_paper`
    **dict.fromkeys(("openearthmap", "loveda", "xbd_pre", "deepglobe_road"), (1024, 1024)),
    **dict.fromkeys(("udd5", "vdd"), (3000, 4000)),
    **dict.fromkeys(("whu_aerial", "whu_sat_ii", "chn6_cug", "wbs_si"), (512, 512)),
    "massachusetts_road": (1500, 1500),
    "spacenet_road": (1300, 1300),
}


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
    without which it is left out; their size: the card's tiles, else TYPICAL, else 1024 x 1024; their windows: the
    card's geometry, else the protocol's.
    """
    measured = np.array(
        [[timing.windows, case.height * case.width / 1e6] for case, timing in zip(cases, timings, strict=True)]
    )
    (per_window, per_megapixel), _ = nnls(measured, np.array([timing.all_rows for timing in timings]))
    found = []
    for card in cards:
        if card.expected_count is None:
            continue
        tile = (card.tiling.height, card.tiling.width) if card.tiling else None
        height, width = tile or TYPICAL.get(card.name, (1024, 1024))
        geometry = config.protocol.model_dump() | card.overrides()
        small_h, small_w = ResizeRule.model_validate(geometry["resize"]).size(height, width)
        windows = len(window_boxes(small_h, small_w, geometry["window"], geometry["stride"]))
        seconds = card.expected_count * (per_window * windows + per_megapixel * height * width / 1e6)
        found.append(Estimate(card.name, card.expected_count, seconds))
    return found
