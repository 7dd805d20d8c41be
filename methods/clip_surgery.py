"""CLIP Surgery (Li et al., Pattern Recognition 2025): v·v attention in a parallel stream, scores less their mean.

Paper: arXiv 2304.05653.

The stream starts at the input of the last six blocks and gets, in each of them, what softmax(vvᵀ/√d) v gives after
the output projection, with the v of the ordinary stream; it passes no FFN. Scores: w_q cos(n, q) − mean_q' w_q'
cos(n, q') with w = softmax_q(2 cos(CLS, q)) over its mean. Text: 85 templates. The subtracted mean is the same for
all words of a patch, so that it changes no label.

Released code: the position embedding is resampled bilinearly. Maps of the demo are scaled word by word to 0 … 1 over
the image, which is left out here, as scores of different images could not be compared then; its evaluation was not
released. For a single word the text of the empty word is subtracted.
"""

import torch
import torch.nn.functional as F

from bench.api import TEMPLATES, Backbone, Trunk, Vocabulary, attention, cosine, encode_words, merge_heads, method

IN_THE_SCENE = tuple(
    (lambda word, start=start: f"{start} {word} in the scene.")
    for start in ("there is a", "there is the", "this is a", "this is the", "this is one")
)


@method("clip-surgery", label="CLIP Surgery", venue="PR'25")
class ClipSurgery:
    def __init__(self, blocks: int = 6) -> None:
        self.blocks = blocks

    def encode_text(self, backbone: Backbone, vocabulary: Vocabulary) -> torch.Tensor:
        text = encode_words(backbone, vocabulary.queries, (*TEMPLATES, *IN_THE_SCENE))
        if len(text) == 1:
            text = text - encode_words(backbone, [""], (*TEMPLATES, *IN_THE_SCENE))
        return text

    def scores(self, trunk: Trunk, text: torch.Tensor) -> torch.Tensor:
        trunk = trunk.resampled("bilinear")
        stream = trunk.input(trunk.depth - self.blocks)
        for index in range(trunk.depth - self.blocks, trunk.depth):
            v = trunk.qkv(index)[2]
            stream = stream + merge_heads(trunk, index, attention(v, v) @ v)
        cosines = cosine(trunk, trunk.project(stream).patches, text)  # (B, Q, h, w)
        if len(text) == 1:
            return cosines
        cls = F.normalize(trunk.joint(trunk.input(trunk.depth)[:, 0]), dim=-1)  # (B, C)
        weights = (2 * cls @ text.T).softmax(dim=-1)
        weighted = (weights / weights.mean(dim=-1, keepdim=True))[:, :, None, None] * cosines
        return weighted - weighted.mean(dim=1, keepdim=True)
