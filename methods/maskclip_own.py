"""MaskCLIP as its authors' code has it (Zhou et al., ECCV 2022), with MaskCLIP+'s two refinements as options.

The values of the last block take the place of its attention, with residual and FFN; SegEarth-OV's copy (`maskclip`)
drops both. Text: 80 templates here, 85 there (`scene_templates`). Prompt denoising: words whose best softmax(100 cos)
in the image is below a bound get −100. Key smoothing: scores become (K Kᵀ) softmax(100 s), with K the projected keys
normalised along the tokens, not per key.

Released code: the position embedding is resampled bicubically to the size of the grid; OpenAI's weights, which want
QuickGELU and LayerNorm eps 1e-5, run with GELU and 1e-6 there, here with what they want.
"""

import torch
import torch.nn.functional as F

from bench.api import (
    TEMPLATES,
    Backbone,
    Share,
    Trunk,
    Vocabulary,
    cosine,
    encode_words,
    last_block,
    merge_heads,
    method,
)
from bench.methods.clip_surgery import IN_THE_SCENE


@method("maskclip-own", label="MaskCLIP (own code)", venue="ECCV'22")
class MaskClip:
    def __init__(self, key_smoothing: Share = 0.0, denoising: Share = 0.0, scene_templates: bool = False) -> None:
        self.templates = (*TEMPLATES, *IN_THE_SCENE) if scene_templates else TEMPLATES
        self.key_smoothing = key_smoothing
        self.denoising = denoising

    def encode_text(self, backbone: Backbone, vocabulary: Vocabulary) -> torch.Tensor:
        return encode_words(backbone, vocabulary.queries, self.templates)

    def scores(self, trunk: Trunk, text: torch.Tensor) -> torch.Tensor:
        trunk = trunk.resampled("bicubic")
        features = last_block(trunk, lambda q, k, v: v, residual=True, ffn=True)
        scores = cosine(trunk, features.patches, text)  # (B, Q, h, w)
        if self.denoising:
            best = (100 * scores).softmax(dim=1).amax(dim=(2, 3), keepdim=True)
            scores = scores.masked_fill(best < self.denoising, -100.0)
        if self.key_smoothing:
            keys = F.normalize(merge_heads(trunk, -1, trunk.qkv(-1)[1])[:, 1:], dim=1)  # (B, N, D), along the tokens
            probabilities = (100 * scores).softmax(dim=1).flatten(2).mT  # (B, N, Q)
            smooth = (keys @ keys.mT) @ probabilities
            unsure = probabilities.amax(dim=2, keepdim=True) < self.key_smoothing
            scores = torch.where(unsure, smooth, probabilities).mT.unflatten(2, trunk.grid)
        return scores
