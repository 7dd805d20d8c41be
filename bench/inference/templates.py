"""Ranking of prompt templates per word over images without labels: FLOSS (Benigmim et al., ICCV 2025)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.data.images import resize
from bench.errors import BenchError
from bench.inference.postprocess import enlarged_strips
from bench.inference.segmenter import Segmenter
from bench.models.text import TEMPLATES, encode_words
from bench.models.tower import reader_of

SHARPNESS = 100.0  # of cosines before the softmax
_AT_ONCE = 1 << 27  # scores of an image that are held: 0.5 GB


def rank_templates(
    segmenter: Segmenter, words: Sequence[str], images: Iterable[NDArray[np.uint8]], keep: int = 4
) -> list[list[int]]:
    """For each word, the templates that suit it best, the best first: numbers from 0, at most `keep`.

    segmenter: of one row, whose method is looked at. images: RGB uint8 (H, W, 3). Each
    template stands alone; it suits a word where the pixels that it gives the word to are sure: by the mean entropy
    (in nats) of softmax(100 cos) over them, at the images' own size. A template that never gives a word to a pixel is
    left out for that word.
    """
    (row,) = segmenter.rows
    backbone = segmenter.backbone
    texts = [encode_words(reader_of(backbone), words, [template]) for template in TEMPLATES]
    sums = torch.zeros(len(TEMPLATES), len(words), dtype=torch.float64)
    counts = torch.zeros_like(sums)
    classes = torch.arange(len(words), device=backbone.device)
    for image in images:
        assert segmenter.resize is not None
        small, size = resize(image, segmenter.resize), image.shape[:2]
        step = max(1, _AT_ONCE // (len(words) * small.shape[0] * small.shape[1]))
        for start in range(0, len(texts), step):
            rows = [
                replace(row, name=str(number), text=texts[number], classes=classes)
                for number in range(start, min(start + step, len(texts)))
            ]
            one = Segmenter(backbone, rows, segmenter.window, segmenter.stride, segmenter.batch)
            for name, scores in one.scores(small).items():
                if isinstance(scores, Exception):
                    raise BenchError(f"row '{row.name}': {type(scores).__name__}: {scores}")
                _add(scores, (size[0], size[1]), sums[int(name)], counts[int(name)])
    means = torch.where(counts > 0, sums / counts.clamp_min(1), torch.inf)  # (T, Q)
    ranked = means.sort(dim=0, stable=True)
    return [
        [int(number) for number, mean in zip(numbers[:keep], best[:keep], strict=True) if mean < torch.inf]
        for numbers, best in zip(ranked.indices.T, ranked.values.T, strict=True)
    ]


def _add(scores: Tensor, size: tuple[int, int], sums: Tensor, counts: Tensor) -> None:
    """One template on one image: entropies of the pixels of each word, and how many they are."""
    for _, strip in enlarged_strips(SHARPNESS * scores[None], size):
        probability = strip[0].softmax(dim=0)  # (Q, rows, W)
        entropy = torch.special.entr(probability).sum(dim=0).flatten().double()
        winner = probability.argmax(dim=0).flatten()
        sums += torch.bincount(winner, weights=entropy, minlength=len(sums)).cpu()
        counts += torch.bincount(winner, minlength=len(sums)).cpu()
