"""The interface of upsamplers, and the registry of their kinds."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Self

from bench.errors import BenchError, did_you_mean
from bench.models.checkpoints import load_strictly
from bench.runtime.sources import source_of
from bench.runtime.timing import stage


class ScoreRequest(NamedTuple):
    """Request of one row for the scores of B windows.

    patches: tokens F (B, n, C), not normalized
    text: (Q, C), each of length one
    shift: (B, C) added to each pixel's feature before the norm (eq. 9: -λ times the CLS token), or None
    """

    patches: Tensor
    text: Tensor
    shift: Tensor | None = None

    def at_pixels(self, features: Tensor) -> Tensor:
        """Cosine scores (…, P, Q) of upsampled features (B, …, P, C) of these windows."""
        shift = self.shift
        if shift is not None:
            features = features + shift.view(len(shift), *[1] * (features.dim() - 2), -1)
        return F.normalize(features, dim=-1) @ self.text.T


class Prepared(ABC):
    """An upsampler on B windows, with all that the image alone decides: what the rows that ask share."""

    @abstractmethod
    def scores(self, requests: Sequence[ScoreRequest]) -> list[Tensor]:
        """Cosine scores (B, H, W, Q) float32 of every pixel, for each row; none depends on who else asks."""


class Upsampler(nn.Module, ABC):
    """Patch features to pixel features, guided by the image.

    kind: what benchmark.yaml calls it
    statistics: of the pixels by which it wants the guidance normalised
    dim: channels C of the features, None where any number will do
    weightless: there is nothing to load
    """

    kind: ClassVar[str]
    statistics: ClassVar[Literal["clip", "imagenet"]] = "clip"
    weightless: ClassVar[bool] = False
    dim: int | None = None

    @abstractmethod
    def forward(self, patches: Tensor, guidance: Tensor) -> Tensor:
        """Features (B, C, h, w) -> (B, C, H, W), the readable way.

        guidance (B, 3, H, W): the normalised windows. An upsampler that doubles may end beyond their size.
        """

    def prepare(self, guidance: Tensor, grid: tuple[int, int]) -> Prepared:
        """Prepare the fast way to the scores of windows (B, 3, H, W) with h × w patches; by default `forward`."""
        return Direct(self, guidance, grid)

    @classmethod
    def blank(cls, dim: int) -> Self:
        """Build one without weights, for features of `dim` channels."""
        make: Any = cls
        new: Self = make(dim) if "dim" in inspect.signature(cls).parameters else make()
        return new

    @classmethod
    def of_state(cls, state: Mapping[str, Tensor], dim: int, file: Path) -> Self:
        """Build one with the tensors of a checkpoint, for `dim` channels; BenchError where they do not fit."""
        width = cls.width_of(state)
        if width not in (None, dim):
            raise BenchError(
                f"{file}: made for features of {width} channels, this backbone's have {dim}; use the backbone that it "
                "was trained with, or an upsampler for any width (naf, anyup)"
            )
        new = cls.fitting(state, dim, file)
        load_strictly(new, cls.renamed(state), file, cls.kind)
        return new

    @classmethod
    def width_of(cls, state: Mapping[str, Tensor]) -> int | None:
        """Return the channels of the features that a checkpoint is for; None where any number will do."""
        return None

    @classmethod
    def fitting(cls, state: Mapping[str, Tensor], dim: int, file: Path) -> Self:
        """Build one without weights whose tensors have a checkpoint's shapes."""
        return cls.blank(dim)

    @classmethod
    def renamed(cls, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Name a released checkpoint's tensors as the modules here."""
        return state

    @classmethod
    def recognises(cls, state: Mapping[str, Tensor]) -> bool:
        """Return whether these look like the tensors of a checkpoint of this kind."""
        return False


class Direct(Prepared):
    """Scores by way of all features, a window at a time."""

    def __init__(self, upsampler: Upsampler, guidance: Tensor, grid: tuple[int, int]) -> None:
        self._upsampler, self._guidance, self._grid = upsampler, guidance, grid

    @torch.no_grad()
    def scores(self, requests: Sequence[ScoreRequest]) -> list[Tensor]:
        with stage("operator"):
            return [torch.cat(list(map(self._of, self._guidance[:, None], *self._each(ask)))) for ask in requests]

    def _each(self, ask: ScoreRequest) -> tuple[Sequence[Tensor], Sequence[ScoreRequest]]:
        shifts = [None] * len(ask.patches) if ask.shift is None else ask.shift[:, None]
        patches = ask.patches.float()[:, None]
        return list(patches), [ScoreRequest(one, ask.text, shift) for one, shift in zip(patches, shifts, strict=True)]

    def _of(self, guidance: Tensor, patches: Tensor, ask: ScoreRequest) -> Tensor:
        features = self._upsampler(patches.mT.reshape(1, -1, *self._grid), guidance)
        return ask.at_pixels(features.permute(0, 2, 3, 1))


Kind = TypeVar("Kind", bound=type[Upsampler])
KINDS: dict[str, type[Upsampler]] = {}


def upsampler(kind: str) -> Callable[[Kind], Kind]:
    """Register the decorated class as a kind of upsampler, named by `kind:` of `upsamplers:` in benchmark.yaml."""

    def register(cls: Kind) -> Kind:
        old = KINDS.get(kind)
        cells = old is not None and not kind_file(old).is_file() and not kind_file(cls).is_file()
        if old is not None and not cells and kind_file(old) != kind_file(cls):
            raise BenchError(f"two upsamplers are of kind '{kind}': {kind_file(old)} and {kind_file(cls)}; rename one")
        cls.kind = kind
        KINDS[kind] = cls
        return cls

    return register


def find_kind(kind: str) -> type[Upsampler]:
    """Return the class of that kind. BenchError for an unknown one."""
    if kind not in KINDS:
        raise BenchError(f"unknown upsampler kind '{kind}'; {did_you_mean(kind, KINDS)}")
    return KINDS[kind]


def kind_file(cls: type[Upsampler]) -> Path:
    """Return the source file of a kind, or its notebook cell (`source_of`)."""
    file = source_of(cls)
    return file.resolve() if file.is_file() else file
