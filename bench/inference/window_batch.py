"""A batch of equal windows, and what the rows that ask about it share: trunk, features, upsampler."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.errors import BenchError
from bench.inference.variant import Variant, has_own_scores, identity_of, shift_of
from bench.inference.windows import pad_to_multiple
from bench.models.backbone import Backbone, Features, Trunk
from bench.models.collector import Box, Collector
from bench.models.upsamplers import ScoreRequest, Upsampler
from bench.runtime.device import is_out_of_memory
from bench.runtime.threads import in_threads
from bench.runtime.timing import stage


def multiple_of(backbone: Backbone, variant: Variant, height: int, width: int) -> int:
    """Of which a window's sides have to be multiples for the tower and the row's second models."""
    sizes = [model.patch_size for model in variant.models.values() if model.side is None]
    multiple = math.lcm(backbone.patch_size, *sizes)
    return backbone.patch_size if height % multiple == 0 and width % multiple == 0 else multiple


def window_batches(backbone: Backbone, windows: Tensor, variants: Sequence[Variant]) -> dict[str, WindowBatch]:
    """Row name -> what it shares with others; rows whose second model needs wider padding do so among themselves."""
    by_multiple: dict[int, list[Variant]] = {}
    for variant in variants:
        by_multiple.setdefault(multiple_of(backbone, variant, *windows.shape[2:]), []).append(variant)
    found: dict[str, WindowBatch] = {}
    for multiple, rows in by_multiple.items():
        found |= dict.fromkeys((variant.name for variant in rows), WindowBatch(backbone, windows, rows, multiple))
    return found


@dataclass
class WindowBatch:
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
        if has_own_scores(variant):
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
        key = (identity_of(variant), id(variant.text) if variant.takes_text else None)
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
        """BenchError where a shared tensor is not as it was; the others then see fresh copies of these images."""
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
        if has_own_scores(variant):
            own = variant.method.scores(self._trunk_of(variant), variant.text)  # type: ignore[attr-defined]
            check_scores(own, len(self.windows), len(variant.classes))
        else:
            check_features(self._call(variant), len(self.windows), self.trunk.grid, variant.text.shape[-1])

    def _plain(self, variant: Variant, features: Features) -> Tensor:
        """Cosine at the patches, enlarged bilinearly to the window."""
        shift = shift_of(variant, features)
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
        """The same for rows whose features are on one grid."""
        rows = {variant.name: variant for variant in self.variants}
        guidance = self.trunk.guidance(upsampler.statistics)

        def scores_of(windows: slice) -> list[Tensor]:
            prepared = upsampler.prepare(guidance[windows], grid)
            requests = []
            for name, features in asking.items():
                shift = shift_of(rows[name], features)
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
            return None if has_own_scores(variant) else self._features_of(variant)
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
