"""A vision transformer of timm with a head and a reader of sentences: what C-RADIO and dino.txt have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from bench.models.clip_weights import DTYPES
from bench.models.tower import ReadingTower
from bench.runtime.device import exact_float32
from bench.runtime.shared_tensors import SharedWeights


class TimmTower(ReadingTower):
    """A frozen vision transformer with a head; its text encoder stays on the CPU, in float32.

    version: of a kind's file; raised when a change moves numbers, so that old results are stale.
    """

    version: ClassVar[int]

    def __init__(  # noqa: PLR0913 (all that it is made of)
        self,
        name: str,
        model: Any,
        head: Any,
        read_sentences: Callable[[list[str]], Tensor],
        fingerprint: str,
        device: str = "cpu",
        dtype: str = "fp32",
    ) -> None:
        """Freeze the parts.

        model: timm's.
        head: its `dim` is that of the features.
        read_sentences: un-normalised embeddings (n, dim) on the CPU.
        fingerprint: "" for random weights.
        """
        both = nn.ModuleList([model, head]).to(device).requires_grad_(False).eval()
        self.name = name
        self.fingerprint = fingerprint and f"{fingerprint}, {self.library} {self.version}"
        self.model, self.head = model, head
        self.patch_size: int = model.patch_embed.patch_size[0]
        self.dim: int = head.dim
        self.weights = SharedWeights(both)
        self.device = next(both.parameters()).device
        self.dtype = DTYPES[dtype]  # of the image tower's products
        self._read = read_sentences

    def encode_prompts(self, prompts: list[str]) -> Tensor:
        with exact_float32(), torch.inference_mode():
            return self._read(prompts).float().to(self.device)
