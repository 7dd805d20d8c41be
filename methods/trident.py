"""Trident (Shi et al., ICCV 2025): windows mixed by DINO, joined in feature space, mixed once more by SAM.

1. In each window CLIP's values are weighed as in ProxyCLIP, by DINO B/16, with one mean over all windows of the image;
   after the output projection the windows are joined, overlaps averaged, into one map of the image at CLIP's grid.
2. SAM's encoder sees the whole image, long side 1024, zeros to the right and below. Of its last block, over the valid
   patches and in each head: A, the attention, and C, the cosine of values. A patch keeps the others with C above
   min(0.9, f·m), f = `factor`, m the mean of C over heads and patches; a bound below 0 is 0.6 unless `negative` allows
   it. The kept part of A, averaged over heads, rows divided by their sum, weighs the joined map, enlarged to SAM's
   grid; then layer norm and projection.

Images are first stretched to multiples of 16, for CLIP and for SAM, and scores are enlarged from SAM's patches to the
original at once, as in the released code. Its refinement with SAM's mask decoder (`--sam_refine`) is left out. Its
settings for natural images are windows of 336, stride 224, scale 40. SAM's pass costs about 26 of CLIP's an image.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.api import Box, SecondTrunk, Trunk, WholeImage, method
from bench.methods.proxyclip import affinity, values_on


@method("trident", label="Trident", venue="ICCV'25", models={"vfm": "dino-vitb16", "sam": "sam-vitb"})
class Trident:
    whole_image = 1024
    multiple = 16
    enlarged_at_once = True

    def __init__(self, beta: float = 1.2, gamma: float = 3.0, factor: float = 1.2, negative: bool = False) -> None:
        self.beta, self.gamma, self.factor, self.negative = beta, gamma, factor, negative

    def collect(self, image: WholeImage) -> "_Windows":
        return _Windows(self, image)


class _Windows:
    def __init__(self, options: Trident, image: WholeImage) -> None:
        self._options, self._image = options, image
        self._tokens: list[Tensor] = []
        self._values: list[Tensor] = []
        self._grid = (0, 0)
        self._heads = 1
        self._last: Trunk | None = None

    def add(self, trunk: Trunk, boxes: Sequence[Box]) -> None:
        second = trunk.second("vfm")
        self._tokens += F.normalize(second.tokens, dim=-1)
        self._values += values_on(trunk, second.grid)
        self._grid, self._heads, self._last = second.grid, trunk.qkv(-1)[2].shape[1], trunk

    def scores(self, text: Tensor) -> Tensor:
        """(Q, h, w) on SAM's patches."""
        assert self._last is not None
        second = self._image.second("sam")
        height, width = self._image.valid_grid("sam")
        joined = F.interpolate(self._joined(self._last)[None], size=(height, width), mode="bilinear")[0]
        weights = sam_affinity(second, (height, width), self._options.factor, self._options.negative)
        mixed = weights @ joined.flatten(1).T  # (N, D)
        patches = F.normalize(self._last.joint(mixed), dim=-1)
        return (text @ patches.T).view(len(text), height, width)

    def _joined(self, trunk: Trunk) -> Tensor:
        """(D, h, w) of all windows after the output projection."""
        options = self._options
        mean = torch.stack([(tokens @ tokens.T).mean() for tokens in self._tokens]).mean()
        windows = []
        for tokens, value in zip(self._tokens, self._values, strict=True):
            mixed = affinity(tokens @ tokens.T, mean, options.beta, options.gamma) @ value  # (N, D)
            split = mixed.unflatten(1, (self._heads, -1)).transpose(0, 1)[None]
            windows.append(trunk.merge_heads(-1, split)[0].T.unflatten(1, self._grid))
        patch = (self._image.boxes[0].bottom - self._image.boxes[0].top) / self._grid[0]
        places = [(round(box.top / patch), round(box.left / patch)) for box in self._image.boxes]
        size = tuple(max(place[axis] for place in places) + self._grid[axis] for axis in (0, 1))
        total, count = windows[0].new_zeros(len(windows[0]), *size), windows[0].new_zeros(size)
        for (top, left), window in zip(places, windows, strict=True):
            rows, columns = slice(top, top + self._grid[0]), slice(left, left + self._grid[1])
            total[:, rows, columns] += window
            count[rows, columns] += 1
        return total / count


def sam_affinity(second: SecondTrunk, valid: tuple[int, int], factor: float, negative: bool) -> Tensor:
    """Weights (N, N) between SAM's valid patches, the first h rows and w columns of its grid."""
    height, width = valid
    inside = torch.zeros(second.grid, dtype=torch.bool)
    inside[:height, :width] = True
    index = inside.flatten().nonzero()[:, 0].to(second.tokens.device)
    values = F.normalize(second.qkv[2][0][:, index], dim=-1)  # (heads, N, d)
    likeness = torch.stack([(v @ v.T).mean(dim=1) for v in values]).mean(dim=0)  # (N,)
    bound = factor * likeness
    if not negative:
        bound = torch.where(bound < 0, 0.6, bound)
    bound = bound.clamp_max(0.9)[:, None]
    kept = torch.zeros(len(index), len(index), device=index.device)
    for head, v in enumerate(values):  # one after the other: N can be 4,096
        kept += second.attention(head)[0][index][:, index].masked_fill(v @ v.T <= bound, 0)
    return kept / kept.sum(dim=1, keepdim=True)
