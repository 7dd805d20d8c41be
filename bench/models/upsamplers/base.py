"""The interface of upsamplers, the registry of their kinds, and their weights from files."""

from __future__ import annotations

import inspect
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final, Literal, NamedTuple, TypeAlias, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Self

from bench.errors import BenchError, check_known
from bench.models.checkpoints import load_strictly, read_state_dict
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


Scorer: TypeAlias = Callable[[Sequence[ScoreRequest]], list[Tensor]]
"""An upsampler on B windows, with all that the image alone decides, which the rows that ask share: cosine scores
(B, H, W, Q) float32 of every pixel for each row that asks; none depends on who else asks."""


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

    def prepare(self, guidance: Tensor, grid: tuple[int, int]) -> Scorer:
        """Prepare the fast way to the scores of windows (B, 3, H, W) with h × w patches; by default `forward`."""

        def of_window(window: Tensor, patches: Tensor, ask: ScoreRequest) -> Tensor:
            features = self(patches.mT.reshape(1, -1, *grid), window)
            return ask.at_pixels(features.permute(0, 2, 3, 1))

        @torch.no_grad()
        def scores(requests: Sequence[ScoreRequest]) -> list[Tensor]:
            found = []
            with stage("operator"):
                for ask in requests:
                    patches = ask.patches.float()[:, None]
                    shifts = [None] * len(patches) if ask.shift is None else ask.shift[:, None]
                    asks = [ask._replace(patches=one, shift=by) for one, by in zip(patches, shifts, strict=True)]
                    found.append(torch.cat(list(map(of_window, guidance[:, None], patches, asks))))
            return found

        return scores

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


Kind = TypeVar("Kind", bound=type[Upsampler])
KINDS: dict[str, type[Upsampler]] = {}
PREFIX: Final = "upsampler."  # of the keys in released Lightning checkpoints


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
    check_known(kind, KINDS, f"unknown upsampler kind '{kind}'")
    return KINDS[kind]


def kind_file(cls: type[Upsampler]) -> Path:
    """Return the source file of a kind, or its notebook cell (`source_of`)."""
    file = source_of(cls)
    return file.resolve() if file.is_file() else file


def load_upsampler(kind: str | None, checkpoint: Path | None, dim: int, seed: int | None = None) -> Upsampler:
    """Load an upsampler in evaluation mode, for features of `dim` channels.

    kind: of `KINDS`; None: what the checkpoint is seen to hold. Without a checkpoint the weights are those of
    `draw`, or without a seed those that training begins with.

    Raises:
        BenchError: an unknown kind; a file that is no checkpoint, or one of another kind or embedding width.
    """
    if checkpoint is None:
        new = find_kind(kind or "jbu_one").blank(dim)
        if seed is not None:
            draw(new, seed)
        return new.eval()
    if kind is not None:
        find_kind(kind)  # before the file is read
    state = read_state(checkpoint)
    held = next((name for name, cls in KINDS.items() if cls.recognises(state)), None)
    if kind is not None and held not in (None, kind):
        raise BenchError(f"{checkpoint}: holds a {held}, not a {kind}; set kind: {held} or name another file")
    if kind is None and held is None:
        raise BenchError(
            f"{checkpoint}: no upsampler in it (the first key is {next(iter(state))!r}); name another file, or its kind"
        )
    return find_kind(kind or held or "").of_state(state, dim, checkpoint).eval()


def read_state(path: Path) -> dict[str, Tensor]:
    """Read the upsampler's tensors of a file, by the names that the modules have (no "upsampler." in front)."""
    state = read_state_dict(path)
    ours = {key.removeprefix(PREFIX): value for key, value in state.items() if key.startswith((PREFIX, "channelnorm."))}
    return ours or state


@torch.no_grad()
def draw(upsampler: Upsampler, seed: int) -> None:
    """Weights from a recipe, the same on any machine; each tensor from its own generator.

    Gains of norms are about 1, biases about 0, the rest is normal with the variance 1 / inputs.
    """
    for name, parameter in upsampler.named_parameters():
        drawn = np.random.default_rng([seed, zlib.crc32(name.encode())]).standard_normal(tuple(parameter.shape))
        if parameter.dim() < 2:
            values = 0.05 * drawn if name.endswith("bias") else 1 + 0.1 * drawn
        else:
            values = drawn / np.sqrt(np.prod(parameter.shape[1:]))
        parameter.copy_(torch.from_numpy(np.asarray(values, dtype=np.float32)))
