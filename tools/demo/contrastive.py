"""The tiny CLIP while it is trained: small crops, few tokens, soft multi-positive InfoNCE."""

from __future__ import annotations

from typing import Any, Final

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tools.demo.captions import sentences_of_training

MEAN = torch.tensor(open_clip.OPENAI_DATASET_MEAN).view(3, 1, 1) * 255
STD = torch.tensor(open_clip.OPENAI_DATASET_STD).view(3, 1, 1) * 255


class TinyClip(nn.Module):
    """open_clip's CLIP with a token table of only the tokens that captions hold.

    tokens (n,): the tokenizer's indices of the table's rows.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.tokenizer = open_clip.SimpleTokenizer(context_length=config["text_cfg"]["context_length"])
        self.tokens = self.tokenizer(list(sentences_of_training())).unique()
        text = config["text_cfg"] | {"vocab_size": len(self.tokens)}
        self.clip = open_clip.CLIP(**config | {"text_cfg": text})
        self.clip.logit_scale.data.fill_(torch.tensor(14.0).log())

    def load(self, state: dict[str, Tensor]) -> None:
        """Take over a state dict with open_clip's names and the whole token table."""
        table = state["token_embedding.weight"][self.tokens]
        self.clip.load_state_dict(state | {"token_embedding.weight": table})

    def encode_captions(self, sentences: tuple[str, ...]) -> Tensor:
        """Return unit embeddings (M, C)."""
        ids = torch.searchsorted(self.tokens, self.tokenizer(list(sentences)))
        length = int((ids != 0).sum(1).max())  # row 0 is the padding token's
        clip = self.clip
        x = clip.token_embedding(ids[:, :length]) + clip.positional_embedding[:length]
        x = clip.ln_final(clip.transformer(x, attn_mask=clip.attn_mask[:length, :length]))
        last = x[torch.arange(len(ids)), ids.argmax(1)]  # the end-of-text token is the highest
        return F.normalize(last @ clip.text_projection, dim=-1)

    def encode_crops(self, images: Tensor, corner: tuple[int, int], readings: Tensor) -> Tensor:
        """Return unit embeddings (N, C) of normalised crops (N, 3, S, S).

        corner: where in the grid of position embeddings the crop's grid is (row, column). readings (N,): what is
        read of each crop, an index of READINGS.
        """
        visual = self.clip.visual
        x = visual.conv1(images)
        rows, columns = x.shape[-2:]
        grid = visual.positional_embedding[1:].unflatten(0, visual.grid_size)
        grid = grid[corner[0] : corner[0] + rows, corner[1] : corner[1] + columns].flatten(0, 1)
        first = (visual.class_embedding + visual.positional_embedding[0]).expand(len(x), 1, -1)
        x = visual.ln_pre(torch.cat([first, x.flatten(2).transpose(1, 2) + grid], 1))
        *blocks, last = visual.transformer.resblocks
        for block in blocks:
            x = block(x)
        read = x.new_empty(len(x), visual.output_dim)
        for index, reading in enumerate(READINGS):
            chosen = readings == index
            read = read.index_put((chosen,), _projected(visual, reading(last, x[chosen])).mean(1))
        return F.normalize(read, dim=-1)


def _class_token(block: Any, x: Tensor) -> Tensor:
    normed = block.ln_1(x)
    attended = x[:, :1] + block.attn(normed[:, :1], normed, normed, need_weights=False)[0]
    whole: Tensor = attended + block.mlp(block.ln_2(attended))
    return whole


def _plain_class_token(block: Any, x: Tensor) -> Tensor:
    normed = block.ln_1(x)
    attended: Tensor = block.attn(normed[:, :1], normed, normed, need_weights=False)[0]
    return attended


def _patches(block: Any, x: Tensor) -> Tensor:
    whole: Tensor = block(x)
    return whole[:, 1:]


READINGS: Final = (_class_token, _plain_class_token, _patches)
"""What training reads of the last block, given that block and its input: the class token, as CLIP does; the same
without residual and feed-forward network, the path of most dense methods; or all patches, whose embeddings are
averaged.
"""


def _projected(visual: Any, tokens: Tensor) -> Tensor:
    projected: Tensor = visual.ln_post(tokens) @ visual.proj
    return projected


def contrastive_loss(scores: Tensor, weight: Tensor, unsure: Tensor) -> Tensor:
    """Soft multi-positive InfoNCE over scaled cosine scores (N crops, M captions), both directions.

    weight (N, M) >= 0: how much a caption is a positive of a crop; unsure (N, M) bool: pairs left out of the
    denominators.
    """
    scores = scores.masked_fill(unsure, -1e4)
    total = scores.new_zeros(())
    for dim in (0, 1):
        mass = weight.sum(dim, keepdim=True)
        share = weight / mass.clamp_min(1e-6)
        loss = -(share * F.log_softmax(scores, dim)).sum(dim)
        has_positive = (mass > 0).squeeze(dim)
        total = total + loss[has_positive].mean() / 2
    return total


def jitter(images: Tensor, generator: torch.Generator) -> Tensor:
    """Normalise crops (N, S, S, 3) uint8 to (N, 3, S, S) float32, with random brightness, contrast and colour cast."""
    x = images.permute(0, 3, 1, 2).float()
    gain = 1 + 0.3 * (torch.rand(len(x), 1, 1, 1, generator=generator) - 0.5)
    cast = 1 + 0.16 * (torch.rand(len(x), 3, 1, 1, generator=generator) - 0.5)
    shift = 40 * (torch.rand(len(x), 1, 1, 1, generator=generator) - 0.5)
    return ((x * gain * cast + shift).clamp(0, 255) - MEAN) / STD
