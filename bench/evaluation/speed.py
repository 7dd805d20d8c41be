"""Where the time goes: all rows on generated images, against the stock image encoder in the same process.

The weights are random, the images noise and the labels regions, which the arithmetic does not mind. Decoding, windows,
rows, counts and store are the code of a run, whose parts a thread writes. On a GPU several images follow each other as
in a run, and decoding, which workers do, is left out of the time.
"""

from __future__ import annotations

import copy
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from bench.config import Config
from bench.data.images import at_sizes, read_image
from bench.data.loader import Loaded
from bench.errors import BenchError
from bench.evaluation.loop import Scoring, evaluate, images_together
from bench.evaluation.models import ModelCache, build_row, build_segmenters
from bench.inference.segmenter import Segmenter
from bench.models.backbone import Backbone
from bench.models.block import lower_precision
from bench.models.clip_weights import DTYPES, random_clip
from bench.models.second import SecondModel
from bench.models.second_kinds import random_second
from bench.models.tower import Tower
from bench.models.towers.loading import random_tower
from bench.models.upsamplers import (
    BilateralUpsampler,
    JBUOne,
    ScoreRequest,
    Upsampler,
    load_upsampler,
    steps_for,
    upsampled_scores,
)
from bench.models.upsamplers.tiles import Strip
from bench.registry import Method, find_method
from bench.runtime.device import peak_memory
from bench.runtime.timing import Stopwatch, gpu_work, stage, wait_for_gpu
from bench.settings import IGNORED, Settings
from bench.store.record import ResultSpec
from bench.store.store import Store
from bench.store.writer import ResultWriter

STAGES = (
    "decode, resize",
    "trunk",
    "last block",
    "operator",
    "scores",
    "stitching",
    "refinement",
    "post-processing",
    "metrics",
    "store",
    "other",
)

_IN_A_ROW = 8  # images that a GPU gets one after the other


@dataclass(frozen=True)
class Case:
    """Setting of one measurement: original size, number of prompt words, rows."""

    height: int
    width: int
    queries: int
    rows: tuple[str, ...]


@dataclass
class Timing:
    """Medians over the repetitions, seconds an image.

    encoder: stock `encode_image` over as many windows of its own size as the image has for the first row's geometry
    all_rows: the case's rows, decoding to store
    shares: that time by stage; on a GPU of images apart, whose every stage is waited for
    one_by_one: of each row on its own, from the decoding on; empty if not asked for
    peak_memory: bytes of the process so far, or of the GPU's allocator
    launches, busy: of a GPU, kernels and the seconds that they took; None on a CPU
    """

    windows: int
    encoder: float
    all_rows: float
    shares: dict[str, float] = field(default_factory=dict)
    one_by_one: dict[str, float] = field(default_factory=dict)
    peak_memory: int = 0
    launches: float | None = None
    busy: float | None = None

    @property
    def ratio(self) -> float:
        """Encoder passes that all rows cost."""
        return self.all_rows / self.encoder

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"ratio": self.ratio, "images_per_second": 1 / self.all_rows}


def mean(timings: Sequence[Timing]) -> Timing:
    """Average the same case over several processes; the peak memory is the highest."""
    first = timings[0]
    return Timing(
        first.windows,
        statistics.mean(timing.encoder for timing in timings),
        statistics.mean(timing.all_rows for timing in timings),
        {name: statistics.mean(timing.shares[name] for timing in timings) for name in first.shares},
        {row: statistics.mean(timing.one_by_one[row] for timing in timings) for row in first.one_by_one},
        max(timing.peak_memory for timing in timings),
        first.launches,
        first.busy,
    )


@dataclass(frozen=True)
class _Work:
    """Work of one case on an image file. classes: as many as queries."""

    file: Path
    segmenters: list[Segmenter]
    writers: dict[str, ResultWriter]
    classes: int


class Bench:
    """Models with random weights, and the measurements on them.

    model: an open_clip model name or the path of a model-config JSON. batch: windows that go through the tower
    together, in the encoder pass as well.
    """

    def __init__(
        self, config: Config, methods: dict[str, Method], model: str, device: str, dtype: str, batch: int = 4
    ) -> None:
        torch.manual_seed(0)
        self.config = config
        self.methods = methods
        built = random_clip(model).to(device)
        self._stock: Any = built
        self._dtype = DTYPES[dtype]
        if self._dtype != torch.float32:
            self._stock = copy.deepcopy(built)
            self._stock.visual.to(self._dtype)  # all of it, where a run keeps parts in float32
        self.backbone: Backbone = _RandomBackbone(model, built, self._dtype)
        self.upsampler: BilateralUpsampler = JBUOne(self.backbone.dim).eval().requires_grad_(False).to(device)
        self.models = RandomModels(config, methods, device=device, dtype=dtype, tower=self.backbone)
        self.batch = batch

    def measure(self, case: Case, repeats: int, one_by_one: bool = False) -> Timing:
        """Measure encoder and rows alternating, after one round of warming up."""
        on_gpu = self.backbone.device.type == "cuda"
        images = _IN_A_ROW if on_gpu else 1
        with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1) as parts:
            file = Path(folder) / "image.jpg"
            write_noise(file, case.height, case.width)
            segmenters = self.segmenters(case)
            work = _Work(file, segmenters, self._writers(Path(folder), case, images, parts), case.queries)
            together = images_together(segmenters)
            count, windows = self._windows(work, together)
            encoder, rows, shares = [], [], []
            for turn in range(repeats + 1):
                bare = self._seconds(self._encode, windows) / together
                with Stopwatch() as watch:
                    apart = self._seconds(self._run, work, self._decoded(work, together))
                took = apart
                if on_gpu:
                    took = self._seconds(self._run, work, list(self._decoded(work, images))) / images
                if turn:
                    encoder.append(bare)
                    rows.append(took)
                    watch.seconds["other"] = apart - sum(watch.seconds.values())
                    watch.seconds["decode, resize"] *= together  # once for all of them
                    shares.append({name: spent / together for name, spent in watch.seconds.items()})
            timing = Timing(count, statistics.median(encoder), statistics.median(rows))
            timing.shares = {name: statistics.median(share.get(name, 0.0) for share in shares) for name in STAGES}
            if on_gpu:
                timing.launches, timing.busy = self._profiled(work, list(self._decoded(work, images)))
            for row in case.rows if one_by_one else ():
                only = replace(work, segmenters=self.segmenters(replace(case, rows=(row,))))
                each = [self._seconds(self._run, only, self._decoded(only, 1)) for _ in range(repeats + 1)]
                timing.one_by_one[row] = statistics.median(each[1:])
        timing.peak_memory = peak_memory(self.backbone.device)
        return timing

    @torch.inference_mode()
    def measure_upsampler(self, queries: int, rows: int, repeats: int) -> dict[str, float]:
        """Seconds for the pixel scores in one window, from its patch tokens on.

        taps: of one row the straightforward way, a loop over the kernels' taps on all channels, then the norms and
        the products with the text. operator: the operator alone, made strip by strip. scores: operator and scores of
        `rows` rows, as a run does it.
        """
        patch, device = self.backbone.patch_size, self.backbone.device
        side = self.config.protocol.window // patch * patch
        steps, grid = steps_for(patch), (side // patch, side // patch)
        guidance = torch.randn(1, 3, side, side, device=device)
        patches = torch.randn(1, grid[0] * grid[1], self.backbone.dim, device=device)
        text = self._text(queries)

        def taps() -> Tensor:
            features = self.upsampler(patches.mT.reshape(1, -1, *grid), guidance, steps)
            return torch.einsum("qc,bchw->bqhw", text, F.normalize(features, dim=1))

        def operator() -> None:
            window = self.upsampler.operator(guidance, grid, steps)

            def work(strip: Strip) -> None:
                window.rows(strip)

            window.tiles.for_strips(work)

        def scores() -> None:
            window = self.upsampler.operator(guidance, grid, steps)
            upsampled_scores(window, [ScoreRequest(patches, text)] * rows, self.upsampler.projection)

        ways: dict[str, Callable[[], object]] = {"taps": taps, "operator": operator, "scores": scores}
        return {name: statistics.median(self._seconds(way) for _ in range(repeats)) for name, way in ways.items()}

    def upsampled(self, row: str) -> bool:
        """Return whether the row has an upsampler."""
        return self._settings(row).upsampler != "none"

    def segmenters(self, case: Case) -> list[Segmenter]:
        words = [[f"class {number}"] for number in range(case.queries)]
        settings = [self._settings(row) for row in case.rows]
        return build_segmenters(
            [(one, build_row(one, words, self.models)) for one in settings], self.models, self.batch
        )

    def _decoded(self, work: _Work, images: int) -> Iterator[Loaded]:
        """Yield the image as number 0, 1, … of a dataset, decoded once."""
        with stage("decode, resize"):
            image = read_image(work.file)
            sizes = at_sizes(image, {size for segmenter in work.segmenters for size in segmenter.sizes})
        label = regions(image.shape[0], image.shape[1], work.classes)
        for index in range(images):
            yield Loaded(index, str(index), label, sizes)

    def _run(self, work: _Work, images: Iterable[Loaded]) -> None:
        """Images through the rows and onto the disk."""
        pending = {row: set(range(_IN_A_ROW)) for row in work.writers}
        for outcome in evaluate(work.segmenters, images, pending, Scoring(work.classes)):
            if outcome.image.error:
                raise BenchError(f"row '{outcome.row}': {outcome.image.error}")
            with stage("store"):
                work.writers[outcome.row].take(outcome.image)

    def _profiled(self, work: _Work, images: Sequence[Loaded]) -> tuple[float, float]:
        """Kernels per image that a GPU was given, and the seconds that it worked on them."""
        with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as profiler:
            self._seconds(self._run, work, images)
        launches, busy = gpu_work(profiler)
        return launches / len(images), busy / len(images)

    def _writers(self, folder: Path, case: Case, images: int, parts: Executor) -> dict[str, ResultWriter]:
        store = Store(folder)
        ids = [(str(index), None) for index in range(images)]
        names = [f"class {index}" for index in range(case.queries)]
        writers = {row: store.open(ResultSpec(self._settings(row), {}, ids, names, "miou")) for row in case.rows}
        for writer in writers.values():
            writer.background = parts
        return writers

    def _settings(self, row: str) -> Settings:
        chosen = self.config.row(row)
        method = find_method(chosen.method, self.methods)
        settled = self.config.resolve(chosen, method.defaults, {"threshold": 0.0, "background": 0})
        return Settings(row=row, dataset="noise", method=chosen.method, **settled)

    def _text(self, queries: int) -> Tensor:
        generator = torch.Generator().manual_seed(queries)
        return F.normalize(torch.randn(queries, self.backbone.dim, generator=generator), dim=-1).to(
            self.backbone.device
        )

    def _windows(self, work: _Work, images: int) -> tuple[int, Tensor]:
        """Count the windows of an image, at the first row's geometry; and give the stock encoder's, for some images."""
        (loaded,), first = self._decoded(work, 1), work.segmenters[0]
        assert first.resize is not None
        count = len(first.prepared(loaded.images[first.resize]).boxes)
        size = self._stock.visual.image_size
        return count, torch.randn(images * count, 3, *(size if isinstance(size, tuple) else (size, size)))

    @torch.inference_mode()
    def _encode(self, windows: Tensor) -> None:
        for chunk in torch.split(windows.to(self.backbone.device, self._dtype), self.batch):
            self._stock.encode_image(chunk)

    def _seconds(self, work: Callable[..., object], *arguments: Any) -> float:
        started = time.perf_counter()
        work(*arguments)
        wait_for_gpu()
        return time.perf_counter() - started


@dataclass
class RandomModels(ModelCache):
    """Models that cost what the real ones do, with random weights. tower: in place of every CLIP."""

    tower: Backbone | None = None

    def backbone(self, name: str) -> Tower:
        spec = self.config.backbones[name]
        if spec.library == "open_clip":
            return self.tower or self._clip(spec.model)
        if spec.seed is not None:  # drawn anyway, and tiny
            return super().backbone(name)
        if name not in self._backbones:
            self._backbones[name] = random_tower(name, spec, self.device, self.dtype)
        return self._backbones[name]

    def _clip(self, model: str) -> Tower:
        if model not in self._backbones:
            self._backbones[model] = _RandomBackbone(model, random_clip(model).to(self.device), DTYPES[self.dtype])
        return self._backbones[model]

    def _load_upsampler(self, name: str, dim: int) -> tuple[Upsampler, str]:
        return load_upsampler(self.config.upsamplers[name].kind, None, dim, seed=0), ""

    def _load_second(self, name: str) -> SecondModel:
        spec = self.config.models[name]
        if spec.library == "tower":
            return super()._load_second(name)
        return random_second(name, spec, self.device, self.dtype)


class _RandomBackbone(Backbone):
    def __init__(self, name: str, model: nn.Module, dtype: torch.dtype) -> None:
        if dtype != torch.float32:
            lower_precision(cast(Any, model).visual, dtype)
        super().__init__(name, model, None, fingerprint="")

    def encode_prompts(self, prompts: list[str]) -> Tensor:
        return torch.randn(len(prompts), self.dim, device=self.device)  # as good as what random weights give


def write_noise(file: Path, height: int, width: int) -> None:
    """Write a JPEG that compresses about as a photograph does: coarse noise under some fine noise."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), dtype=np.uint8)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    grain = random.integers(0, 12, smooth.shape, dtype=np.uint8)
    cv2.imwrite(str(file), cv2.add(smooth, grain))


def regions(height: int, width: int, classes: int) -> NDArray[np.uint8]:
    """Draw a label map of square regions, as labels have them; one in twenty is ignored."""
    random = np.random.default_rng(1)
    squares = random.integers(0, classes, (height // 64 + 1, width // 64 + 1), dtype=np.uint8)
    squares[random.random(squares.shape) < 0.05] = IGNORED
    label: NDArray[np.uint8] = np.kron(squares, np.ones((64, 64), np.uint8))[:height, :width].copy()
    return label


def cases(
    sizes: Sequence[tuple[int, int]], queries: Sequence[int], rows: Sequence[str], row_counts: Sequence[int]
) -> list[Case]:
    """List the cases to measure.

    Each size at the first number of queries, each other number of queries at the first size, and there the first n rows
    for each of `row_counts`.
    """
    found = [Case(*size, queries[0], tuple(rows)) for size in sizes]
    found += [Case(*sizes[0], count, tuple(rows)) for count in queries[1:]]
    found += [Case(*sizes[0], queries[0], tuple(rows[:count])) for count in row_counts if count < len(rows)]
    return found
