"""The demo as an ordinary entry of `backbones:`, and the configuration that runs every row on it."""

from __future__ import annotations

from typing import Final

from bench.config import BackboneSpec, Config, UpsamplerSpec
from bench.demo.clip.weights import CONFIG_FILE, WEIGHTS
from bench.models.backbone import Backbone
from bench.models.clip_weights import load_backbone

DEMO: Final = "demo"  # the embedded backbone, and the upsampler trained for it
BACKBONE: Final = BackboneSpec(model=str(CONFIG_FILE), file=str(WEIGHTS / "tiny-clip.safetensors"))


def load_demo_backbone(device: str = "cpu", dtype: str = "fp32") -> Backbone:
    """The embedded tiny CLIP, a test bed that ships with the harness (bench/demo/MODEL_CARD.md)."""
    return load_backbone(BACKBONE, None, device, dtype)


def demo_config(config: Config) -> Config:
    """The configuration of `run --demo`: every row on the embedded backbone, every upsampler as trained for it."""
    backbones = {DEMO: BACKBONE}
    upsamplers = {}
    for name, spec in config.upsamplers.items():
        own = WEIGHTS / f"{name}.safetensors"  # Table 3's have none, as there is but one backbone
        upsamplers[name] = UpsamplerSpec(
            kind=spec.kind, file=str(own if own.exists() else WEIGHTS / "simfeatup.safetensors")
        )
    protocol = config.protocol.model_copy(update={"backbone": DEMO})
    rows = {name: row.model_copy(update={"backbone": None}) for name, row in config.rows.items()}
    changes = {"backbones": backbones, "upsamplers": upsamplers, "protocol": protocol, "rows": rows}
    return config.model_copy(update=changes)
