"""ResCLIP (Yang et al., CVPR 2025): residual attention from middle blocks; a second pass knows the first's words.

R is the mean of the q·k maps of four middle blocks. Pass 1: A = τ_r((1 − λ_r) softmax(kkᵀ/√d + G) + λ_r R) in the
last block, without residual and FFN, G as in NACLIP; its cosines, enlarged and refined (PAMR), give each patch a
word. Patches that share a word attend to each other, less where another word is between them (S, `same_word`). Pass
2 has the logits τ_s((1 − λ_s) kkᵀ/√d + λ_s S) + G in place of kkᵀ/√d + G.

Released code: multiplies by τ as well, so that rows add up to 2 and not to 1 as in the paper; the line test looks at
the first part of a line only unless it is the longest; unsure pixels get word 0, not class 0. Parameters are those
for ADE20K (PAMR and thresholds differ by dataset there). The features depend on the words, so `text` is a parameter.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from bench.api import Features, Trunk, attention, cosine, gaussian, last_block, method
from bench.methods.pamr import diffuse

TAPS = 31  # of the smoothing of S
SIGMA = 5.0  # patches


@method("resclip", label="ResCLIP", venue="CVPR'25")
def resclip(
    trunk: Trunk,
    text: torch.Tensor,
    residual: float = 0.3,
    residual_gain: float = 2.0,
    feedback: float = 0.7,
    feedback_gain: float = 2.1,
    threshold: float = 0.25,
) -> Features:
    middle = range(trunk.depth // 2 - 1, trunk.depth - 3)  # blocks 6 to 9 of twelve
    borrowed = torch.stack([attention(*trunk.qkv(index)[:2]) for index in middle]).mean(dim=0)
    bias = gaussian(trunk, SIGMA)

    def features(logits_of: Callable[[torch.Tensor], torch.Tensor]) -> Features:
        def mix(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            own = (logits_of(k * k.shape[-1] ** -0.5 @ k.mT) + bias).softmax(dim=-1)
            return residual_gain * ((1 - residual) * own + residual * borrowed) @ v

        return last_block(trunk, mix, residual=False, ffn=False)

    words = first_words(trunk, features(lambda logits: logits), text, threshold)
    similar = same_word(words)  # (B, 1, N + 1, N + 1)
    return features(lambda logits: feedback_gain * ((1 - feedback) * logits + feedback * similar))


def first_words(trunk: Trunk, features: Features, text: torch.Tensor, threshold: float) -> torch.Tensor:
    """(B, h, w) the commonest word among the pixels of each patch."""
    size = trunk.images.shape[2:]
    scores = F.interpolate(cosine(trunk, features.patches, text), size=size, mode="bilinear")
    refined = torch.stack([diffuse(image, of_image) for image, of_image in zip(trunk.images, scores, strict=True)])
    best, word = (40 * refined).softmax(dim=1).max(dim=1)
    word = torch.where(best < threshold, 0, word)  # (B, H, W)
    patch = size[0] // trunk.grid[0]
    pixels = word.unfold(1, patch, patch).unfold(2, patch, patch).flatten(3)  # (B, h, w, patch²)
    return F.one_hot(pixels, len(text)).sum(dim=3).argmax(dim=3)


def same_word(words: torch.Tensor) -> torch.Tensor:
    """S (B, 1, 1 + N, 1 + N) of the words (B, h, w): smoothed along the patches, 0 for CLS, at most 1."""
    found = smoothed(shared(words))
    found = found / (found.sum(dim=-1, keepdim=True) + 1e-8)
    found = found / found.amax(dim=(1, 2), keepdim=True)
    return F.pad(found, (1, 0, 1, 0))[:, None]


def shared(words: torch.Tensor) -> torch.Tensor:
    """(B, N, N): 1 where two patches share a word, exp(−s/s_max) where the line between them leaves it, else 0."""
    _, height, width = words.shape
    device = words.device
    y, x = (axis.flatten() for axis in torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"))
    distance = torch.maximum((y[:, None] - y).abs(), (x[:, None] - x).abs())  # (N, N) Chebyshev
    longest = int(distance.max())
    share = torch.linspace(0, 1, longest + 1)  # of the way, (s_max + 1,)
    line_y, line_x = (  # (N, N, s_max + 1)
        torch.round(axis[:, None, None] * (1 - share) + axis[None, :, None] * share).long() for axis in (y, x)
    )
    looked_at = (torch.arange(longest + 1) <= distance[..., None]).to(device)
    flat = words.flatten(1)
    same = flat[:, :, None] == flat[:, None]
    along = words[:, line_y.to(device), line_x.to(device)]  # (B, N, N, s_max + 1)
    leaves = ((along != flat[:, :, None, None]) & looked_at).any(dim=-1)
    fading = torch.exp(-distance.to(device) / max(longest, 1))
    return torch.where(leaves, fading, 1.0) * same


def smoothed(matrix: torch.Tensor) -> torch.Tensor:
    """Rows (B, N, N) after a Gaussian along the row-major index of the patches, zeros beyond the ends."""
    offsets = torch.arange(TAPS, device=matrix.device, dtype=matrix.dtype) - TAPS // 2
    kernel = torch.exp(-(offsets**2) / (2 * SIGMA**2))
    kernel = (kernel / kernel.sum()).view(1, 1, -1)
    return F.conv1d(matrix.flatten(0, 1)[:, None], kernel, padding=TAPS // 2).view_as(matrix)
