"""LPOSS and LPOSS+ (Stojnić et al., CVPR 2025): labels spread over a graph of all patches of an image's windows.

Nodes are the patches of all windows. Each is joined to the k others whose values in the last block of DINO are most
alike: w = max(0, s)^γ · exp(−σ·d), s their cosine, d the distance of their centres in pixels (eq. 4). With
W ← W + Wᵀ without diagonal and S = D^−½·W·D^−½, the scores of MaskCLIP become x = (I − αS)⁻¹·y (eq. 2), by ten steps of
conjugate gradients as in the released code, not to the end. LPOSS+ (`pixels`) does it once more over the pixels: 13×13
neighbours, w = exp(−‖ΔLab‖/τ).

MaskCLIP keeps residual and FFN here, and the authors use the weights `laion2b_s34b_b88k`. Images smaller than a window
are padded with black at the right and below, and what is found is stretched over the unpadded window, as in their code.
That fails with fewer patches than k; here k is at most the number of patches. Scores have no own scale: the authors
take the greatest, which no scale changes.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import scipy.sparse
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.api import Box, Share, Trunk, WholeImage, last_block, method

MOST = 40_000  # patches of an image: its graph has k edges for each
MOST_PIXELS = 1 << 21  # of LPOSS+: 84 weights in float64 for each, 1.4 GB
CHUNK = 2048


@method("lposs", label="LPOSS", venue="CVPR'25", models={"vfm": "dino-vitb16"})
class Lposs:
    def __init__(
        self,
        k: int = 400,
        gamma: float = 3.0,
        sigma: float = 0.01,
        alpha: Share = 0.95,
        pixels: bool = False,
        tau: float = 0.01,
    ) -> None:
        self.k, self.gamma, self.sigma, self.alpha, self.pixels, self.tau = k, gamma, sigma, alpha, pixels, tau

    def collect(self, image: WholeImage) -> "_Windows":
        if self.pixels and image.size[0] * image.size[1] > MOST_PIXELS:
            raise ValueError(f"LPOSS+ spreads over at most {MOST_PIXELS:,} pixels; make the network's input smaller")
        return _Windows(self, image)


class _Windows:
    def __init__(self, options: Lposs, image: WholeImage) -> None:
        self._options, self._image = options, image
        self._patches: list[Tensor] = []  # (N, C) of each window, unit length
        self._values: list[Tensor] = []  # (N, D) of the second model, unit length
        self._centres: list[Tensor] = []  # (N, 2) in pixels
        self._grid = (0, 0)
        self._stretched: tuple[int, int] | None = None  # size of windows that were padded

    def add(self, trunk: Trunk, boxes: Sequence[Box]) -> None:
        size, patch = (boxes[0].bottom - boxes[0].top, boxes[0].right - boxes[0].left), self._image.patch_size
        if size[0] % patch or size[1] % patch:
            trunk = trunk.of(self._image.cornered(boxes, patch)).having(self._image.models)
            self._stretched = size
        second = trunk.second("vfm")
        if second.grid != trunk.grid:
            raise ValueError(f"LPOSS needs a model with CLIP's patch size: {second.grid} patches are not {trunk.grid}")
        if len(self._image.boxes) * trunk.grid[0] * trunk.grid[1] > MOST:
            raise ValueError(f"LPOSS spreads over at most {MOST:,} patches; make the network's input smaller")
        own = last_block(trunk.resampled("bicubic"), lambda q, k, v: v, residual=True, ffn=True)
        self._patches += F.normalize(own.patches, dim=-1)
        self._values += F.normalize(second.qkv[2].transpose(1, 2).flatten(2), dim=-1)
        self._centres += [_centres(box, trunk.grid, self._image.patch_size) for box in boxes]
        self._grid = trunk.grid

    def scores(self, text: Tensor) -> Tensor:
        """(W, Q, h, w) on the patches of each window; of LPOSS+ (Q, h, w) of the image."""
        cosine = torch.cat(self._patches) @ text.T  # (n, Q)
        graph = self._graph(torch.cat(self._values), torch.cat(self._centres).to(text.device))
        system = _system(graph, self._options.alpha)
        spread = ten_steps(lambda x: torch.from_numpy(system @ x.numpy()), cosine.double().cpu())
        windows = spread.float().to(text.device).view(len(self._image.boxes), -1, len(text)).mT
        maps = windows.unflatten(2, self._grid)
        if self._stretched is not None:
            maps = F.interpolate(maps, size=self._stretched, mode="bilinear")
        return self._over_pixels(self._image.stitch(maps)) if self._options.pixels else maps

    def _graph(self, values: Tensor, centres: Tensor) -> scipy.sparse.csr_matrix:
        """Weights from each patch to its k nearest, itself among them."""
        options, n = self._options, len(values)
        weights, columns = [], []
        for start in range(0, n, CHUNK):
            rows = slice(start, start + CHUNK)
            likeness, index = (values[rows] @ values.T).topk(min(options.k, n), dim=1)
            apart = torch.cdist(centres[rows], centres).gather(1, index)
            weights.append((likeness.clamp_min(0) ** options.gamma * torch.exp(-options.sigma * apart)).cpu())
            columns.append(index.cpu())
        index, every = torch.cat(columns), np.arange(n)
        flat = torch.cat(weights).flatten().numpy()
        return scipy.sparse.csr_matrix((flat, (every.repeat(index.shape[1]), index.flatten().numpy())), (n, n))

    def _over_pixels(self, scores: Tensor) -> Tensor:
        """(Q, h, w) spread over the pixels of the network's input."""
        lab = to_lab((self._image.rgb * 255).round().double() / 255)
        edges = [(part, torch.exp(-apart / self._options.tau)) for part, apart in _pairs(lab)]

        def weighted(x: Tensor) -> Tensor:
            total = torch.zeros_like(x)
            for (here, there), weight in edges:
                total[here] += weight * x[there]
                total[there] += weight * x[here]
            return total

        degree = weighted(torch.ones_like(lab[:1]))
        scale = torch.where(degree == 0, 1, degree).rsqrt()
        flat = scores.double()
        spread = ten_steps(lambda x: x - self._options.alpha * scale * weighted(scale * x), flat, over=(-2, -1))
        return spread.float()


def _centres(box: Box, grid: tuple[int, int], patch: int) -> Tensor:
    """(N, 2) of a window's patches, in pixels of the network's input."""
    y, x = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    centres = torch.stack([box.top + (y + 0.5) * patch, box.left + (x + 0.5) * patch], dim=-1)
    return centres.view(-1, 2).float()


def _system(graph: scipy.sparse.csr_matrix, alpha: float) -> scipy.sparse.csr_matrix:
    """I − αS of a graph's weights."""
    both = graph.astype(np.float64) + graph.T
    both = both - scipy.sparse.diags(both.diagonal())
    degree = np.asarray(both.sum(axis=1)).ravel()
    scale = scipy.sparse.diags(1 / np.sqrt(np.where(degree == 0, 1, degree)))
    return (scipy.sparse.eye(len(degree)) - alpha * scale @ both @ scale).tocsr()


def ten_steps(apply: Callable[[Tensor], Tensor], right: Tensor, over: tuple[int, ...] = (0,)) -> Tensor:
    """At most ten steps of conjugate gradients from 0, each word of `right` on its own, to a residual of 1e-6.

    apply: the system on such a tensor. over: axes of a word's unknowns.
    """
    x, residual = torch.zeros_like(right), right.clone()
    direction, power = residual.clone(), (residual**2).sum(over, keepdim=True)
    bound = 1e-12 * power
    going = power > bound
    for _ in range(10):
        applied = apply(direction)
        step = torch.where(going, power / (direction * applied).sum(over, keepdim=True).clamp_min(1e-300), 0)
        x, residual = x + step * direction, residual - step * applied
        before, power = power, (residual**2).sum(over, keepdim=True)
        going = going & (power > bound)
        direction = torch.where(going, residual + power / before.clamp_min(1e-300) * direction, direction)
    return x


def to_lab(rgb: Tensor) -> Tensor:
    """sRGB (3, h, w) in 0..1 -> CIE L*a*b* of daylight D65, L over 100, a and b over 128."""
    linear = torch.where(rgb > 0.04045, ((rgb.clamp_min(0) + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    to_xyz = [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]]
    xyz = torch.einsum("ij,jhw->ihw", linear.new_tensor(to_xyz), linear)
    xyz = xyz / xyz.new_tensor([0.95047, 1.0, 1.08883]).view(3, 1, 1)
    root = torch.where(xyz > 0.008856, xyz.clamp_min(0.008856) ** (1 / 3), 7.787 * xyz + 4 / 29)
    x, y, z = root
    return torch.stack([(116 * y - 16) / 100, 500 * (x - y) / 128, 200 * (y - z) / 128])


Part = tuple[slice, slice, slice]


def _pairs(lab: Tensor, reach: int = 6) -> Iterator[tuple[tuple[Part, Part], Tensor]]:
    """Each pair of pixels at most `reach` rows and columns apart, once: where both are, and their colours' distance."""
    height, width = lab.shape[1:]
    for down in range(min(reach, height - 1) + 1):
        for right in range(-min(reach, width - 1), min(reach, width - 1) + 1):
            if (down, right) <= (0, 0):
                continue
            here = (slice(None), slice(0, height - down), slice(max(0, -right), width - max(0, right)))
            there = (slice(None), slice(down, height), slice(max(0, right), width + min(0, right)))
            yield (here, there), (lab[here] - lab[there]).norm(dim=0)
