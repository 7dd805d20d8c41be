"""Estimates of the time that images take: so much per window, and so much per megapixel of the original."""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from scipy.optimize import nnls

from bench.config import Config
from bench.data.cards import Card
from bench.data.images import at_sizes, read_image
from bench.data.loader import Loaded
from bench.errors import BenchError
from bench.evaluation.dataset_run import Run
from bench.evaluation.loop import Scoring, evaluate, images_together
from bench.evaluation.models import ModelCache, build_row, build_segmenters
from bench.evaluation.speed import Case, RandomModels, Timing, regions, write_noise
from bench.inference.row import Row
from bench.inference.windows import window_boxes
from bench.registry import Method
from bench.runtime.device import default_batch
from bench.runtime.timing import Stopwatch, stage, wait_for_gpu
from bench.settings import ResizeRule, Settings

TYPICAL: Final = {  # height and width of most images, as they are evaluated; only for estimates
    **dict.fromkeys(("openearthmap", "loveda", "xbd_pre", "deepglobe_road"), (1024, 1024)),
    **dict.fromkeys(("udd5", "vdd"), (3000, 4000)),
    **dict.fromkeys(("whu_aerial", "whu_sat_ii", "chn6_cug", "wbs_si"), (512, 512)),
    "massachusetts_road": (1500, 1500),
    "spacenet_road": (1300, 1300),
}
QUERIES: Final = 9
"""Prompt words of rows that are drawn to be timed."""
_SIDE: Final = 1000  # of the original that is timed: a megapixel


def original_size(card: Card) -> tuple[int, int]:
    """Height and width of most images of a dataset: the card's tiles, else TYPICAL, else 1024 x 1024."""
    tile = (card.tiling.height, card.tiling.width) if card.tiling else None
    return tile or TYPICAL.get(card.name, (1024, 1024))


class Costs(NamedTuple):
    """Seconds that rows of one backbone and geometry take together, per window and per megapixel of the original."""

    window: float
    megapixel: float

    def image(self, card: Card, resize: ResizeRule, window: int, stride: int) -> float:
        """Seconds of an image of a dataset, of `original_size`, at this geometry."""
        height, width = original_size(card)
        windows = len(window_boxes(*resize.size(height, width), window, stride))
        return self.window * windows + self.megapixel * height * width / 1e6


class Estimate(NamedTuple):
    """Seconds that all images of a dataset take in one process."""

    dataset: str
    images: int
    seconds: float


def whole_paper(
    config: Config, cards: Sequence[Card], cases: Sequence[Case], timings: Sequence[Timing]
) -> list[Estimate]:
    """Estimate the time of each dataset from timings of images of some sizes.

    The costs are fitted to the timings (least squares, not negative), which needs two sizes of different numbers of
    megapixels. Images of a dataset: the card's count, without which it is left out; their windows: the card's geometry,
    else the protocol's.
    """
    measured = np.array(
        [[timing.windows, case.height * case.width / 1e6] for case, timing in zip(cases, timings, strict=True)]
    )
    costs = Costs(*nnls(measured, np.array([timing.all_rows for timing in timings]))[0])
    found = []
    for card in cards:
        if card.expected_count is not None:
            geometry = config.protocol.model_dump() | card.overrides()
            rule = ResizeRule.model_validate(geometry["resize"])
            seconds = card.expected_count * costs.image(card, rule, geometry["window"], geometry["stride"])
            found.append(Estimate(card.name, card.expected_count, seconds))
    return found


class Work(NamedTuple):
    """Rows that travel together over the images of a dataset."""

    rows: Sequence[Settings]
    card: Card
    images: int


class Timer:
    """Times rows on this machine, on an image of noise: once for rows that cost the same."""

    def __init__(self, models: ModelCache, build: Callable[[Settings], Row], batch: int) -> None:
        """models: of the rows that `build` makes."""
        self._models, self._build, self._batch = models, build, batch
        self._known: dict[Hashable, Costs] = {}

    @classmethod
    def drawn(cls, config: Config, methods: Mapping[str, Method], device: str, dtype: str = "fp32") -> Timer:
        """Time rows whose weights are drawn, of the models' true sizes."""
        models = RandomModels(config, methods, device=device, dtype=dtype)
        words = [[f"class {number}"] for number in range(QUERIES)]
        return cls(models, lambda settings: build_row(settings, words, models), default_batch(device))

    @classmethod
    def of_run(cls, run: Run) -> Timer:
        """Time the rows of a run that are ready."""
        cells = (cell for dataset in run.waiting for cell in dataset.due)
        ready = {(cell.settings.dataset, cell.row): cell.ready for cell in cells if cell.ready}
        return cls(run.models, lambda settings: ready[settings.dataset, settings.row], run.batch)

    def seconds(self, work: Iterable[Work], processes: int = 1) -> float | None:
        """Seconds that all of it takes in processes that share the images.

        None where a row cannot be made, as those of SAM 3 without transformers.
        """
        try:
            return sum(one.images * self._image(one.rows, one.card) for one in work) / processes
        except BenchError:
            return None

    def _image(self, rows: Iterable[Settings], card: Card) -> float:
        """Seconds that an image of a dataset takes with these rows together."""
        together: dict[tuple[str, ResizeRule, int, int], list[Settings]] = defaultdict(list)
        for one in rows:
            together[one.backbone, one.resize, one.window, one.stride].append(one)
        return sum(
            self._costs(some, resize.size(*original_size(card))).image(card, resize, window, stride)
            for (_, resize, window, stride), some in together.items()
        )

    def _costs(self, rows: Sequence[Settings], size: tuple[int, int]) -> Costs:
        """Costs of rows of one backbone and geometry; on a CPU one window tells them. size: of the network's input."""
        built = [(one, self._build(one)) for one in rows]
        one_window = self._models.device == "cpu" and not any(row.needs_whole_image for _, row in built)
        side = (one_window and rows[0].window) or max(size)
        backbone = self._models.config.backbones[rows[0].backbone]
        parts = [
            (one.method, repr(one.options), one.upsampler, one.refine, repr(one.models), len(row.text))
            for one, row in built
        ]
        key = backbone.library, backbone.model, rows[0].window, rows[0].stride, side, tuple(parts)
        if key not in self._known:
            self._known[key] = self._timed(built, side)
        return self._known[key]

    def _timed(self, rows: Sequence[tuple[Settings, Row]], side: int) -> Costs:
        """Time the images of one group after one of warming up. side: of the network's input."""
        change = {"resize": ResizeRule(long_side=side)}
        segmenters = build_segmenters(
            [(one.model_copy(update=change), row) for one, row in rows], self._models, self._batch
        )
        scoring = Scoring(1 + max(int(row.classes.max()) for _, row in rows))
        label = regions(_SIDE, _SIDE, scoring.classes)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "image.jpg"
            write_noise(file, _SIDE, _SIDE)
            for _ in range(2):
                started = time.perf_counter()
                with Stopwatch() as watch:
                    with stage("decode, resize"):
                        image = read_image(file)
                        sizes = at_sizes(image, {size for one in segmenters for size in one.sizes})
                    loaded = [Loaded(number, "noise", label, sizes) for number in range(images_together(segmenters))]
                    pending = {row.name: set(range(len(loaded))) for _, row in rows}
                    list(evaluate(segmenters, loaded, pending, scoring))
                    wait_for_gpu()
                took = time.perf_counter() - started
        decoding, images = watch.seconds["decode, resize"], len(loaded)
        counting = (watch.seconds["post-processing"] + watch.seconds["metrics"]) / images
        windows = len(window_boxes(side, side, rows[0][0].window, rows[0][0].stride))
        return Costs(((took - decoding) / images - counting) / windows, decoding + counting)
