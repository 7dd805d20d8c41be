"""PEARL's propagation (CVPR 2026): scores spread between neighbouring cells that look alike and name the same words.

The scores s are averaged over cells, about 80 along each side of the image; p = softmax(s) over the words. With the
similarity d of each word with itself (softmax(TTᵀ/0.5) + 10 I, rows normalised), cells trust themselves by C =
max(best p, 0.05)²(1 + Σ d p²), and neighbours by weights exp(−5 |Δgrey| / mean)(1 + Σ d p p'), at most 1. (C + L) x =
C s is solved by 25 steps of conjugate gradients from s, for all words at once, and x is enlarged bilinearly.

Released code: an einsum takes the diagonal of the word-similarity matrix, so that words never support each other,
though abstract and README speak of a text-guided graph. Use: `pearl+tlp`.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from bench.api import refinement

CELLS = 80  # along each side of an image
GREY = (0.299, 0.587, 0.114)  # shares of red, green and blue


@refinement("tlp", label="TLP")
def tlp(image: torch.Tensor, scores: torch.Tensor, text: torch.Tensor, steps: int = 25) -> torch.Tensor:
    cell = (max(1, round(image.shape[1] / CELLS)), max(1, round(image.shape[2] / CELLS)))
    s = F.avg_pool2d(scores[None], cell)[0]  # (Q, h, w)
    shares = torch.tensor(GREY, device=image.device)
    grey = torch.einsum("c,chw->hw", shares, F.avg_pool2d(image[None], cell)[0])
    probability = s.softmax(dim=0)
    similarity = (text @ text.T / 0.5).softmax(dim=-1) + 10 * torch.eye(len(text), device=text.device)
    own = (similarity / similarity.sum(dim=-1, keepdim=True)).diagonal()[:, None, None]  # (Q, 1, 1)
    trust = probability.amax(dim=0).clamp(min=0.05) ** 2 * (1 + (own * probability**2).sum(dim=0))
    weights = [_edges(grey, probability, own, axis) for axis in (0, 1)]

    def apply(x: torch.Tensor) -> torch.Tensor:
        found = trust * x
        for axis, weight in enumerate(weights):
            flow = weight * x.diff(dim=axis + 1)
            found = found - F.pad(flow, _after(axis)) + F.pad(flow, _before(axis))
        return found

    x = _conjugate_gradients(apply, trust * s, s, steps)
    return F.interpolate(x[None], size=scores.shape[1:], mode="bilinear")[0]


def _edges(grey: torch.Tensor, probability: torch.Tensor, own: torch.Tensor, axis: int) -> torch.Tensor:
    """Weights between neighbours along an axis."""
    difference = grey.diff(dim=axis).abs()
    length = grey.shape[axis]
    one, other = (probability.narrow(axis + 1, first, length - 1) for first in (0, 1))
    alike = torch.exp(-5 * difference / (difference.mean() + 1e-8))
    return (alike * (1 + (own * one * other).sum(dim=0))).clamp(max=1)


def _after(axis: int) -> tuple[int, ...]:
    return (0, 0, 0, 1) if axis == 0 else (0, 1)


def _before(axis: int) -> tuple[int, ...]:
    return (0, 0, 1, 0) if axis == 0 else (1, 0)


def _conjugate_gradients(
    apply: Callable[[torch.Tensor], torch.Tensor], target: torch.Tensor, x: torch.Tensor, steps: int
) -> torch.Tensor:
    """Solves apply(x) = target from x; the words are one system."""
    residual = target - apply(x)
    direction = residual
    norm = (residual**2).sum()
    for _ in range(steps):
        image = apply(direction)
        size = norm / ((direction * image).sum() + 1e-12)
        x = x + size * direction
        residual = residual - size * image
        new = (residual**2).sum()
        direction = residual + new / (norm + 1e-12) * direction
        norm = new
    return x
