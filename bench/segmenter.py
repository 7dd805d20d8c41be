"""Image -> cosine scores -> label map, for many rows of the benchmark at once.

Rows that share backbone and geometry travel together: normalisation, windows, the trunk's blocks and the
upsampler's operator are computed once for all of them, a method's features once for all of its rows; each row
pays for its scores.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from bench.backbone import Backbone, Features, Trunk
from bench.errors import BenchError
from bench.stages import stage
from bench.upsamplers import Upsampler, scores_from_operator, steps_for
from bench.windows import Box, Canvas, pad_to_multiple, window_boxes


@dataclass(frozen=True)
class Query:
    """One row, ready to be asked about images.

    text: (Q, C) unit embeddings. classes: (Q,) int64, the class of each query. debias: λ of eq. 9, subtracted
    from the scores (released code) or from the upsampled features (the equation as printed).
    """

    name: str
    method: Callable[[Trunk], Features]
    text: Tensor
    classes: Tensor
    upsampler: Upsampler | None = None
    debias: float = 0.0
    debias_on: str = "scores"
    scale: float = 50.0


class Prediction(NamedTuple):
    """Per pixel at the label's size: winning class before any threshold (uint8), and its probability (float32)."""

    classes: NDArray[np.uint8]
    probability: NDArray[np.float32]


class BinnedPrediction(NamedTuple):
    """Per pixel at the label's size: winning class before any threshold, and the bin 0..99 of its probability."""

    classes: NDArray[np.uint8]
    bins: NDArray[np.uint8]


class Segmenter:
    """Scores of several rows on one image.

    queries: rows of one backbone and one geometry. window, stride: pixels of the network's input. batch:
    windows that go through the tower together; it bounds memory and changes no result beyond rounding.
    """

    def __init__(self, backbone: Backbone, queries: Sequence[Query], window: int, stride: int, batch: int = 4) -> None:
        self.backbone = backbone
        self.queries = list(queries)
        self.window = window
        self.stride = stride
        self.batch = batch

    def scores(self, image: NDArray[np.uint8], names: Sequence[str] | None = None) -> dict[str, Tensor | Exception]:
        """Row name -> stitched cosine scores (Q, h, w) float32 on the backbone's device, debiasing included.

        image: RGB uint8 (h, w, 3) at the network's input size. names: only these rows. A row that raises has
        its exception in place of scores, and the others go on. Where memory runs out the batch is halved, for
        good.
        """
        while True:
            try:
                return self._scores(image, names)
            except _BatchTooLarge:
                self.batch //= 2
                warnings.warn(
                    f"out of memory on {self.backbone.device}; going on with --batch {self.batch}", stacklevel=2
                )
                torch.cuda.empty_cache()

    @torch.inference_mode()
    def window_scores(self, images: Tensor, query: Query) -> Tensor:
        """(B, Q, h, w) scores of equal windows, uint8 (B, h, w, 3), of one row; not stitched."""
        windows = torch.stack([self.backbone.normalise(image) for image in images])
        try:
            return _Batch(self.backbone, windows).scores(query)
        except Exception as error:
            if _is_out_of_memory(error):
                raise BenchError(f"out of memory on {self.backbone.device}; use a smaller --batch") from error
            raise

    @torch.inference_mode()
    def _scores(self, image: NDArray[np.uint8], names: Sequence[str] | None) -> dict[str, Tensor | Exception]:
        pixels = self.backbone.normalise(torch.from_numpy(image))  # (3, h, w)
        height, width = pixels.shape[1:]
        asked = [query for query in self.queries if names is None or query.name in names]
        canvases = {q.name: Canvas(len(q.classes), height, width, pixels.device) for q in asked}
        failures: dict[str, Exception] = {}
        boxes = window_boxes(height, width, self.window, self.stride)
        for start in range(0, len(boxes), self.batch):
            chunk = boxes[start : start + self.batch]
            windows = torch.stack([pixels[:, b.top : b.bottom, b.left : b.right] for b in chunk])
            shared = _Batch(self.backbone, windows)
            for query in asked:
                if query.name in failures:
                    continue
                try:
                    scores = shared.scores(query)
                    with stage("stitching"):
                        for box, window in zip(chunk, scores, strict=True):
                            canvases[query.name].add(box, window)
                except Exception as error:  # a plug-in may raise anything
                    if _is_out_of_memory(error) and self.batch > 1:
                        raise _BatchTooLarge from error
                    failures[query.name] = error
        return {name: failures.get(name) or canvas.mean() for name, canvas in canvases.items()}


class _BatchTooLarge(Exception):
    """Memory ran out with more than one window in the batch."""


def _is_out_of_memory(error: Exception) -> bool:
    """Whether an allocation failed, on a GPU or on the CPU."""
    on_cpu = isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    return on_cpu or isinstance(error, torch.cuda.OutOfMemoryError | MemoryError)


@dataclass
class _Batch:
    """A batch of equal windows (B, 3, h, w), normalised, and what the rows share of it."""

    backbone: Backbone
    windows: Tensor
    padded: Tensor = field(init=False)
    inside: Box = field(init=False)
    trunk: Trunk = field(init=False)
    _features: dict[Hashable, Features] = field(init=False, default_factory=dict)
    _operators: dict[int, Tensor] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.padded, self.inside = pad_to_multiple(self.windows, self.backbone.patch_size)
        self.trunk = self.backbone.trunk(self.padded)

    def scores(self, query: Query) -> Tensor:
        """(B, Q, h, w) cosine scores of the windows, debiased."""
        own: Any = getattr(query.method, "scores", None)
        if own is None:
            scores = self._from_features(query)
        else:
            with stage("tails"):
                scores = own(self.trunk, query.text)
        inside = self.inside
        return scores[..., inside.top : inside.bottom, inside.left : inside.right]

    def _from_features(self, query: Query) -> Tensor:
        features = self._features_of(query.method)
        if query.debias and features.cls is None:
            raise BenchError(
                f"row '{query.name}': its method gives no CLS token, so debias must be 0 (it is {query.debias})"
            )
        shift = -query.debias * features.cls if query.debias and features.cls is not None else None  # (B, C)
        on_features = shift if query.debias_on == "features" else None
        with stage("scores"):
            way = self._upsampled if query.upsampler else self._plain
            scores = way(query, features, on_features)
        if shift is not None and on_features is None and features.cls is not None:
            # Patches and CLS are normalised apart; λ times the CLS's own cosine is subtracted at every pixel.
            scores -= query.debias * (F.normalize(features.cls, dim=-1) @ query.text.T)[..., None, None]
        return scores

    def _features_of(self, method: Callable[[Trunk], Features]) -> Features:
        key = _identity(method)
        if key not in self._features:
            with stage("tails"):
                self._features[key] = method(self.trunk)
        return self._features[key]

    def _plain(self, query: Query, features: Features, shift: Tensor | None) -> Tensor:
        """Cosine at the patches, enlarged bilinearly to the window."""
        patches = features.patches if shift is None else features.patches + shift[:, None]
        scores = F.normalize(patches, dim=-1) @ query.text.T  # (B, hw, Q)
        return self._to_window(scores, self.trunk.grid)

    def _upsampled(self, query: Query, features: Features, shift: Tensor | None) -> Tensor:
        """Cosine of the upsampler's pixel features."""
        upsampler = query.upsampler
        assert upsampler is not None
        steps = steps_for(self.backbone.patch_size)
        h, w = self.trunk.grid
        if id(upsampler) not in self._operators:
            with stage("operator"):
                self._operators[id(upsampler)] = upsampler.operator(self.padded, (h, w), steps)
        operator = self._operators[id(upsampler)]
        scores = scores_from_operator(operator, features.patches, upsampler.projection, query.text, shift)  # (B, P, Q)
        return self._to_window(scores, (h << steps, w << steps))

    def _to_window(self, scores: Tensor, grid: tuple[int, int]) -> Tensor:
        """(B, h*w, Q) -> (B, Q, H, W) at the padded window's size; bilinear where the sizes differ."""
        maps = scores.mT.reshape(len(scores), -1, *grid)
        size = tuple(self.padded.shape[-2:])
        return maps if grid == size else F.interpolate(maps.contiguous(), size=size, mode="bilinear")


def _identity(method: Callable[[Trunk], Features]) -> Hashable:
    """Equal for methods that compute the same: one function with the same options, as in `sclip` and `sclip+ours`."""
    if isinstance(method, functools.partial):
        return method.func, repr(sorted(method.keywords.items()))
    return method


@torch.inference_mode()
def classify(scores: Tensor, size: tuple[int, int], classes: Tensor, scale: float) -> Prediction:
    """Winning class and its probability for each pixel at the original size.

    scores: (Q, h, w). size: (H, W). classes: (Q,) class of each query. The scores are resized bilinearly,
    multiplied by `scale` and passed through a softmax over all queries; a class is as probable as its best
    query, and not renormalised.
    """
    with stage("post-processing"):
        strips = [
            (winner.cpu(), probability.cpu()) for winner, probability in _classified(scores, size, classes, scale)
        ]
        winners, probabilities = (torch.cat(parts).numpy() for parts in zip(*strips, strict=True))
        return Prediction(winners, probabilities)


@torch.inference_mode()
def classify_binned(scores: Tensor, size: tuple[int, int], classes: Tensor, scale: float) -> BinnedPrediction:
    """What `classify` finds, with `bench.metrics.probability_bin` of the probability in its place."""
    with stage("post-processing"):
        strips = [
            torch.stack([winner, probability_bin(probability)]).cpu()
            for winner, probability in _classified(scores, size, classes, scale)
        ]
        winners, bins = torch.cat(strips, dim=1).numpy()
        return BinnedPrediction(winners, bins)


def apply_threshold(prediction: Prediction, threshold: float, background: int) -> NDArray[np.uint8]:
    """Label map (H, W): pixels whose best probability is strictly below `threshold` become `background`."""
    uncertain = prediction.probability < np.float32(threshold)
    return np.where(uncertain, np.uint8(background), prediction.classes)


def probability_bin(probability: Tensor) -> Tensor:
    """`bench.metrics.probability_bin` for a tensor on any device: float32 -> uint8."""
    guess = (probability * 100).floor_()
    # In float32 k / 100 is float32(k / 100) for each k here, so these comparisons are with the edges themselves.
    guess -= (probability < guess / 100).float()
    guess += (probability >= (guess + 1) / 100).float()
    return guess.clamp_(max=99).to(torch.uint8)


def _classified(
    scores: Tensor, size: tuple[int, int], classes: Tensor, scale: float
) -> Iterator[tuple[Tensor, Tensor]]:
    """Strips (rows, W) of winning class (uint8) and probability (float32), from top to bottom."""
    queries = len(scores)
    small = torch.uint8 if queries < 256 else torch.int16
    rank = torch.arange(queries, 0, -1, device=scores.device).to(small)[:, None, None]
    class_of_rank = F.pad(classes.to(scores.device, torch.uint8).flip(0), (1, 0))  # ranks start at 1
    for strip in _resized_strips(scores * scale, size):
        best = strip.amax(dim=0)
        # The first query that reaches the maximum. Comparing costs a fifth of torch's own argmax over dim 0.
        winner = ((strip == best) * rank).amax(dim=0)
        total = strip.sub_(best).exp_().sum(dim=0)  # of the softmax whose winner has weight 1
        yield class_of_rank.index_select(0, winner.flatten().int()).view_as(winner), total.reciprocal_()


def _resized_strips(scores: Tensor, size: tuple[int, int], values: int = 1 << 19) -> Iterator[Tensor]:
    """(Q, rows, W) strips of the bilinearly resized scores, of about `values` numbers each, so that they stay
    in cache. They may be written to.

    The same arithmetic for every pixel, whatever the strips: rows are blended first, columns within them.
    """
    queries, height, width = scores.shape
    out_height, out_width = size
    rows = max(1, values // (queries * max(out_width, width)))
    position = ((torch.arange(out_height, device=scores.device) + 0.5) * (height / out_height) - 0.5).clamp_(min=0)
    upper = position.long().clamp_(max=height - 1)
    lower = (upper + 1).clamp_(max=height - 1)
    weight = (position - upper)[:, None]  # (H, 1)
    for start in range(0, out_height, rows):
        strip = slice(start, start + rows)
        above, below = (scores.index_select(1, neighbours[strip]) for neighbours in (upper, lower))
        blended = torch.lerp(above, below, weight[strip])
        lines = blended.flatten(0, 1)
        yield (lines if out_width == width else _widened(lines, out_width)).view(queries, -1, out_width)


def _widened(lines: Tensor, width: int) -> Tensor:
    """Each line (n, w) resized linearly to `width`."""
    if lines.device.type == "cpu":  # OpenCV takes half the time that torch's linear mode takes, a third of its bilinear
        return torch.from_numpy(cv2.resize(lines.numpy(), (width, len(lines)), interpolation=cv2.INTER_LINEAR))
    return F.interpolate(lines[None, None], size=(len(lines), width), mode="bilinear")[0, 0]
