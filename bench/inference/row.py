"""One row of the benchmark, from windows to a label map: every rule of the row acts here and nowhere else."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from bench.errors import BenchError, SharedStateLost
from bench.inference.postprocess import BinnedPrediction, class_probabilities, classify_binned, pixel_histograms
from bench.metrics import first_kept_bin
from bench.models.backbone import Features, Trunk
from bench.models.second import SecondModel
from bench.models.tower import Windows
from bench.models.upsamplers import ScoreRequest, Upsampler
from bench.runtime.device import to_host
from bench.runtime.process_state import foreign_call
from bench.runtime.shared_tensors import SharedTensors, SharedWeights
from bench.runtime.timing import stage
from bench.settings import BEST_WORD, AntialiasedResize, Join, ResizeRule

Found: TypeAlias = Features | Tensor
"""Features of a batch of windows, or the scores (B, Q, h, w) of a method that makes its own."""


@dataclass(frozen=True)
class Row:
    """A method with its words and models, ready for images; made by `bench.evaluation.models.build_row`."""

    name: str
    method: Callable[[Trunk], Features]
    text: Tensor
    """Unit embeddings (Q, C) of the queries."""
    classes: Tensor
    """Class of each query, (Q,) int64."""
    upsampler: Upsampler | None = None
    debias: float = 0.0
    """λ of eq. 9."""
    debias_on: str = "scores"
    """Where λ is subtracted: "scores" (released code) or upsampled "features" (the equation as printed)."""
    scale: float = 50.0
    """Factor of the scores before the softmax; 0: they are probabilities."""
    takes_text: bool = False
    """Whether the method's features depend on the words."""
    refine: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None
    """(image (3, h, w), scores (Q, h, w), text) -> scores of the whole image."""
    refine_original: bool = False
    """Whether image and scores are enlarged to the original's size before they are refined."""
    reach: int | None = None
    """Pixels beyond which `refine` looks at nothing; None: it needs the whole image."""
    models: Mapping[str, SecondModel] = field(default_factory=dict)
    """Second models by role."""
    join: Join = BEST_WORD
    """How the queries of a class make its probability, see `bench.inference.postprocess.classify`."""
    threshold: float = 0.0
    """Pixels less probable become `background`; in hundredths."""
    background: int = 0
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Hashes of all that went into the row: weights, words, plug-in …"""
    words: SharedTensors = field(default_factory=SharedTensors)
    """`text`, which is to stay as it is."""
    weights: Sequence[SharedWeights] = ()
    """Weights of all its models, which are to stay as they are."""
    time_limit: float | None = None
    """Seconds that a call of the method or of another plug-in of the row may take."""

    @property
    def collects(self) -> bool:
        """True where its method sees all windows of an image before it gives scores."""
        return hasattr(self.method, "collect")

    @property
    def makes_scores(self) -> bool:
        """True where its method gives scores of windows instead of features."""
        return getattr(self.method, "scores", None) is not None

    @property
    def needs_whole_image(self) -> bool:
        """True where its scores are not those of its windows put together."""
        return self.refine is not None or self.collects

    @property
    def works_in_parts(self) -> bool:
        """True where its scores can be made strip by strip."""
        return not self.collects and (self.refine is None or self.reach is not None)

    @property
    def enlarged_at_once(self) -> bool:
        """True where a collector's scores of the whole image are enlarged once, to the original's size."""
        return self.refine is None and getattr(self.method, "enlarged_at_once", False)

    def multiple(self, stride: int) -> int:
        """Return the number to whose multiples its method has the network's input stretched; 1 for none.

        stride: of its windows.
        """
        own = getattr(self.method, "multiple", 1)
        return stride if own == "stride" else int(own)

    @property
    def whole(self) -> ResizeRule | None:
        """Size at which its method wants the whole image besides its windows."""
        side: int | None = getattr(self.method, "whole_image", None)
        multiple = getattr(self.method, "multiple", 1)
        return None if side is None else AntialiasedResize(long_side=side, multiple=multiple)

    @property
    def identity(self) -> Hashable:
        """Equal for rows whose methods compute the same: one function, equal options and models, as in `sclip+ours`."""
        method: Any = self.method
        models = tuple(sorted((role, model.name) for role, model in self.models.items()))
        if isinstance(method, functools.partial):
            return method.func, repr(sorted(method.keywords.items())), models
        return getattr(method, "same_as", method), models

    @property
    def feature_key(self) -> Hashable:
        """Equal for rows that may share what `features` gives."""
        return self.identity, id(self.text) if self.takes_text or self.makes_scores else None

    @contextlib.contextmanager
    def guarded(self, trunk: Windows | None = None, closely: bool = False) -> Iterator[None]:
        """Call a plug-in of the row: BenchError where it changes what others share, which is then put back.

        trunk: the tower on the windows that it is asked about.
        closely: see `SharedTensors.changed`; on a CPU the tensors of a trunk are always looked at closely.

        SharedStateLost where it changed weights, which cannot be put back.
        """
        try:
            with foreign_call(self.time_limit):
                yield
        finally:
            on_cpu = self.text.device.type == "cpu"
            weights = next((name for one in self.weights if (name := one.changed(closely))), None)
            changed = weights or self.words.changed(closely or on_cpu)
            if trunk is not None and (of_trunk := trunk.changed(closely or on_cpu)):
                trunk.renew()
                changed = changed or of_trunk
            if changed:
                kind = SharedStateLost if weights else BenchError
                raise kind(
                    f"row '{self.name}' changed {changed} in place, which other rows share; write k = 2 * k, not k *= 2"
                )

    def features(self, trunk: Windows, closely: bool = False) -> Found:
        """Ask the method about a batch of windows.

        trunk: the tower on the windows, padded to (B, 3, H, W).
        closely: as of `guarded`.
        """
        trunk = trunk.having(self.models)
        method: Any = self.method
        with self.guarded(trunk, closely):
            if self.makes_scores:
                found = method.scores(trunk, self.text)
            else:
                found = method(trunk, text=self.text) if self.takes_text else method(trunk)
        return found  # type: ignore[no-any-return]

    def request(self, features: Features) -> ScoreRequest:
        """Return the row's request to its upsampler for these features; BenchError for λ without CLS."""
        if self.debias and features.cls is None:
            raise BenchError(
                f"row '{self.name}': its method gives no CLS token, so debias must be 0 (it is {self.debias})"
            )
        shift = None
        if self.debias and self.debias_on == "features" and features.cls is not None:
            shift = -self.debias * features.cls
        return ScoreRequest(features.patches, self.text, shift)

    def scores(self, found: Found, trunk: Windows, at_pixels: Tensor | None = None) -> Tensor:
        """Cosine scores (B, Q, H, W) at the size of the padded windows, debiased.

        found: what `features` gave.
        trunk: the tower on the windows.
        at_pixels: (B, h, w, Q) that the row's upsampler made of `request`; None for a row without one.
        """
        size = tuple(trunk.images.shape[-2:])
        if isinstance(found, Tensor):
            return _enlarged(found, size)
        request = self.request(found)
        if at_pixels is None:
            at_pixels = request.at_pixels(request.patches)  # (B, h·w, Q)
            at_pixels = at_pixels.view(len(at_pixels), *(found.grid or trunk.grid), -1)
        scores = _enlarged(at_pixels.movedim(3, 1), size)
        if self.debias and self.debias_on == "scores" and found.cls is not None:
            # Patches and CLS are normalised apart; λ times the CLS's own cosine is subtracted at every pixel.
            scores = scores - self.debias * (F.normalize(found.cls, dim=-1) @ self.text.T)[..., None, None]
        return scores

    def refined(self, scores: Tensor, pixels: Tensor, size: tuple[int, int] | None) -> Tensor:
        """Refine the stitched scores (Q, h, w) of an image: in place, or in a copy at the original's size.

        pixels: the image (3, h, w), normalised.
        size: (H, W) of the original, at which a row with `refine_original` has its scores; None: at the network's.
        """
        if self.refine is None:
            return scores
        if self.refine_original and size is not None:
            pixels, scores = (F.interpolate(x[None], size=size, mode="bilinear")[0] for x in (pixels, scores))
        with stage("refinement"), self.guarded():
            refined = self.refine(pixels.clone(), scores.clone(), self.text)
        if refined.shape != scores.shape:
            raise BenchError(f"its refinement gives {tuple(refined.shape)}, not {tuple(scores.shape)}")
        return scores.copy_(refined)

    def winners(self, scores: Tensor, size: tuple[int, int]) -> BinnedPrediction:
        """Winning class of each pixel before the threshold, and the bin of its probability, (H, W) = `size`.

        scores: (Q, h, w), refined.
        """
        return classify_binned(scores, size, self.classes, self.scale, self.join)

    def thresholded(self, winners: BinnedPrediction) -> NDArray[np.uint8]:
        """Label map (H, W) of winners: less probable pixels become background."""
        return np.where(winners.bins < first_kept_bin(self.threshold), np.uint8(self.background), winners.classes)

    def probabilities(self, scores: Tensor, size: tuple[int, int]) -> NDArray[np.float32]:
        """Probability of every class of each pixel, before the threshold, (K, H, W) with (H, W) = `size`.

        scores: (Q, h, w), refined.
        """
        return class_probabilities(scores, size, self.classes, self.scale, self.join)

    def label_map(self, scores: Tensor, size: tuple[int, int]) -> NDArray[np.uint8]:
        """Label map (H, W) = `size` of refined scores (Q, h, w), as a run counts it."""
        return self.thresholded(self.winners(scores, size))


def check_weights(rows: Sequence[Row]) -> Callable[[], None]:
    """Start to look closely at the weights behind rows that have seen an image, without waiting for the device.

    What is returned ends it, to be called before the image is counted: SharedStateLost where a row changed weights in a
    way that torch does not count.
    """
    behind = {id(one): one for row in rows for one in row.weights}.values()
    differing = [(weights, to_host(weights.differs())) for weights in behind]

    def end() -> None:
        for weights, differs in differing:
            if differs():
                names = ", ".join(f"'{row.name}'" for row in rows if weights in row.weights)
                raise SharedStateLost(
                    f"one of the rows {names} changed {weights.changed(closely=True)} in place, which all of them "
                    "share; run them one by one to find which, and leave weights as they are"
                )

    return end


def histograms(rows: Sequence[Row], scores: Tensor, label: Tensor, count: int) -> Tensor:
    """Count the winners of rows that all take the best query of a class and give one kind of scores, on their device.

    scores: (R, Q, h, w).
    label: (H, W) uint8 on the same device.
    count: number of classes K.
    Returns (R, (K + 1) · K · 100) int32; nothing here waits for the device.
    """
    classes = torch.stack([row.classes for row in rows])
    scales = _scales(tuple(row.scale for row in rows), scores.device) if rows[0].scale else None
    return pixel_histograms(scores, classes, scales, label, count)


@functools.lru_cache
def _scales(scales: tuple[float, ...], device: torch.device) -> Tensor:
    return torch.tensor(scales, device=device)


def _enlarged(maps: Tensor, size: tuple[int, ...]) -> Tensor:
    """Resize maps (B, Q, h, w) bilinearly, unless they have that size."""
    return maps if maps.shape[2:] == size else F.interpolate(maps.contiguous(), size=size, mode="bilinear")
