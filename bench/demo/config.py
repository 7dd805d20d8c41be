"""Configurations on another backbone, among them the demo: an ordinary entry of `backbones:` that every row runs on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench.config import BackboneSpec, Config, SecondSpec, UpsamplerSpec
from bench.errors import BenchError

if TYPE_CHECKING:
    from bench.models.backbone import Backbone

WEIGHTS: Final = Path(__file__).resolve().parent / "weights"
CONFIG_FILE: Final = WEIGHTS / "tiny-clip.json"
DEMO: Final = "demo"  # the embedded backbone, and the upsampler trained for it
SEED: Final = 20261  # of the tiny towers that are no CLIP
BACKBONE: Final = BackboneSpec(model=str(CONFIG_FILE), file=str(WEIGHTS / "tiny-clip.safetensors"))


def load_demo_backbone(device: str = "cpu", dtype: str = "fp32") -> Backbone:
    """Load the embedded tiny CLIP, a test bed that ships with the harness (bench/demo/MODEL_CARD.md)."""
    from bench.models.clip_weights import load_backbone  # torch, which a configuration does not need

    return load_backbone(BACKBONE, None, device, dtype)


def demo_config(config: Config) -> Config:
    """Return the configuration of `run --demo`: every row on the embedded backbone, with upsamplers trained for it.

    Rows of other towers are on tiny ones that are drawn.
    """
    upsamplers = {}
    for name, spec in config.upsamplers.items():
        own = WEIGHTS / f"{name}.safetensors"  # Table 3's have none, as there is but one backbone
        if spec.kind.startswith("jbu"):
            file = own if own.exists() else WEIGHTS / "simfeatup.safetensors"
            upsamplers[name] = UpsamplerSpec(kind=spec.kind, file=str(file))
        elif spec.file and Path(spec.file).is_absolute():  # of a user's own overlay
            upsamplers[name] = spec
        else:
            upsamplers[name] = UpsamplerSpec(kind=spec.kind, seed=1)  # drawn, not trained
    # Every second model is the embedded tower; SAM's takes squares, here of a quarter of its usual size.
    models = {
        name: SecondSpec(library="tower", name=DEMO, side=256 if "sam" in spec.name else None)
        for name, spec in config.models.items()
    }
    protocol = config.protocol.model_copy(update={"backbone": DEMO})
    rows = {name: row.model_copy(update={"backbone": None}) for name, row in config.rows.items()}
    changes = {"upsamplers": upsamplers, "models": models, "protocol": protocol, "rows": rows}
    towers = {
        name: spec.model_copy(update={"seed": SEED})
        for name, spec in config.backbones.items()
        if spec.library != "open_clip"
    }
    return config.model_copy(update={"backbones": {DEMO: BACKBONE, **towers}, **changes})


def with_backbone(config: Config, flag: str | None) -> Config:
    """Return the configuration with `--backbone`.

    flag: an entry of `backbones:`, an open_clip ``name[:tag]``, a model-config JSON, or ``demo``, the embedded test bed
    """
    if flag is None:
        return config
    if flag == DEMO:
        return demo_config(config)
    name = flag
    if flag.endswith(".json"):  # results are identified by the weights; where the file is must not matter
        name = Path(flag).stem
        if name in config.backbones:
            raise BenchError(f"--backbone {flag}: '{name}' is a backbone of benchmark.yaml; give the file another name")
        config = _with(config, name, BackboneSpec(model=flag))
    elif flag not in config.backbones:
        model, _, tag = flag.partition(":")
        config = _with(config, name, BackboneSpec(model=model, pretrained=tag or None))
    protocol = config.protocol.model_copy(update={"backbone": name})
    return config.model_copy(update={"protocol": protocol})


def _with(config: Config, name: str, spec: BackboneSpec) -> Config:
    return config.model_copy(update={"backbones": {**config.backbones, name: spec}})
