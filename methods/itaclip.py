"""ITACLIP (Aydın et al., arXiv 2411.12044): attention of middle blocks, words with a second meaning, and other views.

Last block: A = ½ A₁₂ + ½ mean(A₇, A₈, A₁₀) with A_i = softmax(qqᵀ/√d) + softmax(kkᵀ/√d); residual kept, FFN dropped.
Text: (1 − a) word + a second text of its class (a language model's definition or a synonym), not normalised again;
the second texts are a file, one line per class. Views: with `views`, unit features of the window, its grey and its
blurred version are averaged, and the scores of both flips are mixed in.

Released code: strides of 28 (112 here, as all rows), PAMR at the original size (`itaclip+pamr`), and a 3 × 3 closing
of the label map, which is left out, since counts are kept by probability. Its second texts belong to natural images.
"""

from pathlib import Path

import torch
import torch.nn.functional as F

from bench.api import Backbone, Share, Trunk, Vocabulary, attention, cosine, encode_words, last_block, method

GREY = (0.2989, 0.587, 0.114)
BLUR, SIGMA = 11, 5.0  # pixels


@method("itaclip", label="ITACLIP", venue="arXiv'24")
class ItaClip:
    def __init__(
        self,
        definitions: Path | None = None,
        definition_share: Share = 0.05,
        views: bool = False,
        view_share: Share = 0.7,
    ) -> None:
        self.definitions = definitions
        self.definition_share = definition_share
        self.views = views
        self.view_share = view_share

    def encode_text(self, backbone: Backbone, vocabulary: Vocabulary) -> torch.Tensor:
        words = encode_words(backbone, vocabulary.queries)
        if self.definitions is None:
            return words
        lines = [line.strip() for line in self.definitions.read_text(encoding="utf-8").splitlines() if line.strip()]
        if len(lines) != vocabulary.size:
            raise ValueError(f"{self.definitions}: {len(lines)} lines for {vocabulary.size} classes")
        second = encode_words(backbone, lines)[list(vocabulary.classes)]
        return (1 - self.definition_share) * words + self.definition_share * second

    def scores(self, trunk: Trunk, text: torch.Tensor) -> torch.Tensor:
        if not self.views:
            return cosine(trunk, patches(trunk), text)
        seen = [trunk, trunk.of(grey(trunk.images)), trunk.of(blurred(trunk.images))]
        unit = torch.stack([F.normalize(patches(view), dim=-1) for view in seen]).mean(dim=0)
        scores = (unit @ text.T).mT.unflatten(2, trunk.grid)
        mirrored = []
        for axis in (3, 2):  # left and right, top and bottom
            view = trunk.of(trunk.images.flip(axis))
            mirrored.append(cosine(view, patches(view), text).flip(axis))
        return self.view_share * scores + (1 - self.view_share) * torch.stack(mirrored).mean(dim=0)


def patches(trunk: Trunk) -> torch.Tensor:
    """Patch features (B, N, C) of the last block with the attention of earlier ones mixed in."""
    middle = [_correlative(*trunk.qkv(index)[:2]) for index in (-6, -5, -3)]  # blocks 7, 8 and 10 of twelve
    borrowed = torch.stack(middle).mean(dim=0)

    def mix(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return (_correlative(q, k) + borrowed) / 2 @ v

    return last_block(trunk, mix, residual=True, ffn=False).patches


def _correlative(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    return attention(q, q) + attention(k, k)


def grey(images: torch.Tensor) -> torch.Tensor:
    """Windows (B, 3, H, W) without colours, of the normalised values."""
    shares = torch.tensor(GREY, device=images.device).view(1, 3, 1, 1)
    return (shares * images).sum(dim=1, keepdim=True).expand_as(images)


def blurred(images: torch.Tensor) -> torch.Tensor:
    """Windows (B, 3, H, W) after a Gaussian of 11 pixels, borders reflected."""
    offsets = torch.arange(BLUR, device=images.device, dtype=images.dtype) - BLUR // 2
    kernel = torch.exp(-(offsets**2) / (2 * SIGMA**2))
    kernel = (kernel / kernel.sum()).expand(3, 1, -1)
    padded = F.pad(images, (BLUR // 2,) * 4, mode="reflect")
    rows = F.conv2d(padded, kernel[:, :, None], groups=3)
    return F.conv2d(rows, kernel[:, :, :, None], groups=3)
