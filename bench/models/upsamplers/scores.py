"""Cosine scores of every pixel from an upsampler's operator, without ever forming the pixel features."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.models.upsamplers.jbu import FIXUP_WEIGHT
from bench.models.upsamplers.operator import Operator
from bench.models.upsamplers.tiles import Strip, TileGrid, by_pieces
from bench.runtime.timing import stage

_COLUMNS = 48  # of L in one product on a CPU; more leave out fewer of its zeros
_ALIGNED = 8  # columns of a product: matrix units are slow on rows that end elsewhere
_JITTER = 1e-12  # added to the diagonal of Gram matrices, as a share of its greatest entry


class Ask(NamedTuple):
    """What one row asks of B windows.

    patches: tokens F (B, n, C), not normalized. text: (Q, C), each of length one. shift: (B, C) added to each pixel's
    feature before the norm (eq. 9: -λ times the CLS token), or None.
    """

    patches: Tensor
    text: Tensor
    shift: Tensor | None = None


class _Block(NamedTuple):
    """Columns that are multiplied together: the pixels' columns from `skipped` on times `rows` (N, …, columns), plus
    `offset` (N, 1, columns).
    """

    skipped: int
    rows: Tensor
    offset: Tensor


class PixelScores:
    """Cosine similarities of pixels' upsampled features with Q text embeddings, for one row and B windows, or for R
    rows and one window.

    The features are H = W X + 1 xᵀ with X = F (I + 0.1 Aᵀ) and x = 0.1 b + shift, so H Tᵀ = W (X Tᵀ) + 1 (x Tᵀ), and
    any L with L Lᵀ = [X; x] [X; x]ᵀ gives ‖H_p‖ = ‖[W_p, 1] L‖.

    L is the Cholesky factor of this Gram matrix in float64. It is lower triangular: on a CPU a block of its columns
    needs the rows from its own first one on. The first block stands beside X Tᵀ in one product.
    """

    def __init__(self, by_text: Tensor, root: Tensor) -> None:
        """by_text: [X; x] Tᵀ (N, n + 1, Q). root: L (N, n + 1, n + 1). N is B or R."""
        self._queries = by_text.shape[2]
        step = _COLUMNS if by_pieces(root.device) else root.shape[2]
        beside = -self._queries % _COLUMNS if by_pieces(root.device) else root.shape[2]
        first = torch.cat([by_text, root[..., :beside]], dim=2)
        self._blocks = [(0, F.pad(first, (0, -first.shape[2] % _ALIGNED)))]
        self._blocks += [(start, root[..., start : start + step]) for start in range(beside, root.shape[2], step)]
        self._cut: dict[tuple[int, int], list[_Block]] = {}

    @classmethod
    @torch.no_grad()
    def together(cls, groups: Sequence[Sequence[Ask]], projection: tuple[Tensor, Tensor]) -> list[PixelScores]:
        """One for each group of asks: one row's for B windows, or several rows' with as many queries for one window."""
        weight, bias = (FIXUP_WEIGHT * part.float() for part in projection)
        asks = [ask for group in groups for ask in group]
        tokens = torch.cat([ask.patches for ask in asks]).float()  # (N of all groups, n, C)
        offset = torch.cat([(bias if a.shift is None else bias + a.shift).expand(len(a.patches), -1) for a in asks])
        rows = torch.cat([tokens + tokens @ weight.T, offset[:, None]], dim=1)  # (N, n + 1, C)
        sizes = [sum(len(ask.patches) for ask in group) for group in groups]
        found = []
        for group, part, root in zip(
            groups, torch.split(rows, sizes), torch.split(_cholesky(rows), sizes), strict=True
        ):
            text = torch.cat([ask.text.expand(len(ask.patches), -1, -1) for ask in group]).float()  # (N, Q, C)
            found.append(cls(part @ text.mT, root))
        return found

    @torch.no_grad()
    def __call__(self, pixels: Tensor, first: int = 0) -> Tensor:
        """Rows of W -> scores (B, P, Q), or (R, P, Q), float32.

        pixels: (B, P, m) float32, the columns `first` to first + m of W, all others being zero.
        """
        scores, square = None, None  # square: of the norms, added up so that each product is used while in the cache
        for skipped, rows, offset in self._blocks_for(first, first + pixels.shape[2]):
            product = torch.baddbmm(offset, pixels[..., skipped:].expand(len(rows), -1, -1), rows)
            if scores is None:
                scores, product = product.tensor_split([self._queries], dim=2)
            part = torch.linalg.vector_norm(product, dim=2).square_()
            square = part if square is None else square.add_(part)
        assert scores is not None and square is not None  # there is at least one block
        cosines: Tensor = scores / square.sqrt_().clamp_min_(1e-12)[..., None]
        return cosines

    def _blocks_for(self, first: int, last: int) -> list[_Block]:
        """The blocks where only the columns `first` to `last` of W are not zero."""
        if (first, last) not in self._cut:
            seen = [max(first, min(start, last)) for start, _ in self._blocks]
            self._cut[first, last] = [
                _Block(row - first, block[:, row:last].contiguous(), block[:, -1:])
                for row, (_, block) in zip(seen, self._blocks, strict=True)
            ]
        return self._cut[first, last]


def _cholesky(rows: Tensor) -> Tensor:
    """L (B, m, m) float32, lower triangular, with L Lᵀ = R Rᵀ of the rows R (B, m, C).

    In float64 the squared condition number does no harm, and the jitter keeps rank-deficient rows (equal patches)
    positive definite: norms are right to 5e-7.
    """
    exact = rows.double()
    gram = exact @ exact.mT
    diagonal = gram.diagonal(dim1=-2, dim2=-1)
    diagonal += _JITTER * diagonal.amax(-1, keepdim=True)
    root: Tensor = torch.linalg.cholesky_ex(gram).L.float()
    return root


def _maps(windows: int, channels: int, tiles: TileGrid) -> Tensor:
    """Room for (B, H, W, channels), laid out as the work that fills or reads it likes best."""
    if by_pieces(tiles.device):
        return torch.empty(windows, tiles.height, tiles.width, channels, device=tiles.device)
    return torch.empty(windows, channels, tiles.height, tiles.width, device=tiles.device).permute(0, 2, 3, 1)


@torch.no_grad()
def upsampled_scores(operator: Operator, asks: Sequence[Ask], projection: tuple[Tensor, Tensor]) -> list[Tensor]:
    """Cosine scores (B, H, W, Q) of every pixel of the operator's windows, for each asking row.

    projection: A (C, C) and b (C) of `Upsampler.projection`. Rows that ask together share the operator's strips while
    these are in the cache; each has products of its own, so its scores do not depend on who else asks.
    """
    if not asks:
        return []
    tiles, windows = operator.tiles, operator.windows
    groups: dict[int, list[int]] = defaultdict(list)
    for number, ask in enumerate(asks):
        groups[len(ask.text) if windows == 1 else -number].append(number)
    with torch.autocast(projection[0].device.type, enabled=False):
        with stage("scores"):
            ordered = [ask._replace(patches=ask.patches[:, operator.order]) for ask in asks]
            scorers = PixelScores.together(
                [[ordered[number] for number in numbers] for numbers in groups.values()], projection
            )
            channels = [sum(len(asks[number].text) for number in numbers) for numbers in groups.values()]
            out = [_maps(windows, n, tiles) for n in channels]

        def work(strip: Strip) -> None:
            with stage("operator"):
                rows = operator.rows(strip)
            with stage("scores"):
                for scorer, scores in zip(scorers, out, strict=True):
                    found = scorer(rows.values, rows.first)
                    found = found if windows > 1 else found.transpose(0, 1).flatten(1)
                    tiles.write(found.reshape(windows * strip.across, tiles.down, -1, scores.shape[3]), scores, strip)

        tiles.for_strips(work)
    maps: dict[int, Tensor] = {}
    for numbers, scores in zip(groups.values(), out, strict=True):
        maps.update(zip(numbers, scores.chunk(len(numbers), dim=3), strict=True))
    return [maps[number] for number in range(len(asks))]
