"""Cosine scores of every pixel from an upsampler's operator, without ever forming the pixel features."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from bench.parallel import one_core
from bench.stages import stage
from bench.upsamplers.jbu import FIXUP_WEIGHT
from bench.upsamplers.operator import Operator
from bench.upsamplers.tiles import Strip, small_pieces

_COLUMNS = 48  # of a matrix product: what CPUs take at a time; more leave out fewer of the zeros in L


class Ask(NamedTuple):
    """What one row asks of one window.

    patches: tokens F (n, C), not normalised. text: (Q, C), each of length one. shift: (C,) added to each pixel's
    feature before the norm (eq. 9: -λ times the CLS token), or None.
    """

    patches: Tensor
    text: Tensor
    shift: Tensor | None = None


class _Block(NamedTuple):
    """Columns that are multiplied together: the pixels' columns from `skipped` on times `rows` (R, …, columns), plus
    `offset` (R, 1, columns).
    """

    skipped: int
    rows: Tensor
    offset: Tensor


class PixelScores:
    """Cosine similarities of pixels' upsampled features with the text embeddings of R rows, Q for each.

    The features are H = W X + 1 xᵀ with X = F (I + 0.1 Aᵀ) and x = 0.1 b + shift, so H Tᵀ = W (X Tᵀ) + 1 (x Tᵀ), and
    any L with L Lᵀ = [X; x] [X; x]ᵀ gives ‖H_p‖ = ‖[W_p, 1] L‖.

    On a CPU L comes from a QR factorisation of the rows themselves, which no rank deficiency upsets as it would a
    Cholesky factorisation of their Gram matrix. It is lower triangular: a block of its columns needs the rows from its
    own first one on. The first block stands beside X Tᵀ in one product. An accelerator multiplies faster than it
    factorises: there L is [X; x] itself, in one block.
    """

    @torch.no_grad()
    def __init__(self, asks: Sequence[Ask], projection: tuple[Tensor, Tensor]) -> None:
        stacks = [_coefficients(ask, projection) for ask in asks]
        products = torch.stack([by_text for by_text, _ in stacks])  # (R, n + 1, Q)
        root = torch.stack([root for _, root in stacks])  # (R, n + 1, C or less)
        self._queries = products.shape[2]
        beside = -self._queries % _COLUMNS if small_pieces(root.device) else root.shape[2]
        blocks = [(0, torch.cat([products, root[..., :beside]], dim=2))]
        starts = range(beside, root.shape[2], _COLUMNS)
        self._blocks = [*blocks, *((start, root[..., start : start + _COLUMNS]) for start in starts)]
        self._cut: dict[tuple[int, int], list[_Block]] = {}

    @torch.no_grad()
    def __call__(self, pixels: Tensor, first: int = 0) -> Tensor:
        """Rows of W -> scores (P, R, Q) float32.

        pixels: (P, m) float32, the columns `first` to first + m of W, all others being zero.
        """
        products = [
            torch.baddbmm(offset, pixels[:, skipped:].expand(len(rows), -1, -1), rows)
            for skipped, rows, offset in self._blocks_for(first, first + pixels.shape[1])
        ]
        scores, products[0] = products[0].tensor_split([self._queries], dim=2)
        square = scores.new_zeros(scores.shape[:2])  # of the norm, (R, P)
        for product in products:
            square += torch.linalg.vector_norm(product, dim=2).square_()
        scores = scores / square.sqrt_().clamp_min_(1e-12)[..., None]
        return scores.transpose(0, 1)

    def _blocks_for(self, first: int, last: int) -> list[_Block]:
        """The blocks where only the columns `first` to `last` of W are not zero."""
        if (first, last) not in self._cut:
            seen = [max(first, min(start, last)) for start, _ in self._blocks]
            self._cut[first, last] = [
                _Block(row - first, block[:, row:last].contiguous(), block[:, -1:])
                for row, (_, block) in zip(seen, self._blocks, strict=True)
            ]
        return self._cut[first, last]


def _coefficients(ask: Ask, projection: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """[X; x] Tᵀ (n + 1, Q) and L (n + 1, C or less)."""
    weight, bias = (FIXUP_WEIGHT * part.float() for part in projection)
    tokens, text = ask.patches.float(), ask.text.float()
    offset = bias if ask.shift is None else bias + ask.shift.float()
    rows = torch.cat([tokens + tokens @ weight.T, offset[None]])
    root = rows
    if small_pieces(rows.device):
        with one_core():
            root = torch.linalg.qr(rows.T, mode="r").R.T
    return rows @ text.T, root


@torch.no_grad()
def upsampled_scores(operator: Operator, asks: Sequence[Ask], projection: tuple[Tensor, Tensor]) -> list[Tensor]:
    """Cosine scores (H, W, Q) of every pixel of a window, for each asking row.

    projection: A (C, C) and b (C) of `Upsampler.projection`. Rows that ask together share the operator's strips while
    these are in the cache; each has products of its own, so its scores do not depend on who else asks.
    """
    tiles = operator.tiles
    by_queries: dict[int, list[int]] = defaultdict(list)
    for number, ask in enumerate(asks):
        by_queries[len(ask.text)].append(number)
    with torch.autocast(projection[0].device.type, enabled=False):
        with stage("scores"):
            ordered = [ask._replace(patches=ask.patches[operator.order]) for ask in asks]
            groups = [
                (PixelScores([ordered[number] for number in numbers], projection), tiles.empty(len(numbers) * queries))
                for queries, numbers in by_queries.items()
            ]

        def work(strip: Strip) -> None:
            with stage("operator"):
                rows = operator.rows(strip)
            with stage("scores"):
                for scorer, out in groups:
                    tiles.write(scorer(rows.values, rows.first).flatten(1), out, strip)

        tiles.for_strips(work)
    maps: dict[int, Tensor] = {}
    for numbers, (_, out) in zip(by_queries.values(), groups, strict=True):
        maps.update(zip(numbers, out.chunk(len(numbers), dim=2), strict=True))
    return [maps[number] for number in range(len(asks))]
