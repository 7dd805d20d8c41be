"""Second models through timm, and a CLIP tower in the place of one; loading their weights."""

from __future__ import annotations

import importlib
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import timm
import torch
import torch.nn.functional as F
from timm.models.vision_transformer_sam import VisionTransformerSAM, get_decomposed_rel_pos_bias
from torch import Tensor

from bench.config import SecondSpec
from bench.errors import check_known
from bench.models.backbone import Backbone, Trunk
from bench.models.block import Heads
from bench.models.checkpoints import load_strictly, read_state_dict, state_fingerprint
from bench.models.clip_weights import DTYPES
from bench.models.second import IMAGENET_MEAN, IMAGENET_STD, SecondModel, SecondTrunk
from bench.models.tower import per_channel
from bench.models.weights import missing
from bench.runtime.device import products_in
from bench.runtime.shared_tensors import SharedTensors, SharedWeights, counting_changes


def load_second(name: str, spec: SecondSpec, file: Path, device: str = "cpu", dtype: str = "fp32") -> SecondModel:
    """Load the model called `name` with the weights of `file`, in the form of its authors or of timm.

    dtype: of its products, as of `bench.models.clip_weights.load_backbone`. Raises BenchError for a model that timm
    does not know, and for a file that is not there, is no checkpoint or belongs to another model.
    """
    known = [*timm.list_pretrained(), *timm.list_models()]
    check_known(spec.name, known, f"models.{name}.name: timm {timm.__version__} has no '{spec.name}'")
    if not file.is_file():
        raise missing(name, spec, file)
    model = _blank(spec)
    convert = importlib.import_module(type(model).__module__).checkpoint_filter_fn
    state = {key: value.float() for key, value in convert(read_state_dict(file), model).items()}
    load_strictly(model, state, file, spec.name)
    fingerprint = state_fingerprint(model.state_dict())
    return TimmModel(name, model.to(device), fingerprint, spec.position, DTYPES[dtype])


def random_second(name: str, spec: SecondSpec, device: str = "cpu", dtype: str = "fp32") -> SecondModel:
    """Return a second model with random weights, to measure its speed."""
    return TimmModel(name, _blank(spec).to(device), "random", spec.position, DTYPES[dtype])


def _blank(spec: SecondSpec) -> Any:
    size: dict[str, Any] = {} if spec.name.startswith("samvit") else {"dynamic_img_size": True}
    return timm.create_model(spec.name, pretrained=False, num_classes=0, **size)


class TimmModel(SecondModel):
    """A vision transformer of timm.

    position: how a learned position embedding meets another grid. "library": as timm does, antialiased, to the size;
    "factor": as the hubs of DINO and of DINOv2 without registers do, bicubically by (h + 0.1) / h_stored. dtype: of
    the products, float32 unless lower precision is asked for.
    """

    def __init__(
        self,
        name: str,
        model: Any,
        fingerprint: str,
        position: Literal["library", "factor"] = "library",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.name, self.fingerprint, self.position, self.dtype = name, fingerprint, position, dtype
        self.model = model.eval().requires_grad_(False)
        self.weights = SharedWeights(model)
        self.patch_size = model.patch_embed.patch_size[0]
        self.side = model.pretrained_cfg.get("input_size", (3, 1024, 1024))[1] if _is_sam(model) else None
        self._mean = model.pretrained_cfg.get("mean", IMAGENET_MEAN)
        self._std = model.pretrained_cfg.get("std", IMAGENET_STD)

    def normalise(self, rgb: Tensor) -> Tensor:
        return (rgb - per_channel(self._mean, rgb.device)) / per_channel(self._std, rgb.device)

    def of_normalised(self, images: Tensor) -> SecondTrunk:
        return _TimmTrunk(self, images)


class _TimmTrunk(SecondTrunk):
    def __init__(self, of: TimmModel, images: Tensor) -> None:
        self._of, self._images, self.made = of, images, SharedTensors()
        self.grid = (images.shape[2] // of.patch_size, images.shape[3] // of.patch_size)

    @property
    def tokens(self) -> Tensor:
        return self._computed[0]

    @property
    def qkv(self) -> Heads:
        prefix = 0 if _is_sam(self._of.model) else self._of.model.num_prefix_tokens
        q, k, v = (part[:, :, prefix:] for part in self._computed[1])
        return q, k, v

    def attention(self, head: int) -> Tensor:
        model = self._of.model
        q, k, _ = (part[:, head] for part in self._computed[1])  # (B, N, d)
        logits = (q * float(q.shape[-1] ** -0.5)) @ k.mT
        if not _is_sam(model):
            prefix = model.num_prefix_tokens
            return logits.softmax(dim=-1)[:, prefix:, prefix:]
        layer = model.blocks[-1].attn
        bias: Tensor = get_decomposed_rel_pos_bias(q, layer.rel_pos_h, layer.rel_pos_w, self.grid, self.grid)
        return (logits + bias).softmax(dim=-1)

    @cached_property
    def _computed(self) -> tuple[Tensor, Heads]:
        """Patch tokens, and queries, keys and values of all tokens of the last block."""
        model = self._of.model
        layer = model.blocks[-1].attn
        found: list[Tensor] = []
        hook = layer.qkv.register_forward_hook(lambda _, __, out: found.append(out))
        try:
            with counting_changes(), products_in(self._of.dtype, self._images.device):
                tokens = self._forward().float()
        finally:
            hook.remove()
        with counting_changes():
            flat = found[0].float().flatten(1, -2)  # (B, N, 3 * D)
            parts = flat.view(*flat.shape[:2], 3, layer.num_heads, -1)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        self.made.keep("the tokens of a second model", tokens)
        self.made.keep("the queries, keys or values of a second model", flat)
        return tokens, (q, k, v)

    def _forward(self) -> Tensor:
        model = self._of.model
        if _is_sam(model):
            neck: Tensor = model.forward_features(self._images)  # (B, C, h, w)
            return neck.flatten(2).mT
        native = model.patch_embed.grid_size
        if self._of.position == "library" or self.grid == tuple(native):
            tokens: Tensor = model.forward_features(self._images)
            return tokens[:, model.num_prefix_tokens :]
        patches = model.patch_embed(self._images).flatten(1, 2)
        cls, cells = model.pos_embed[:, :1], model.pos_embed[:, 1:].mT.unflatten(2, native)
        factor = ((self.grid[0] + 0.1) / native[0], (self.grid[1] + 0.1) / native[1])
        cells = F.interpolate(cells, scale_factor=factor, mode="bicubic", recompute_scale_factor=False)
        first = (model.cls_token + cls).expand(len(patches), -1, -1)
        tokens = model.norm(model.blocks(model.norm_pre(torch.cat([first, patches + cells.flatten(2).mT], dim=1))))
        return tokens[:, 1:]


class TowerModel(SecondModel):
    """The image tower of a CLIP backbone in the place of a second model, as the demo has it.

    side: as of `SecondModel`.
    """

    def __init__(self, name: str, backbone: Backbone, side: int | None = None) -> None:
        self.name, self.fingerprint, self.side = name, backbone.fingerprint, side
        self.patch_size = backbone.patch_size
        self.weights = backbone.weights
        self._backbone = backbone

    def normalise(self, rgb: Tensor) -> Tensor:
        return self._backbone.normalise_rgb(rgb)

    def of_normalised(self, images: Tensor) -> SecondTrunk:
        return _TowerTrunk(self._backbone.trunk(images))


class _TowerTrunk(SecondTrunk):
    def __init__(self, trunk: Trunk) -> None:
        self._trunk, self.grid, self.made = trunk, trunk.grid, trunk.made

    @cached_property
    def tokens(self) -> Tensor:
        output = self._trunk.input(self._trunk.depth).float()
        with counting_changes():
            return self.made.keep("the tokens of a second model", self._trunk.visual.ln_post(output)[:, 1:])

    @property
    def qkv(self) -> Heads:
        q, k, v = (part[:, :, 1:] for part in self._trunk.qkv(-1))
        return q, k, v

    def attention(self, head: int) -> Tensor:
        q, k, _ = (part[:, head] for part in self._trunk.qkv(-1))
        weights: Tensor = ((q * float(q.shape[-1] ** -0.5)) @ k.mT).softmax(dim=-1)
        return weights[:, 1:, 1:]


def _is_sam(model: Any) -> bool:
    return isinstance(model, VisionTransformerSAM)
