"""RADSeg (2025): the last block of C-RADIO attends to what it made alike, windows and then the whole image.

1. Windows: o = proj(softmax(q·kᵀ/√d)·v) over all tokens; per head, with unit o, S = `recursion`·o·oᵀ, S < 0 left out,
   and proj(softmax(S)·v) takes the place of the attention's output; residual and FFN are kept. Windows are averaged on
   the grid of the whole image, whose sides the released code stretches to multiples of the stride.
2. The whole grid: S = `aggregation`·(cos − its mean), S < 0 left out, softmax, times the features.
3. The head for SigLIP 2's summary takes patches into text space; p = softmax(100·cos) over the words, enlarged at once
   to the original. Words that are nowhere as probable as `denoise` are left out.

The released code has one word a class and no configuration for remote sensing: here its 224/112 windows at this
benchmark's size, and the datasets' own class names. RADSeg+ (SAM's masks) is left out. C-RADIO's licence is NVIDIA's.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.api import Box, RadioTrunk, Share, WholeImage, attention, method


@method(
    "radseg",
    label="RADSeg",
    venue="arXiv'25",
    tower="radio",
    backbone="c-radio-v3-b",
    vocabulary="plain",
    threshold=0.0,
    scale="none",
)
class RadSeg:
    multiple = "stride"
    enlarged_at_once = True

    def __init__(self, recursion: float = 10.0, aggregation: float = 10.0, denoise: Share = 0.5) -> None:
        self.recursion, self.aggregation, self.denoise = recursion, aggregation, denoise

    def collect(self, image: WholeImage) -> "_Windows":
        return _Windows(self, image)

    def features(self, trunk: RadioTrunk) -> Tensor:
        """Patches (B, h*w, D) of windows."""
        q, k, v = trunk.qkv
        mixed = trunk.project(attention(q, k) @ v).unflatten(2, (q.shape[1], -1)).transpose(1, 2)
        return trunk.finished(trunk.project(_alike(mixed, self.recursion, 0.0) @ v))


class _Windows:
    def __init__(self, options: RadSeg, image: WholeImage) -> None:
        self._options, self._image = options, image
        patch = image.patch_size
        self._grid = (image.size[0] // patch, image.size[1] // patch)
        self._total: Tensor | None = None
        self._count = torch.zeros(self._grid, device=image.pixels.device)
        self._last: RadioTrunk | None = None

    def add(self, trunk: RadioTrunk, boxes: Sequence[Box]) -> None:
        self._last = trunk
        for box, patches in zip(boxes, self._options.features(trunk), strict=True):
            window = patches.T.unflatten(1, trunk.grid)  # (D, h, w)
            if self._total is None:
                self._total = window.new_zeros(len(window), *self._grid)
            patch = self._image.patch_size
            rows = slice(box.top // patch, box.bottom // patch)
            columns = slice(box.left // patch, box.right // patch)
            self._total[:, rows, columns] += window
            self._count[rows, columns] += 1

    def stitched(self) -> Tensor:
        """(D, h, w) of the image, averaged over windows."""
        assert self._total is not None
        return self._total / self._count

    def aggregated(self) -> Tensor:
        """(D, h, w) after the whole image's patches were mixed with those like them."""
        patches = self.stitched().flatten(1).T  # (N, D)
        unit = F.normalize(patches, dim=-1)
        mixed = _alike(unit, self._options.aggregation, (unit @ unit.T).mean()) @ patches
        return mixed.T.unflatten(1, self._grid)

    def probabilities(self, text: Tensor) -> Tensor:
        """(Q, h, w) on the patches of the image, of all words."""
        assert self._last is not None
        patches = F.normalize(self._last.tower.into_text_space(self.aggregated().flatten(1).T), dim=-1)
        return (100 * patches @ F.normalize(text, dim=-1).T).softmax(dim=-1).T.unflatten(1, self._grid)

    def scores(self, text: Tensor) -> Tensor:
        found = self.probabilities(text).clone()
        size = self._image.original or self._image.size
        for word in found:  # one after the other: an original may have millions of pixels
            if F.interpolate(word[None, None], size=size, mode="bilinear").max() < self._options.denoise:
                word.zero_()
        return found


def _alike(tokens: Tensor, scale: float, mean: Tensor | float) -> Tensor:
    """Weights (…, N, N) of the tokens (…, N, D) whose cosine is above the mean; a token always keeps itself."""
    unit = F.normalize(tokens, dim=-1)
    likeness = (unit @ unit.mT - mean) * scale
    return likeness.masked_fill(likeness < 0, -torch.inf).softmax(dim=-1)
