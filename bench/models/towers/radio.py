"""C-RADIOv3 (NVIDIA, 2025) through timm, with the words of SigLIP 2 through open_clip.

RADIO's own rule meets another grid of patches, which timm's does not: the position embedding is resampled bilinearly to
the square of the longer side and cropped. The language head, an MLP that takes patches into SigLIP 2's space, is in
NVIDIA's file alone, from which it has to be converted once:

    python -m bench.models.towers.radio c-radio_v3-b_half.pth.tar c-radio-v3-b.safetensors
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import open_clip
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from bench.config import BackboneSpec
from bench.errors import BenchError
from bench.models.block import Heads
from bench.models.checkpoints import read_state_dict, state_fingerprint
from bench.models.tower import Windows
from bench.models.towers import tiny
from bench.models.towers.loading import count_blocks, filled, needs, of_timm
from bench.models.towers.vit import TimmTower
from bench.runtime.device import products_in
from bench.runtime.timing import stage
from bench.settings import Library

TEXT: Final = ("ViT-gopt-16-SigLIP2-384", "webli")  # of open_clip, for all C-RADIOv3
HEAD: Final = "head."
"""Before the names of the language head's weights, in a converted file."""


class Radio(TimmTower):
    """A frozen C-RADIO with a language head; it reads with SigLIP 2."""

    library: Library = "radio"
    version = 1

    def trunk(self, images: Tensor) -> RadioTrunk:
        return RadioTrunk(self, images)

    def into_text_space(self, patches: Tensor) -> Tensor:
        """Patches (…, D) -> (…, C) by the head that was trained for SigLIP 2's summary."""
        found: Tensor = self.head(patches)
        return found


class RadioTrunk(Windows):
    """C-RADIO on one batch of windows: the input of the last block, and that block in parts.

    Tokens are (B, P + h*w, D): CLS, registers, patches.
    """

    def __init__(self, tower: Radio, images: Tensor) -> None:
        super().__init__(images, tower.patch_size)
        self.tower = tower
        self.prefix: int = tower.model.num_prefix_tokens

    @property
    def input(self) -> Tensor:
        """Input of the last block (B, P + h*w, D)."""
        return self.once("the input of the last block", self._computed)

    @property
    def qkv(self) -> Heads:
        """Queries, keys and values of the last block, each (B, heads, P + h*w, d)."""
        block = self.tower.model.blocks[-1]
        flat = block.attn.qkv(block.norm1(self.input))
        parts = flat.view(*flat.shape[:2], 3, block.attn.num_heads, -1).permute(2, 0, 3, 1, 4)
        return parts[0], parts[1], parts[2]

    def project(self, mixed: Tensor) -> Tensor:
        """(B, heads, N, d) -> (B, N, D) through the output projection of the last block."""
        found: Tensor = self.tower.model.blocks[-1].attn.proj(mixed.transpose(1, 2).flatten(2))
        return found

    def finished(self, attended: Tensor) -> Tensor:
        """Patches (B, h*w, D) that the last block gives where its attention gives `attended` (B, P + h*w, D)."""
        block = self.tower.model.blocks[-1]
        tokens = self.input + block.ls1(attended)
        tokens = tokens + block.ls2(block.mlp(block.norm2(tokens)))
        found: Tensor = self.tower.model.norm(tokens)[:, self.prefix :]
        return found

    def _computed(self) -> Tensor:
        model = self.tower.model
        with stage("trunk"), products_in(self.tower.dtype, self.images.device):
            patches = model.patch_embed.proj(self.images).flatten(2).mT + self._positions()
            first = [token.expand(len(patches), -1, -1) for token in (model.cls_token, model.reg_token)]
            tokens: Tensor = model.norm_pre(torch.cat([*first, patches], dim=1))
            for block in model.blocks[:-1]:
                tokens = block(tokens)
        return tokens.float()

    def _positions(self) -> Tensor:
        stored: Tensor = self.tower.model.pos_embed  # (1, n * n, D)
        side, longer = round(stored.shape[1] ** 0.5), max(self.grid)
        if self.grid == (side, side):
            return stored
        cells = stored.mT.reshape(1, -1, side, side)
        cells = F.interpolate(cells, size=(longer, longer), mode="bilinear")
        return cells[:, :, : self.grid[0], : self.grid[1]].flatten(2).mT


def load(name: str, spec: BackboneSpec, file: Path, device: str, dtype: str) -> Radio:
    """Load C-RADIO from a converted file, and SigLIP 2's text tower by open_clip."""
    needs("transformers", name)  # its tokenizer
    model, state = _blank(spec.model), read_state_dict(file)
    head = _head({key.removeprefix(HEAD): value for key, value in state.items() if key.startswith(HEAD)}, file)
    own = {key if key.startswith(HEAD) else f"model.{key}": value for key, value in state.items()}
    fingerprint = filled(_both(model, head), own, file, spec.model)
    return Radio(name, model, head, _siglip(), f"{fingerprint}, {':'.join(TEXT)}", device, dtype)


def random(name: str, spec: BackboneSpec, device: str, dtype: str) -> Radio:
    """Return C-RADIO at its true size with random weights, which reads sentences as bags of drawn words."""
    model = _blank(spec.model)
    out = 2 * model.embed_dim
    return Radio(name, model, LanguageHead(out // 2, out, out), tiny.bags_of_words("radio", out, 0), "", device, dtype)


def tiny_radio(name: str, seed: int, device: str = "cpu", dtype: str = "fp32") -> Radio:
    """Return a tiny C-RADIO whose weights are drawn, and which reads sentences as bags of drawn words."""
    model, head = tiny.radio()
    for prefix, part in (("", model), (HEAD, head)):
        tiny.fill(part, "radio", tiny.radio_rule, seed, prefix)
    reader = tiny.bags_of_words("radio", tiny.RADIO_TEXT, seed)
    return Radio(name, model, head, reader, state_fingerprint(_both(model, head).state_dict()), device, dtype)


def _both(model: nn.Module, head: nn.Module) -> nn.Module:
    return nn.ModuleDict({"model": model, "head": head})


def _blank(model: str) -> Any:
    return of_timm(model, img_size=2048)  # the stored grid of positions


def _head(state: Mapping[str, Tensor], file: Path) -> nn.Module:
    """Return the language head that has such weights. BenchError for weights of none."""
    if "fc1.weight" not in state or "final.2.weight" not in state:
        raise BenchError(f"{file}: has no language head; convert NVIDIA's, see bench/models/towers/radio.py")
    hidden, width = state["fc1.weight"].shape
    return LanguageHead(width, hidden, state["final.2.weight"].shape[0], count_blocks(state, "blocks."))


class LanguageHead(nn.Module):
    """MLP from a summary of C-RADIO into the space of another model's."""

    def __init__(self, width: int, hidden: int, out: int, blocks: int = 0) -> None:
        super().__init__()
        self.dim = out
        self.fc1 = nn.Linear(width, hidden)
        self.blocks = nn.ModuleList(_layers(hidden, hidden) for _ in range(blocks))
        self.final = _layers(hidden, out)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc1(x)
        for block in self.blocks:
            x = x + block(x)
        found: Tensor = self.final(x)
        return found


def _layers(width: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(width), nn.GELU(), nn.Linear(width, out))


def _siglip() -> Callable[[list[str]], Tensor]:
    """Return the reader of sentences, loaded when the first word is not on the disk yet: it has 0.7 billion weights."""
    loaded: list[Any] = []

    def encode(prompts: list[str]) -> Tensor:
        if not loaded:
            whole = open_clip.create_model(TEXT[0], pretrained=TEXT[1], precision="fp32", device="cpu")
            loaded[:] = [whole.text.eval().requires_grad_(False), open_clip.get_tokenizer(TEXT[0])]
        found: Tensor = loaded[0](loaded[1](prompts))
        return found

    return encode


def convert(file: Path, target: Path, blank: nn.Module, head: str = "siglip2-g") -> None:
    """Write the tower by timm's names and one language head of NVIDIA's file, which holds more than tensors.

    blank: timm's model, whose weights are replaced. head: its teacher's name. BenchError for a file without tower or
    head.
    """
    torch.serialization.add_safe_globals([argparse.Namespace])  # for good: torch 2.4 knows no other way
    content = torch.load(file, map_location="cpu", weights_only=True)
    state = content.get("state_dict_ema") or content["state_dict"]
    state = {key.removeprefix("module."): value.float() for key, value in state.items()}
    teachers = [teacher.get("name", teacher.get("type")) for teacher in content["args"].teachers]
    places = [f"_heads.{head}.", *(f"_heads.{number}." for number, name in enumerate(teachers) if name == head)]
    place = next((one for one in places if any(key.startswith(one) for key in state)), None)
    if place is None:
        raise BenchError(f"{file}: has no head '{head}'; it has {', '.join(map(str, teachers))}")
    renamed = {f"radio_model.model.{key.removeprefix('base_model.')}": value for key, value in state.items()}
    tower = importlib.import_module(type(blank).__module__).checkpoint_filter_fn(renamed, blank)
    own = {key.removeprefix(place).removeprefix("mlp."): v for key, v in state.items() if key.startswith(place)}
    heads = {HEAD + key: value for key, value in own.items()}
    blank.load_state_dict(tower, strict=True)
    save_file({key: value.contiguous() for key, value in {**tower, **heads}.items()}, target)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Convert NVIDIA's C-RADIO file for this harness.")
    parser.add_argument("file", type=Path)
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()
    convert(arguments.file, arguments.target, _blank("vit_base_patch16_radio_v3"))
