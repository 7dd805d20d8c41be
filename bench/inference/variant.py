"""One row of the benchmark, ready to be asked about images."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from bench.data.images import Resize
from bench.models.backbone import Features, Trunk
from bench.models.second import SecondModel
from bench.models.upsamplers import Upsampler
from bench.settings import BEST_WORD, Join


@dataclass(frozen=True)
class Variant:
    """One row, ready to be asked about images.

    text: (Q, C) unit embeddings. classes: (Q,) int64, the class of each query. debias: λ of eq. 9, subtracted
    from the scores (released code) or from the upsampled features (the equation as printed). takes_text: the method's
    features depend on the words. refine: (image (3, h, w), scores (Q, h, w), text) -> scores, of the whole image;
    refine_original: both enlarged to the original's size first. models: second models by role.
    join: of a class's words, see `bench.inference.postprocess.classify`.
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
    join: Join = BEST_WORD

    @property
    def collects(self) -> bool:
        """Whether its method sees all windows of an image before it gives scores."""
        return hasattr(self.method, "collect")

    @property
    def whole(self) -> Resize | None:
        """The size at which its method wants the whole image besides its windows."""
        side: int | None = getattr(self.method, "whole_image", None)
        return None if side is None else Resize(long_side=side, filter="pillow")


def has_own_scores(variant: Variant) -> bool:
    """Whether its method makes scores, not features."""
    return getattr(variant.method, "scores", None) is not None


def shift_of(variant: Variant, features: Features) -> Tensor | None:
    """What is added to the features of each window, (B, C), where λ acts on them (eq. 9 as printed)."""
    if not variant.debias or variant.debias_on != "features" or features.cls is None:
        return None
    return -variant.debias * features.cls


def identity_of(variant: Variant) -> Hashable:
    """Equal for rows whose methods compute the same: one function, equal options and models, as in `sclip+ours`."""
    method: Any = variant.method
    models = tuple(sorted((role, model.name) for role, model in variant.models.items()))
    if isinstance(method, functools.partial):
        return method.func, repr(sorted(method.keywords.items())), models
    return getattr(method, "same_as", method), models
