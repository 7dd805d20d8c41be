"""Cosine scores of every pixel from an upsampler's operator, without ever forming the pixel features."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.upsamplers.jbu import FIXUP_WEIGHT

_PIXELS = 2048  # at a time, so that a strip of the operator and its products stay in the cache
_COLUMNS = 64  # of L at a time


@torch.no_grad()
def scores_from_operator(
    operator: Tensor,
    patches: Tensor,
    projection: tuple[Tensor, Tensor],
    text: Tensor,
    shift: Tensor | None = None,
) -> Tensor:
    """Cosine similarity of every pixel's upsampled feature with every text embedding.

    Args:
        operator: W (B, P, n) of `Upsampler.operator`.
        patches: patch tokens F (B, n, C), not normalised.
        projection: A (C, C), b (C) of `Upsampler.projection`.
        text: (Q, C), each row of length one.
        shift: (B, C) added to each pixel's feature before the norm (eq. 9: -λ times the CLS token), or None.

    Returns:
        (B, P, Q) float32. The features are H = W X + 1 xᵀ with X = F (I + 0.1 Aᵀ) and x = 0.1 b + shift, so
        H Tᵀ = W (X Tᵀ) + 1 (x Tᵀ), and any L with L Lᵀ = [X; x] [X; x]ᵀ gives ‖H_p‖ = ‖[W_p, 1] L‖.
    """
    weight, bias = (part.float() for part in projection)
    text = text.float()
    scores = operator.new_empty(*operator.shape[:2], text.shape[0])
    with torch.autocast(operator.device.type, enabled=False):
        for window, tokens in enumerate(patches.float()):
            offset = FIXUP_WEIGHT * bias if shift is None else FIXUP_WEIGHT * bias + shift[window].float()
            rows = torch.cat([tokens + FIXUP_WEIGHT * tokens @ weight.T, offset[None]])
            _window_scores(operator[window], rows, text, scores[window])
    return scores


def _window_scores(operator: Tensor, rows: Tensor, text: Tensor, out: Tensor) -> None:
    """Fill `out` (P, Q) for one window; `rows` (n + 1, C) are [X; x].

    L comes from a QR factorisation of the rows themselves, which no rank deficiency upsets as it would a
    Cholesky factorisation of their Gram matrix. It is lower triangular: a block of columns needs the rows
    from its own first one on.
    """
    queries = rows @ text.T
    root = torch.linalg.qr(rows.T, mode="r").R.T  # L, (n + 1, min(C, n + 1))
    for start in range(0, operator.shape[0], _PIXELS):
        strip = slice(start, start + _PIXELS)
        pixels = operator[strip]
        squares = pixels.new_zeros(pixels.shape[0])
        for first in range(0, root.shape[1], _COLUMNS):
            block = root[first:, first : first + _COLUMNS]
            part = torch.addmm(block[-1], pixels[:, first:], block[:-1])
            squares += torch.linalg.vecdot(part, part)
        norms = squares.sqrt_().clamp_min_(1e-12)
        torch.div(torch.addmm(queries[-1], pixels, queries[:-1]), norms[:, None], out=out[strip])
