"""Cosine scores of every pixel from an upsampler's operator or weights, without ever forming the pixel features."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.models.upsamplers.base import ScoreRequest
from bench.models.upsamplers.encoders import in_sight
from bench.models.upsamplers.jbu import FIXUP_WEIGHT
from bench.models.upsamplers.operator import Operator
from bench.models.upsamplers.tiles import Strip, TileGrid, by_pieces
from bench.runtime.timing import stage

_COLUMNS = 48  # of L in one product on a CPU; more leave out fewer of its zeros
_ALIGNED = 8  # columns of a product: matrix units are slow on rows that end elsewhere
_JITTER = 1e-12  # added to the diagonal of Gram matrices, as a share of its greatest entry


class _Columns(NamedTuple):
    """Columns that are multiplied together: the pixels' columns `low` up to `high` times `rows` (B, high - low, …)."""

    low: int
    high: int
    rows: Tensor


class PixelScores:
    """Cosine similarities of pixels' upsampled features with the Q text embeddings of one row, for B windows.

    The features are H = 1 xᵀ + W X with X = F (I + 0.1 Aᵀ) and x = 0.1 b + shift, so H Tᵀ = 1 (x Tᵀ) + W (X Tᵀ), and
    any L with L Lᵀ = [x; X] [x; X]ᵀ gives ‖H_p‖ = ‖[1, W_p] L‖.

    L is the Cholesky factor of this Gram matrix in float64. It is lower triangular, so x, which comes first, counts in
    its first column alone, which stands beside X Tᵀ in one product. On a CPU a block of columns needs the patches from
    its own first one on, and none is needed beyond the last patch that a strip sees. With the patches in reverse there
    is another such factor, of which a strip at the other end needs little: each takes the cheaper.
    """

    def __init__(self, by_text: Tensor, roots: Sequence[Tensor]) -> None:
        """by_text: [x; X] Tᵀ (B, n + 1, Q). roots: L (B, n + 1, n + 1), then that of the patches in reverse, if any.

        Rows of all are in the patches' order.
        """
        self._by_text, self._roots = by_text, roots
        self._queries = by_text.shape[2]
        self._offset = torch.cat([by_text[:, :1], roots[0][:, :1, :1]], dim=2)
        self._cut: dict[tuple[int, int], list[_Columns]] = {}

    @classmethod
    @torch.no_grad()
    def of(cls, requests: Sequence[ScoreRequest], projection: tuple[Tensor, Tensor] | None = None) -> list[PixelScores]:
        """One for each row that asks; all are factorized at once. projection: A and b, None where there is none."""
        rows, grams = [], []
        for request in requests:
            tokens = request.patches.float()  # (B, n, C)
            offset = tokens.new_zeros(tokens.shape[::2]) if request.shift is None else request.shift.float()
            if projection is not None:
                weight, bias = (FIXUP_WEIGHT * part.float() for part in projection)
                tokens, offset = tokens + tokens @ weight.T, bias + offset
            rows.append(torch.cat([offset[:, None], tokens], dim=1))  # (B, n + 1, C)
            grams.append(_gram(rows[-1]))
        ways = [_roots(grams)]
        if by_pieces(rows[0].device):
            ways.append([_reversed(root) for root in _roots([_reversed(_reversed(gram).mT) for gram in grams])])
        return [
            cls(row @ request.text.float().T, roots) for request, row, *roots in zip(requests, rows, *ways, strict=True)
        ]

    @torch.no_grad()
    def __call__(self, pixels: Tensor, first: int = 0) -> Tensor:
        """Rows of W -> scores (B, P, Q) float32.

        pixels: (B, P, m) float32, the columns `first` to first + m of W, all others being zero.
        """
        scores, square = None, None  # square: of the norms, added up so that each product is used while in the cache
        for low, high, rows in self._blocks_for(first, first + pixels.shape[2]):
            product = torch.bmm(pixels[..., low:high], rows)
            if scores is None:
                product[..., : self._queries + 1].add_(self._offset)
                scores, product = product.tensor_split([self._queries], dim=2)
            part = torch.linalg.vector_norm(product, dim=2).square_()
            square = part if square is None else square.add_(part)
        assert scores is not None and square is not None  # there is at least one block
        cosines: Tensor = scores / square.sqrt_().clamp_min_(1e-12)[..., None]
        return cosines

    def _blocks_for(self, first: int, last: int) -> list[_Columns]:
        """Return the blocks where only the columns `first` to `last` of W are not zero."""
        if (first, last) not in self._cut:
            ways = [self._blocks(way, first, last) for way in range(len(self._roots))]
            cheapest = min(ways, key=lambda blocks: sum(rows.numel() for _, _, rows in blocks))
            self._cut[first, last] = [_Columns(low, high, rows.contiguous()) for low, high, rows in cheapest]
        return self._cut[first, last]

    def _blocks(self, way: int, first: int, last: int) -> list[_Columns]:
        """Cut one of the factors into blocks of columns, less the zeros on their one side."""
        count = self._by_text.shape[1]
        end = count - first if way else last + 1
        head = (-self._queries % _COLUMNS or _COLUMNS) if by_pieces(self._by_text.device) else end
        blocks = []
        for start, stop in itertools.pairwise([0, *range(head, end, _COLUMNS), end]):
            low, high = (first, min(last, count - start)) if way else (max(first, start - 1), last)
            rows = self._roots[way][:, 1 + low : 1 + high, start:stop]
            if not start:
                rows = torch.cat([self._by_text[:, 1 + low : 1 + high], rows], dim=2)
                rows = F.pad(rows, (0, -rows.shape[2] % _ALIGNED))
            blocks.append(_Columns(low - first, high - first, rows))
        return blocks


def _reversed(rows: Tensor) -> Tensor:
    """(B, n + 1, …) with all but the first in reverse."""
    return torch.cat([rows[:, :1], rows[:, 1:].flip(1)], dim=1)


def _gram(rows: Tensor) -> Tensor:
    """R Rᵀ (B, m, m) float64 of rows R (B, m, C); by itself, so that no other row's presence changes its rounding."""
    exact = rows.double()
    return exact @ exact.mT


def _roots(grams: Sequence[Tensor]) -> Sequence[Tensor]:
    """L (B, m, m) float32, lower triangular, with L Lᵀ = G for each of the Gram matrices (B, m, m).

    In float64 the squared condition number does no harm, and the jitter keeps matrices of rank-deficient rows (equal
    patches) positive definite: norms are right to 5e-7.
    """
    gram = torch.cat(list(grams))
    diagonal = gram.diagonal(dim1=-2, dim2=-1)
    diagonal += _JITTER * diagonal.amax(-1, keepdim=True)
    roots: tuple[Tensor, ...] = torch.linalg.cholesky_ex(gram).L.float().chunk(len(grams))
    return roots


def _maps(windows: int, channels: int, tiles: TileGrid) -> Tensor:
    """Room for (B, H, W, channels), laid out as the work that fills or reads it likes best."""
    if by_pieces(tiles.device):
        return torch.empty(windows, tiles.height, tiles.width, channels, device=tiles.device)
    return torch.empty(windows, channels, tiles.height, tiles.width, device=tiles.device).permute(0, 2, 3, 1)


@torch.no_grad()
def upsampled_scores(
    operator: Operator, requests: Sequence[ScoreRequest], projection: tuple[Tensor, Tensor]
) -> list[Tensor]:
    """Cosine scores (B, H, W, Q) of every pixel of the operator's windows, for each asking row.

    projection: A (C, C) and b (C) of `Upsampler.projection`. Rows that ask together share the operator's strips while
    these are in the cache; each has separate products, so its scores do not depend on who else asks.
    """
    if not requests:
        return []
    tiles, windows = operator.tiles, operator.windows
    with torch.autocast(projection[0].device.type, enabled=False):
        with stage("scores"):
            ordered = [request._replace(patches=request.patches[:, operator.order]) for request in requests]
            scorers = PixelScores.of(ordered, projection)
            out = [_maps(windows, len(request.text), tiles) for request in requests]

        def work(strip: Strip) -> None:
            with stage("operator"):
                rows = operator.rows(strip)
            with stage("scores"):
                for scorer, scores in zip(scorers, out, strict=True):
                    found = scorer(rows.values, rows.first)
                    tiles.write(found.view(windows * strip.across, tiles.down, -1, found.shape[2]), scores, strip)

        tiles.for_strips(work)
    return out


class Band(NamedTuple):
    """A strip of pixel rows and what it sees: rows of patches, and a mask (P, m) of its pixels and their patches."""

    pixels: slice
    patches: slice
    mask: Tensor


def bands(rows: Tensor, columns: Tensor) -> Iterator[Band]:
    """Cut the image from top to bottom into strips about as high as a patch: memory does not grow with it.

    rows, columns: bool (pixels, patches), which patches of an axis a pixel sees.
    """
    height, across = len(rows), rows.shape[1]
    step = max(1, height // across)
    for first in range(0, height, step):
        pixels = slice(first, min(first + step, height))
        seen = rows[pixels].any(0).nonzero()
        patches = slice(int(seen[0]), int(seen[-1]) + 1)
        yield Band(pixels, patches, in_sight(rows[pixels, patches], columns))


@torch.no_grad()
def weighted_scores(
    requests: Sequence[ScoreRequest],
    rows: Tensor,
    columns: Tensor,
    weights: Callable[[int, Band], Tensor],
) -> list[Tensor]:
    """Cosine scores (B, H, W, Q) of features that are weighted sums of patches, without ever forming them.

    rows, columns: of `bands`.
    weights: the number of a request and a strip -> (B, P, m), the weights of the patches that the strip sees.
    """
    with stage("scores"):
        scorers = PixelScores.of(requests)
    across = columns.shape[1]
    found: list[list[Tensor]] = [[] for _ in requests]
    for band in bands(rows, columns):
        for number, scorer in enumerate(scorers):
            with stage("operator"):
                values = weights(number, band)
            with stage("scores"):
                scores = scorer(values, band.patches.start * across)
            found[number].append(scores.view(len(scores), -1, len(columns), scores.shape[2]))
    return [torch.cat(parts, dim=1) for parts in found]
