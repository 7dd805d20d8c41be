"""FLOSS (Benigmim et al., ICCV 2025) on NACLIP: for each word an expert, the templates that suit it best.

Before: over unlabelled images, each of the 80 templates alone; templates are ranked by the mean entropy of
softmax(100 cos) over the pixels predicted as the word, and the best four are kept. At inference expert c encodes all
words with the templates of word c; one more has all 80. Of the experts that predict their own word at a pixel the
surest gives the probabilities; where none does, the last one.

Here the ranking is a file, `ranking`: one line per word of the vocabulary, numbers of templates (0 to 79) separated
by blanks; an empty line, or no file, stands for all. `python -m bench templates` writes it. The authors ship such
rankings for five datasets of natural images. Scores are probabilities, so `scale: 100` is the authors' second softmax.
"""

from pathlib import Path

import torch
import torch.nn.functional as F

from bench.api import TEMPLATES, Backbone, Trunk, Vocabulary, cosine, encode_words, method
from bench.methods.naclip import naclip


@method("floss", label="FLOSS", venue="ICCV'25", scale=100.0)
class Floss:
    def __init__(self, ranking: Path | None = None, sharpness: float = 100.0) -> None:
        self.ranking = ranking
        self.sharpness = sharpness

    def encode_text(self, backbone: Backbone, vocabulary: Vocabulary) -> torch.Tensor:
        """(1 + E, Q, C): all templates, then each expert's."""
        words = vocabulary.queries
        everybody = encode_words(backbone, words)
        if self.ranking is None:
            return everybody[None].expand(len(words) + 1, -1, -1)
        lines = self.ranking.read_text(encoding="utf-8").splitlines()[: len(words)]
        chosen = [[int(number) for number in line.split()] for line in lines]
        if len(chosen) != len(words) or not all(0 <= n < len(TEMPLATES) for numbers in chosen for n in numbers):
            raise ValueError(f"{self.ranking}: a line of template numbers for each of {len(words)} words is needed")
        experts = [
            encode_words(backbone, words, [TEMPLATES[n] for n in numbers]) if numbers else everybody
            for numbers in chosen
        ]
        return torch.stack([everybody, *experts])

    def scores(self, trunk: Trunk, text: torch.Tensor) -> torch.Tensor:
        patches = naclip(trunk).patches
        size = trunk.images.shape[2:]
        result, surest = self._probabilities(trunk, patches, text[0], size), None
        for word, expert in enumerate(text[1:]):
            found = self._probabilities(trunk, patches, expert, size)  # (B, Q, H, W)
            best, predicted = found.max(dim=1, keepdim=True)
            sure = torch.where(predicted == word, best, -1.0)
            better = sure > (torch.full_like(sure, -1.0) if surest is None else surest)
            result = torch.where(better, found, result)
            surest = sure if surest is None else sure.maximum(surest)
        return result

    def _probabilities(self, trunk: Trunk, patches: torch.Tensor, text: torch.Tensor, size: torch.Size) -> torch.Tensor:
        probability = (self.sharpness * cosine(trunk, patches, text)).softmax(dim=1)
        return F.interpolate(probability, size=size, mode="bilinear")
