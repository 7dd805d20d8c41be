"""SegEarth-OV3 (Li et al., 2025) and ProC-SAM3's fusion: the heads of SAM 3 joined, word by word.

π is the presence of a word, p_i = σ(logit_i)·π the probability of instance i, m_i its mask and s the semantic map, both
enlarged from the model's 288 x 288 to the window before the sigmoid. Instances with p_i > `confidence` are kept, and
f = max(s, max_i m_i·p_i). SegEarth-OV3 scores f·π, so that π stands twice before instances; ProC-SAM3 (`fusion: pgrf`)
moves s towards f by π·max_i p_i·(1 − |s − f|), over all instances, and scores this, within 0.0001 and 0.9999, times π.
Scores are probabilities; a class has that of its best word.

Words are bare, without templates. Windows see the original image. The authors run bfloat16: `--dtype bf16`, under which
ProC-SAM3's detector stays in float32. Ablations: `instances`, `semantic` and `presence` leave a part out; π remains in
p_i, as in the released code.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.api import Answer, Sam3, Sam3Trunk, Share, Vocabulary, method


@method(
    "segearth-ov3",
    label="SegEarth-OV3",
    venue="arXiv'25",
    tower="sam3",
    backbone="sam3",
    protocol="ov3",
    resize="original",
    window="none",
    scale="none",
)
class SegEarthOV3:
    def __init__(
        self,
        confidence: Share = 0.5,
        fusion: Literal["max", "pgrf"] = "max",
        instances: bool = True,
        semantic: bool = True,
        presence: bool = True,
    ) -> None:
        self.confidence, self.fusion = confidence, fusion
        self.instances, self.semantic, self.presence = instances, semantic, presence

    def encode_text(self, backbone: Sam3, vocabulary: Vocabulary) -> Tensor:
        return backbone.encode_words(vocabulary.queries)

    def scores(self, trunk: Sam3Trunk, text: Tensor) -> Tensor:
        found = trunk.images.new_empty(len(trunk.images), len(text), *trunk.images.shape[2:])
        for window, of_words in enumerate(found):
            answers = trunk.answers(window, text, self.confidence, exact=self.fusion == "pgrf")
            for of_word, answer in zip(of_words, answers, strict=True):
                of_word.copy_(self._score(answer, of_word.shape))
        return found

    def _score(self, answer: Answer, size: torch.Size) -> Tensor:
        semantic = _enlarged(answer.semantic, size) if self.semantic else answer.semantic.new_zeros(size)
        joined = semantic
        for mask, probability in zip(answer.masks, answer.kept, strict=True) if self.instances else ():
            if probability > self.confidence:  # one after the other: an original may have millions of pixels
                joined = torch.maximum(joined, _enlarged(mask, size) * probability)
        if self.fusion == "pgrf":
            gate = answer.presence * answer.probability.max() * (1 - (semantic - joined).abs())
            joined = (semantic + gate * (joined - semantic)).clamp(1e-4, 1 - 1e-4)
        return joined * answer.presence if self.presence else joined


def _enlarged(logits: Tensor, size: torch.Size) -> Tensor:
    """(h, w) -> probabilities of that size."""
    return F.interpolate(logits[None, None], size=size, mode="bilinear")[0, 0].sigmoid()
