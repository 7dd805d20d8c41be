"""SAM 3 (Meta, 2025) through transformers: an image once, then a pass of its detector for each word.

What the authors' code does and transformers' with a text alone does not: a token of an empty geometric prompt stands
behind the words. Windows are squashed to the model's square on the CPU, 8-bit, so that no device moves a byte.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
import torch.nn.functional as F
from open_clip import SimpleTokenizer
from torch import Tensor, nn

from bench.config import BackboneSpec
from bench.models.checkpoints import read_state_dict, state_fingerprint
from bench.models.clip_weights import DTYPES
from bench.models.text import remembered
from bench.models.tower import Tower, Windows
from bench.models.towers import tiny
from bench.models.towers.loading import filled, needs
from bench.runtime.device import exact_float32, is_out_of_memory, products_in
from bench.runtime.shared_tensors import SharedWeights, counting_changes
from bench.runtime.timing import stage
from bench.settings import Library

TOKENS: Final = 32  # of a word, start and end included
LEAST: Final = 0.1
"""Instances at least as probable are remembered for other rows: the lowest confidence of the authors' settings."""
_REMEMBERED = 1 << 30  # bytes of masks, of a batch of windows
_AT_ONCE = 8  # words on a GPU; a CPU gains nothing from more than one


class Answer(NamedTuple):
    """The detector on one window and one word.

    presence: () probability that the window shows it.
    probability: (N,) of each instance, times presence.
    semantic: (h, w) logits.
    kept: (K,) of `probability`, those above a bound.
    masks: (K, h, w) logits of these instances.
    """

    presence: Tensor
    probability: Tensor
    semantic: Tensor
    kept: Tensor
    masks: Tensor


class Sam3(Tower):
    """A frozen SAM 3; its text encoder stays on the CPU, in float32."""

    library: Library = "sam3"
    version = 1  # of this file; raised when a change moves numbers, so that old results are stale
    patch_size = 1
    dim = 0

    def __init__(self, name: str, model: Any, fingerprint: str, device: str = "cpu", dtype: str = "fp32") -> None:
        self.name = name
        self.fingerprint = fingerprint and f"{fingerprint}, {self.library} {self.version}"
        self.model = model.to(device).requires_grad_(False).eval()
        for part in (self.model.text_encoder, self.model.text_projection):
            part.cpu()
        geometry = self.model.geometry_encoder  # its RoIAlign takes half precision and bfloat16 for one another
        geometry.forward = functools.partial(_in_float32, geometry.forward, device=torch.device(device).type)
        self.device = torch.device(device)
        self.dtype = DTYPES[dtype]
        self.side: int = model.config.vision_config.backbone_config.image_size
        self.weights = SharedWeights(model)
        self.at_once = 1 if self.device.type == "cpu" else _AT_ONCE
        self._tokenizer = SimpleTokenizer(context_length=TOKENS)

    def trunk(self, images: Tensor) -> Sam3Trunk:
        return Sam3Trunk(self, images)

    @torch.inference_mode()
    def encode_words(self, words: Sequence[str], report: Callable[[str], None] = lambda _: None) -> Tensor:
        """(Q, 32, C + 1) float32: features of each word's tokens, and the numbers of the tokens, 0 for none.

        Bare words, without templates; kept on disk as those of CLIP are.
        """
        ids = self._tokenizer(list(words))
        found = []
        for word, tokens in zip(words, ids, strict=True):
            made = remembered(self.fingerprint, "sam3", word, functools.partial(self._features, tokens), report)
            found.append(torch.cat([made.view(TOKENS, -1), tokens[:, None].float()], dim=1))
        return torch.stack(found).to(self.device)

    def _features(self, tokens: Tensor) -> Tensor:
        with exact_float32():
            asked = {"input_ids": tokens[None], "attention_mask": (tokens[None] != 0).long()}
            features: Tensor = self.model.get_text_features(**asked, return_dict=True).pooler_output[0]
        return features.float()


class Sam3Trunk(Windows):
    """SAM 3 on one batch of windows: image features and answers, remembered for all rows."""

    def __init__(self, tower: Sam3, images: Tensor) -> None:
        super().__init__(images, 1)
        self._tower = tower
        self._vision: dict[int, Any] = {}
        self._answers: dict[tuple[int, bool, tuple[int, ...]], tuple[float, Answer]] = {}
        self._bytes = 0

    def forget(self) -> None:
        self._vision.clear()
        self._answers.clear()
        self._bytes = 0

    def answers(self, window: int, words: Tensor, least: float, exact: bool = False) -> Iterator[Answer]:
        """Yield the answer about each word on one window.

        words: (Q, 32, C + 1) of `Sam3.encode_words`.
        least: instances above it are asked for.
        exact: the detector in float32, where the run has a lower precision.
        """
        exact = exact or self._tower.dtype == torch.float32
        keys = [(window, exact, tuple(ids)) for ids in words[..., -1].int().tolist()]
        at = 0
        while at < len(keys):
            if (known := self._answers.get(keys[at])) is not None and known[0] <= least:
                yield known[1]
                at += 1
                continue
            last = at + 1
            while last < min(len(keys), at + self._tower.at_once) and keys[last] not in self._answers:
                last += 1
            try:
                found = self._asked(window, words[at:last], min(least, LEAST), exact)
            except Exception as error:
                if not is_out_of_memory(error) or self._tower.at_once == 1:
                    raise
                self._tower.at_once //= 2
                torch.cuda.empty_cache()
                continue
            for key, answer in zip(keys[at:last], found, strict=True):
                self._remember(key, min(least, LEAST), answer)
            yield from found
            at = last

    def _remember(self, key: tuple[int, bool, tuple[int, ...]], least: float, answer: Answer) -> None:
        size = sum(part.numel() * part.element_size() for part in answer)
        if self._bytes + size <= _REMEMBERED:
            self._bytes += size
            for part in answer:
                self.made.keep("the answer about a word", part)
            self._answers[key] = least, answer

    def _asked(self, window: int, words: Tensor, least: float, exact: bool) -> list[Answer]:
        vision, count = self._features(window), len(words)
        features, ids = words[..., :-1].contiguous(), words[..., -1]
        features.pooler_output = features  # type: ignore[attr-defined]  # as versions of transformers ask for it
        with (
            stage("last block"),
            counting_changes(),
            products_in(torch.float32 if exact else self._tower.dtype, words.device),
        ):
            out = self._tower.model(
                vision_embeds=type(vision)(
                    fpn_hidden_states=_expanded(vision.fpn_hidden_states, count, exact),
                    fpn_position_encoding=_expanded(vision.fpn_position_encoding, count, exact),
                ),
                text_embeds=features,
                attention_mask=(ids != 0).long(),
                input_boxes=words.new_zeros(count, 1, 4),  # none: padding, behind which the geometric token stands
                input_boxes_labels=torch.full((count, 1), -10, device=words.device),
            )
            presence = out.presence_logits.float().sigmoid().view(count)
            probability = out.pred_logits.float().sigmoid() * presence[:, None]  # (count, N)
            found = []
            for number, own in enumerate(probability):
                keep = own > least
                masks = out.pred_masks[number][keep].float()
                semantic = out.semantic_seg[number, 0].float().clone()
                found.append(Answer(presence[number].clone(), own.clone(), semantic, own[keep], masks))
        return found

    def _features(self, window: int) -> Any:
        if window not in self._vision:
            tower = self._tower
            with stage("trunk"), counting_changes(), products_in(tower.dtype, tower.device):
                pixels = squashed(self.rgb[window], tower.side).to(tower.device)
                self._vision[window] = tower.model.get_vision_features((pixels.float() / 255 - 0.5) / 0.5)
        return self._vision[window]


def _in_float32(encode: Callable[..., Any], *, device: str, **given: Any) -> Any:
    """Call a module without autocast, on floats of 32 bits."""
    with torch.autocast(device, enabled=False):
        return encode(**{name: _floats(value) for name, value in given.items()})


def _floats(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return type(value)(_floats(one) for one in value)
    return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value


def squashed(rgb: Tensor, side: int) -> Tensor:
    """(3, H, W) in 0..1 -> uint8 (1, 3, side, side), antialiased on the CPU as torchvision resizes 8-bit images."""
    pixels = (rgb.cpu() * 255).round().clamp(0, 255).to(torch.uint8)
    return F.interpolate(pixels[None], size=(side, side), mode="bilinear", antialias=True)


def _expanded(maps: Sequence[Tensor], count: int, exact: bool) -> tuple[Tensor, ...]:
    every = (one.float() if exact else one for one in maps)
    return tuple(one.expand(count, -1, -1, -1) for one in every)


def load(name: str, spec: BackboneSpec, file: Path, device: str, dtype: str) -> Sam3:
    """Load SAM 3 from a file in its authors' form or the hub's."""
    transformers = needs("transformers", name)
    model = transformers.Sam3Model(transformers.Sam3Config())
    fingerprint = filled(model, needed(named(read_state_dict(file)), model), file, "SAM 3")
    return Sam3(name, model, fingerprint, device, dtype)


def needed(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Keep the weights that the model has; a file also holds a second neck for the tracker, and prompts by points.

    The text encoder's own projection is not used, and may be missing: zeros, for the fingerprint.
    """
    own = model.state_dict()
    unused = "text_encoder.text_projection.weight"
    return {unused: torch.zeros_like(own[unused]), **{name: value for name, value in state.items() if name in own}}


def random(name: str, spec: BackboneSpec, device: str, dtype: str) -> Sam3:
    """Return SAM 3 at its true size with random weights: 3.4 GB in float32."""
    transformers = needs("transformers", name)
    return Sam3(name, transformers.Sam3Model(transformers.Sam3Config()), "", device, dtype)


def tiny_sam3(name: str, seed: int, device: str = "cpu", dtype: str = "fp32") -> Sam3:
    """Return a tiny SAM 3 whose weights are drawn."""
    transformers = needs("transformers", name)
    model = transformers.Sam3Model(tiny.sam3_config(transformers))
    tiny.fill(model, "sam3", tiny.sam3_rule, seed)
    return Sam3(name, model, state_fingerprint(model.state_dict()), device, dtype)


def named(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Name weights as transformers does, of a file by these names or by the authors'; the tracker's are left out."""
    for prefix in ("detector_model.", "detector."):
        if any(name.startswith(prefix) for name in state):
            own = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
            return named(own)
    if any(name.startswith("vision_encoder.") for name in state):
        return state
    patterns = json.loads(Path(__file__).with_name("sam3_names.json").read_text(encoding="utf-8"))
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        if name.endswith("freqs_cis") or "points_" in name:
            continue  # a table that is computed, and prompts by points
        for pattern, new in patterns:
            name = re.sub(pattern, new, name)
        if name.endswith("embeddings.position_embeddings"):
            value = value[:, -(int(value.shape[1] ** 0.5) ** 2) :]  # without that of a class token
        if name.endswith("text_projection.weight") and name.startswith("text_encoder."):
            value = value.T
        fused = re.search(r"(qkv\.|in_proj_)(?=weight|bias)", name)
        if fused is None:
            found[name] = value
            continue
        for part, third in zip("qkv", value.chunk(3), strict=True):
            found[name.replace(fused[0], f"{part}_proj.")] = third
    return found
