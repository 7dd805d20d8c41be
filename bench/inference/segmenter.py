"""Image -> cosine scores, for many rows of the benchmark at once.

Rows that share backbone and geometry travel together: normalisation, windows, the trunk's blocks and the
upsampler's operator are computed once for all of them, a method's features once for all of its rows; each row
pays for its scores.
"""

from __future__ import annotations

import contextlib
import functools
import math
import warnings
from collections.abc import Callable, Container, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from bench.data.images import Resize
from bench.errors import BenchError
from bench.inference.windows import Canvas, pad_to_multiple, padded_size, window_boxes
from bench.models.backbone import Backbone, Features, Trunk
from bench.models.collector import Box, Collector, WholeImage
from bench.models.second import SecondModel, SecondTrunk
from bench.models.upsamplers import ScoreRequest, Upsampler
from bench.runtime.device import is_out_of_memory, to_device
from bench.runtime.threads import in_threads
from bench.runtime.timing import stage
from bench.settings import Aggregate

Images: TypeAlias = Mapping[Resize, NDArray[np.uint8]]


@dataclass(frozen=True)
class Variant:
    """One row, ready to be asked about images.

    text: (Q, C) unit embeddings. classes: (Q,) int64, the class of each query. debias: λ of eq. 9, subtracted
    from the scores (released code) or from the upsampled features (the equation as printed). takes_text: the method's
    features depend on the words. refine: (image (3, h, w), scores (Q, h, w), text) -> scores, of the whole image;
    refine_original: both enlarged to the original's size first. models: second models by role.
    aggregate: of a class's words, see `bench.inference.postprocess.classify`.
    """

    name: str
    method: Callable[[Trunk], Features]
    text: Tensor
    classes: Tensor
    upsampler: Upsampler | None = None
    debias: float = 0.0
    debias_on: str = "scores"
    scale: float = 50.0
    takes_text: bool = False
    refine: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None
    refine_original: bool = False
    models: Mapping[str, SecondModel] = field(default_factory=dict)
    aggregate: Aggregate = "max"

    @property
    def collects(self) -> bool:
        """Whether its method sees all windows of an image before it gives scores."""
        return hasattr(self.method, "collect")

    @property
    def whole(self) -> Resize | None:
        """The size at which its method wants the whole image besides its windows."""
        side: int | None = getattr(self.method, "whole_image", None)
        return None if side is None else Resize(long_side=side, filter="pillow")


class Segmenter:
    """Scores of several rows on one image.

    variants: rows of one backbone and one geometry. window, stride: pixels of the network's input. batch:
    windows that go through the tower together; it bounds memory and changes no result beyond rounding.
    """

    def __init__(
        self, backbone: Backbone, variants: Sequence[Variant], window: int, stride: int, batch: int = 4
    ) -> None:
        self.backbone = backbone
        self.variants = list(variants)
        self.window = window
        self.stride = stride
        self.batch = batch
        self._looked_at: set[Hashable] = set()  # methods whose first windows were checked

    @property
    def rules(self) -> tuple[Resize, ...]:
        """Further sizes of the image that rows ask for, see `Variant.whole`."""
        return tuple(dict.fromkeys(rule for variant in self.variants if (rule := variant.whole) is not None))

    def scores(
        self,
        image: NDArray[np.uint8],
        names: Sequence[str] | None = None,
        size: tuple[int, int] | None = None,
        larger: Images = MappingProxyType({}),
    ) -> dict[str, Tensor | Exception]:
        """Row name -> stitched cosine scores (Q, h, w) float32 on the backbone's device, debiasing included.

        image: RGB uint8 (h, w, 3) at the network's input size. size: height and width of the original, at which the
        scores of rows that are refined there are. names: only these rows. larger: the image by each of `rules`. A
        row that raises has its exception in place of scores, and the others go on. Where memory runs out the batch
        is halved, for good.
        """
        stitched, failures = self.stitched(image, names, size, larger)
        found: dict[str, Tensor | Exception] = {
            variant.name: scores
            for group in stitched
            for variant, scores in zip(group.variants, group.scores, strict=True)
        }
        return {variant.name: (found | failures)[variant.name] for variant in self._asked(names)}

    def stitched(
        self,
        image: NDArray[np.uint8],
        names: Sequence[str] | None = None,
        size: tuple[int, int] | None = None,
        larger: Images = MappingProxyType({}),
    ) -> tuple[list[Stitched], dict[str, Exception]]:
        """What `scores` gives, with the rows of one number of queries in one tensor, and the exceptions apart."""
        while True:
            try:
                return self._stitched(image, names, size, larger)
            except _BatchTooLarge:
                self.batch //= 2
                warnings.warn(
                    f"out of memory on {self.backbone.device}; going on with --batch {self.batch}", stacklevel=2
                )
                torch.cuda.empty_cache()

    @torch.inference_mode()
    def window_scores(self, images: Tensor, variant: Variant) -> Tensor:
        """(B, Q, h, w) scores of equal windows, uint8 (B, h, w, 3), of one row; not stitched."""
        windows = torch.stack([self.backbone.normalise(image) for image in images])
        try:
            return _batches(self.backbone, windows, [variant])[variant.name].scores(variant)
        except Exception as error:
            if is_out_of_memory(error):
                raise BenchError(f"out of memory on {self.backbone.device}; use a smaller --batch") from error
            raise

    def _asked(self, names: Sequence[str] | None) -> list[Variant]:
        return [variant for variant in self.variants if names is None or variant.name in names]

    @torch.inference_mode()
    def _stitched(
        self, image: NDArray[np.uint8], names: Sequence[str] | None, size: tuple[int, int] | None, larger: Images
    ) -> tuple[list[Stitched], dict[str, Exception]]:
        pixels = self.backbone.normalise(to_device(image, self.backbone.device))  # (3, h, w)
        height, width = pixels.shape[1:]
        boxes = window_boxes(height, width, self.window, self.stride)
        failures: dict[str, Exception] = {}
        collectors: dict[str, Collector] = {}
        groups: dict[int, list[Variant]] = {}  # of the rows whose windows are stitched as they come
        images: dict[str, WholeImage] = {}
        seconds: dict[str, SecondTrunk] = {}
        for variant in self._asked(names):
            if variant.collects:
                with self._noting(variant, failures):
                    images[variant.name] = _whole_image(self.backbone, variant, pixels, boxes, larger, seconds)
                    collectors[variant.name] = variant.method.collect(images[variant.name])  # type: ignore[attr-defined]
            else:
                groups.setdefault(len(variant.classes), []).append(variant)
        collecting = [variant for variant in self._asked(names) if variant.name in collectors]
        canvases = {q: Canvas((len(rows), q), height, width, pixels.device) for q, rows in groups.items()}
        for start in range(0, len(boxes), self.batch):
            chunk = boxes[start : start + self.batch]
            windows = torch.stack([pixels[:, b.top : b.bottom, b.left : b.right] for b in chunk])
            rows = [*(variant for rows in groups.values() for variant in rows), *collecting]
            shared = _batches(self.backbone, windows, [variant for variant in rows if variant.name not in failures])
            for queries, rows in groups.items():
                maps = [self._of_windows(shared.get(variant.name), windows, variant, failures) for variant in rows]
                with stage("stitching"):
                    for box, scores in zip(chunk, zip(*maps, strict=True), strict=True):
                        canvases[queries].add(box, scores)
            for variant in collecting:
                if variant.name not in failures:
                    with self._noting(variant, failures), stage("last block"):
                        look = _identity(variant) not in self._looked_at
                        self._looked_at.add(_identity(variant))
                        shared[variant.name].collect(variant, collectors[variant.name], chunk, look)
        found: list[tuple[list[Variant], Tensor]] = [
            (rows, canvases[queries].mean()) for queries, rows in groups.items()
        ]
        for variant in collecting:
            if variant.name not in failures:
                with self._noting(variant, failures), stage("scores"):
                    own = collectors[variant.name].scores(variant.text)
                    found.append(([variant], _of_image(own, variant, images[variant.name])[None]))
        return [part for rows, mean in found for part in self._refined(rows, mean, pixels, size, failures)], failures

    def _refined(
        self,
        rows: list[Variant],
        mean: Tensor,
        pixels: Tensor,
        size: tuple[int, int] | None,
        failures: dict[str, Exception],
    ) -> list[Stitched]:
        """The stitched scores (R, Q, h, w) of rows after their refinements, those at the original's size apart."""
        large = []
        for number, variant in enumerate(rows):
            if variant.refine is None or variant.name in failures:
                continue
            if variant.refine_original and size is not None:
                guide, own = (F.interpolate(x[None], size=size, mode="bilinear")[0] for x in (pixels, mean[number]))
                self._refine(variant, guide, own, failures)
                large.append(Stitched([variant], own[None]).without(failures))
            else:
                self._refine(variant, pixels, mean[number], failures)
        apart = {one.name for of_original in large for one in of_original.variants}
        return [Stitched(rows, mean).without({*failures, *apart}), *large]

    def _refine(self, variant: Variant, pixels: Tensor, scores: Tensor, failures: dict[str, Exception]) -> None:
        """Replaces the stitched scores (Q, h, w) of one row by the refined ones."""
        assert variant.refine is not None
        try:
            with stage("refinement"):
                refined = variant.refine(pixels, scores.clone(), variant.text)
            if refined.shape != scores.shape:
                raise BenchError(f"its refinement gives {tuple(refined.shape)}, not {tuple(scores.shape)}")
            scores.copy_(refined)
        except Exception as error:  # a plug-in may raise anything
            failures[variant.name] = error

    def _of_windows(
        self, shared: _Batch | None, windows: Tensor, variant: Variant, failures: dict[str, Exception]
    ) -> Tensor:
        """(B, Q, h, w) scores of one row; zeros where it raises, which is noted, or has raised before."""
        wanted = (len(windows), len(variant.classes), *windows.shape[2:])
        if shared is not None and variant.name not in failures:
            with self._noting(variant, failures):
                if (method := _identity(variant)) not in self._looked_at:
                    self._looked_at.add(method)
                    shared.look_at(variant)
                scores = shared.scores(variant)
                if scores.shape == wanted and scores.device == windows.device:
                    return scores.float()
                raise BenchError(
                    f"its scores are {tuple(scores.shape)} on {scores.device}, not {wanted} on {windows.device}"
                )
        return windows.new_zeros(wanted)

    @contextlib.contextmanager
    def _noting(self, variant: Variant, failures: dict[str, Exception]) -> Iterator[None]:
        """What a row raises is noted as its failure; where memory ran out, a smaller batch may help instead."""
        try:
            yield
        except Exception as error:  # a plug-in may raise anything
            if is_out_of_memory(error) and self.batch > 1:
                raise _BatchTooLarge from error
            failures[variant.name] = error


@dataclass(frozen=True, eq=False)
class Stitched:
    """Scores (R, Q, h, w) of the R rows that have Q queries."""

    variants: list[Variant]
    scores: Tensor

    def without(self, failed: Container[str]) -> Stitched:
        """Only the rows whose names are not among `failed`."""
        kept = [number for number, variant in enumerate(self.variants) if variant.name not in failed]
        if len(kept) == len(self.variants):
            return self
        return Stitched([self.variants[number] for number in kept], self.scores[kept])


class _BatchTooLarge(Exception):
    """Memory ran out with more than one window in the batch."""


def _whole_image(
    backbone: Backbone,
    variant: Variant,
    pixels: Tensor,
    boxes: Sequence[Box],
    larger: Images,
    seconds: dict[str, SecondTrunk],
) -> WholeImage:
    large = None
    if variant.whole is not None:
        if variant.whole not in larger:
            raise BenchError(
                f"row '{variant.name}' needs the whole image with a long side of {variant.whole.long_side}"
            )
        large = to_device(larger[variant.whole], pixels.device).permute(2, 0, 1)[None].float() / 255
    first, size = boxes[0], (pixels.shape[1], pixels.shape[2])
    multiple = _multiple(backbone, variant, first.bottom - first.top, first.right - first.left)
    stitch = functools.partial(_stitch, boxes, size, multiple)
    return WholeImage(pixels, boxes, backbone.patch_size, large, variant.models, stitch, seconds)


def _of_image(scores: Tensor, variant: Variant, image: WholeImage) -> Tensor:
    """A collector's scores at the network's size, (Q, h, w): those of windows stitched, others enlarged."""
    if isinstance(scores, Tensor) and scores.dim() == 3:
        check_scores(scores[None], 1, len(variant.classes))
        return F.interpolate(scores[None].float(), size=image.size, mode="bilinear")[0]
    check_scores(scores, len(image.boxes), len(variant.classes))
    return image.stitch(scores.float())


def _stitch(boxes: Sequence[Box], size: tuple[int, int], multiple: int, scores: Tensor) -> Tensor:
    """Scores (W, Q, h, w) of padded windows -> (Q, H, W) of the image."""
    canvas = Canvas((scores.shape[1],), *size, scores.device)
    for box, own in zip(boxes, scores, strict=True):
        height, width, inside = padded_size(box.bottom - box.top, box.right - box.left, multiple)
        whole = F.interpolate(own[None], size=(height, width), mode="bilinear")[0]
        canvas.add(box, whole[:, inside.top : inside.bottom, inside.left : inside.right])
    return canvas.mean()


def _multiple(backbone: Backbone, variant: Variant, height: int, width: int) -> int:
    """Of which a window's sides have to be multiples for the tower and the row's second models."""
    sizes = [model.patch_size for model in variant.models.values() if model.side is None]
    multiple = math.lcm(backbone.patch_size, *sizes)
    return backbone.patch_size if height % multiple == 0 and width % multiple == 0 else multiple


def _batches(backbone: Backbone, windows: Tensor, variants: Sequence[Variant]) -> dict[str, _Batch]:
    """Row name -> what it shares with others; rows whose second model needs wider padding do so among themselves."""
    by_multiple: dict[int, list[Variant]] = {}
    for variant in variants:
        by_multiple.setdefault(_multiple(backbone, variant, *windows.shape[2:]), []).append(variant)
    found: dict[str, _Batch] = {}
    for multiple, rows in by_multiple.items():
        found |= dict.fromkeys((variant.name for variant in rows), _Batch(backbone, windows, rows, multiple))
    return found


@dataclass
class _Batch:
    """A batch of equal windows (B, 3, h, w), normalised, and what the rows that ask share of it."""

    backbone: Backbone
    windows: Tensor
    variants: Sequence[Variant]
    multiple: int
    padded: Tensor = field(init=False)
    inside: Box = field(init=False)
    trunk: Trunk = field(init=False)
    _features: dict[Hashable, Features] = field(init=False, default_factory=dict)
    _upsampled: dict[str, Tensor] = field(init=False, default_factory=dict)  # variant -> (B, Q, H, W), until it asks

    def __post_init__(self) -> None:
        self.padded, self.inside = pad_to_multiple(self.windows, self.multiple)
        self.trunk = self.backbone.trunk(self.padded)

    def scores(self, variant: Variant) -> Tensor:
        """(B, Q, h, w) cosine scores of the windows, debiased."""
        if _has_own_scores(variant):
            with stage("last block"):
                own: Tensor = variant.method.scores(self._trunk_of(variant), variant.text)  # type: ignore[attr-defined]
            scores = self._to_window(own.movedim(1, 3))
        else:
            scores = self._from_features(variant)
        inside = self.inside
        return scores[..., inside.top : inside.bottom, inside.left : inside.right]

    def _from_features(self, variant: Variant) -> Tensor:
        features = self._features_of(variant)
        if variant.upsampler is None:
            with stage("scores"):
                scores = self._plain(variant, features)
        else:
            if variant.name not in self._upsampled:
                self._upsample_together(variant.upsampler)
            scores = self._upsampled.pop(variant.name)
        if variant.debias and variant.debias_on == "scores" and features.cls is not None:
            # Patches and CLS are normalised apart; λ times the CLS's own cosine is subtracted at every pixel.
            scores = scores - variant.debias * (F.normalize(features.cls, dim=-1) @ variant.text.T)[..., None, None]
        return scores

    def _features_of(self, variant: Variant) -> Features:
        key = (_identity(variant), id(variant.text) if variant.takes_text else None)
        if key not in self._features:
            with stage("last block"):
                self._features[key] = self._call(variant)
        features = self._features[key]
        if variant.debias and features.cls is None:
            raise BenchError(
                f"row '{variant.name}': its method gives no CLS token, so debias must be 0 (it is {variant.debias})"
            )
        return features

    def _call(self, variant: Variant) -> Features:
        method: Any = variant.method
        trunk = self._trunk_of(variant)
        features: Features = method(trunk, text=variant.text) if variant.takes_text else method(trunk)
        return features

    def _trunk_of(self, variant: Variant) -> Trunk:
        return self.trunk.having(variant.models)

    def collect(self, variant: Variant, collector: Collector, boxes: Sequence[Box], look: bool) -> None:
        """Hands the windows to a collector. look: BenchError where it does not leave them as they were."""
        images, before = (self.padded.clone(), self.trunk.checksums()) if look else (self.padded, {})
        collector.add(self._trunk_of(variant), boxes)
        self._check_unchanged(before, images)

    def look_at(self, variant: Variant) -> None:
        """Checks what a row's method makes of these windows, and that it leaves what it is given as it was.

        Raises BenchError that says what is wrong. The method is asked twice: what it computes on the way the first
        time, such as the keys of a middle block, must not be changed by the second. Done for the first windows alone.
        """
        images = self.padded.clone()
        self._look_once(variant)
        before = self.trunk.checksums()
        self._look_once(variant)
        self._check_unchanged(before, images)

    def _check_unchanged(self, before: Mapping[str, float], images: Tensor) -> None:
        """BenchError where a shared tensor is not as it was; the others then see these images anew."""
        after = self.trunk.checksums() if before else {}
        changed = [name for name, value in before.items() if after[name] != value]
        if changed:
            self.padded.copy_(images)
            self.trunk = self.backbone.trunk(self.padded)
            self._features.clear()
            raise BenchError(
                f"the method changed {changed[0]} in place, which other methods share; write k = 2 * k, not k *= 2"
            )

    def _look_once(self, variant: Variant) -> None:
        if _has_own_scores(variant):
            own = variant.method.scores(self._trunk_of(variant), variant.text)  # type: ignore[attr-defined]
            check_scores(own, len(self.windows), len(variant.classes))
        else:
            check_features(self._call(variant), len(self.windows), self.trunk.grid, variant.text.shape[-1])

    def _plain(self, variant: Variant, features: Features) -> Tensor:
        """Cosine at the patches, enlarged bilinearly to the window."""
        shift = _shift(variant, features)
        patches = features.patches if shift is None else features.patches + shift[:, None]
        scores = F.normalize(patches, dim=-1) @ variant.text.T  # (B, hw, Q)
        return self._to_window(scores.view(len(scores), *(features.grid or self.trunk.grid), -1))

    def _upsample_together(self, upsampler: Upsampler) -> None:
        """Cosine of the upsampler's pixel features, for all rows that use it."""
        rows = {variant.name: variant for variant in self.variants if variant.upsampler is upsampler}
        found = {name: features for name, variant in rows.items() if (features := self._features_if_any(variant))}
        for grid in {features.grid or self.trunk.grid for features in found.values()}:
            self._upsample_from(
                grid, upsampler, {n: f for n, f in found.items() if (f.grid or self.trunk.grid) == grid}
            )

    def _upsample_from(self, grid: tuple[int, int], upsampler: Upsampler, asking: Mapping[str, Features]) -> None:
        """The same for rows whose features lie on one grid."""
        rows = {variant.name: variant for variant in self.variants}
        guidance = self.trunk.guidance(upsampler.statistics)

        def scores_of(windows: slice) -> list[Tensor]:
            prepared = upsampler.prepare(guidance[windows], grid)
            requests = []
            for name, features in asking.items():
                shift = _shift(rows[name], features)
                requests.append(
                    ScoreRequest(features.patches[windows], rows[name].text, None if shift is None else shift[windows])
                )
            return prepared.scores(requests)

        # On a CPU a window for each core; where there are more cores than windows, all of them at the strips of one.
        pieces = [slice(number, number + 1) for number in range(len(self.padded))]
        if self.padded.device.type != "cpu":
            windows = [scores_of(slice(None))]
        elif len(pieces) >= torch.get_num_threads():
            windows = in_threads(scores_of, pieces)
        else:
            windows = [scores_of(piece) for piece in pieces]
        for name, maps in zip(asking, zip(*windows, strict=True), strict=True):
            self._upsampled[name] = self._to_window(torch.cat(maps))

    def _features_if_any(self, variant: Variant) -> Features | None:
        """None where the row's method raises, which it will do again when it is its turn."""
        try:
            return None if _has_own_scores(variant) else self._features_of(variant)
        except Exception as error:  # a plug-in may raise anything
            if is_out_of_memory(error):
                raise
            return None

    def _to_window(self, scores: Tensor) -> Tensor:
        """(B, h, w, Q) -> (B, Q, H, W) at the padded window's size; bilinear where the sizes differ."""
        maps, size = scores.movedim(3, 1), tuple(self.padded.shape[-2:])
        return maps if maps.shape[2:] == size else F.interpolate(maps.contiguous(), size=size, mode="bilinear")


def check_features(found: object, batch: int, grid: tuple[int, int], channels: int) -> None:
    """Raises BenchError where a method's result is no `Features` of these sizes, or not finite."""
    if not isinstance(found, Features):
        raise BenchError(f"the method returned {type(found).__name__}; return Features(patches, cls)")
    height, width = found.grid or grid
    wanted = {"patches": (batch, height * width, channels), "cls": (batch, channels)}
    for name, part in (("patches", found.patches), ("cls", found.cls)):
        if part is None and name == "cls":
            continue
        if not isinstance(part, Tensor) or tuple(part.shape) != wanted[name]:
            shape = tuple(part.shape) if isinstance(part, Tensor) else type(part).__name__
            raise BenchError(f"the method's {name} are {shape}; {wanted[name]} are needed (windows, patches, channels)")
        _check_numbers(part, f"the method's {name}")


def check_scores(found: object, batch: int, queries: int) -> None:
    """Raises BenchError where a method's own scores are not (B, Q, h, w), or not finite."""
    if not isinstance(found, Tensor) or found.dim() != 4 or tuple(found.shape[:2]) != (batch, queries):
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise BenchError(f"the method's scores are {shape}; ({batch}, {queries}, h, w) are needed")
    _check_numbers(found, "the method's scores")


def _check_numbers(part: Tensor, what: str) -> None:
    if not part.is_floating_point():
        raise BenchError(f"{what} are {part.dtype}; floating-point numbers are needed")
    if not bool(part.sum().isfinite()):
        raise BenchError(f"{what} are not finite (NaN or infinity)")


def _has_own_scores(variant: Variant) -> bool:
    return getattr(variant.method, "scores", None) is not None


def _shift(variant: Variant, features: Features) -> Tensor | None:
    """What is added to the features of each window, (B, C), where λ acts on them (eq. 9 as printed)."""
    if not variant.debias or variant.debias_on != "features" or features.cls is None:
        return None
    return -variant.debias * features.cls


def _identity(variant: Variant) -> Hashable:
    """Equal for rows whose methods compute the same: one function, equal options and models, as in `sclip+ours`."""
    method: Any = variant.method
    models = tuple(sorted((role, model.name) for role, model in variant.models.items()))
    if isinstance(method, functools.partial):
        return method.func, repr(sorted(method.keywords.items())), models
    return getattr(method, "same_as", method), models
