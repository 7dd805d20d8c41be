"""VIP (2026): the head of dino.txt attends to patches that DINOv3 finds alike; words of a class are weighed.

F: unit patches of DINOv3, S = F·Fᵀ, S' = (S − 1.5·mean S)/2, A = softmax of S' > 0, in place of the attention in both
blocks of the head and all heads; among patches alone. The cosine with a word is averaged over the 80 templates. Per
window, the n words of a class get weights w = softmax(cos(mean patch, word)/`temperature`), and the class the logit
(1/`tau`)·logsumexp(`tau`·40·cos·w·n). Classes, not words, enter the softmax.

The released code gives NaN where the mean is above 2/3; here a patch always keeps itself. It needs windows of 336: here
others are padded to patches of 16. Its 10 templates for natural images are left out. It runs in bfloat16.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.api import TEMPLATES, Dinotxt, DinotxtTrunk, Vocabulary, method, remembered
from bench.methods.proxyclip import affinity


@method(
    "vip",
    label="VIP",
    venue="2026",
    tower="dinotxt",
    backbone="dinotxt-vitl16",
    protocol="vip-dinotxt",
    scale=1.0,
)
class Vip:
    per_class = True

    def __init__(self, tau: float = 4.0, temperature: float = 1.0, sharpness: float = 40.0) -> None:
        self.tau, self.temperature, self.sharpness = tau, temperature, sharpness
        self._classes: tuple[int, ...] = ()

    def encode_text(self, backbone: Dinotxt, vocabulary: Vocabulary) -> Tensor:
        """(Q, 80, C) of unit length."""
        return self.given([_sentences(backbone, word) for word in vocabulary.queries], vocabulary)

    def given(self, words: list[Tensor], vocabulary: Vocabulary) -> Tensor:
        """Take embeddings (T, C) of each word with each template."""
        self._classes = vocabulary.classes
        return F.normalize(torch.stack(words), dim=-1)

    def tokens(self, trunk: DinotxtTrunk) -> Tensor:
        """Patches (B, N, D) after the head, not normalised."""
        unit = F.normalize(trunk.patches, dim=-1)
        likeness = unit @ unit.mT  # (B, N, N)
        weights = affinity(likeness, likeness.mean(dim=(1, 2), keepdim=True), 1.5, 0.5)
        return trunk.tower.head(trunk.patches, weights)

    def scores(self, trunk: DinotxtTrunk, text: Tensor) -> Tensor:
        """(B, K, h, w) logits of the classes."""
        patches = F.normalize(self.tokens(trunk), dim=-1)
        cosine = (patches @ text.mean(dim=1).T).mT  # (B, Q, N), averaged over the templates
        mean = F.normalize(patches.mean(dim=1), dim=-1)  # (B, D)
        fit = mean @ F.normalize(text.mean(dim=1), dim=-1).T / self.temperature  # (B, Q)
        found = []
        for number in sorted(set(self._classes)):  # a class may have no words
            own = [query for query, of in enumerate(self._classes) if of == number]
            weight = fit[:, own].softmax(dim=1) * len(own)  # of mean 1
            logits = self.tau * self.sharpness * cosine[:, own] * weight[..., None]
            found.append(logits.logsumexp(dim=1) / self.tau)
        return torch.stack(found, dim=1).unflatten(2, trunk.grid)


def _sentences(backbone: Dinotxt, word: str) -> Tensor:
    made = remembered(
        backbone.fingerprint,
        "dinotxt",
        word,
        lambda: backbone.encode_prompts([template(word) for template in TEMPLATES]),
    )
    return made.view(len(TEMPLATES), -1).to(backbone.device)
