"""Finding, reading and checking weights: CLIP models by open_clip name or from files."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import textwrap
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import open_clip
import torch
from huggingface_hub import constants
from huggingface_hub.errors import OfflineModeIsEnabled
from torch import Tensor

from bench.config import BackboneSpec
from bench.errors import BenchError, did_you_mean, reading
from bench.models.backbone import Backbone
from bench.models.block import lower_precision
from bench.models.checkpoints import load_strictly, read_state_dict, state_fingerprint, with_token_table
from bench.models.weights import cached_weights, fetch_from_hub, in_weights_folder, missing, weights_source
from bench.paths import weights_dir
from bench.runtime.hub import answers, hub_endpoint

DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}

# Files of models that were fine-tuned from OpenAI's weights and so need QuickGELU, though nothing in them
# says so.
_OPENAI_DERIVED = ("openai", "remoteclip", "rs5m", "georsclip", "skyclip")


def load_backbone(
    spec: BackboneSpec, checkpoint: Path | None = None, device: str = "cpu", dtype: str = "fp32"
) -> Backbone:
    """Load the frozen model that `spec` describes, in evaluation mode.

    spec.model: an open_clip model name, or the path of an open_clip model-config JSON. checkpoint: a local
    file that stands for the pretrained weights. dtype: fp32, tf32, fp16 or bf16; the last two of the products in all
    blocks of the image tower but the last. Text is always encoded in fp32. tf32 is a setting of the whole process
    (`bench.runtime.device.choose_device`).

    Raises BenchError where the model is unknown, the weights are missing or differ from the model, naming
    what to do.
    """
    is_config, config = spec.model.endswith(".json"), _config(spec.model)
    file = checkpoint or in_weights_folder(spec)
    if file is None and is_config:
        raise BenchError(f"--backbone {spec.model}: a model config has no weights; give them with --checkpoint FILE")
    if file is not None:
        if not file.exists() and checkpoint is None:
            raise missing(spec.model, spec, file)
        if not file.exists():
            raise BenchError(f"backbone {spec.model}: checkpoint {file} does not exist, give another --checkpoint")
        model = _empty_model(spec.model, config)
        load_strictly(
            model,
            _clip_state(with_token_table(read_state_dict(file), config["text_cfg"].get("vocab_size", 49408))),
            file,
            f"the model {spec.model}",
        )
    else:
        model = _pretrained(spec)
    _warn_about_activation(spec, config, file)
    name = Path(spec.model).stem if is_config else spec.model
    model.requires_grad_(False).eval()
    fingerprint = state_fingerprint(model.state_dict())
    if DTYPES[dtype] != torch.float32:
        lower_precision(model.visual, DTYPES[dtype])
    return Backbone(name, model.to(device), _tokenizer(spec.model, config, is_config), fingerprint)


def _config(model: str, flag: str = "--backbone") -> dict[str, Any]:
    """Return the config of an open_clip model, known by its name or read from a JSON."""
    if not model.endswith(".json"):
        known: dict[str, Any] | None = open_clip.get_model_config(model)
        if known is None:
            raise BenchError(f"unknown open_clip model '{model}'; {did_you_mean(model, open_clip.list_models())}")
        return known
    path = Path(model)
    try:
        with reading(f"{flag} {path}", "give an open_clip model-config JSON"):
            config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        missing = {"embed_dim", "vision_cfg", "text_cfg"} - set(config)
    except (ValueError, TypeError) as error:
        raise BenchError(f"{flag} {path}: not an open_clip model-config JSON ({error})") from None
    if missing:
        raise BenchError(f"{flag} {path}: not an open_clip model config, it lacks {', '.join(sorted(missing))}")
    return config


def _empty_model(name: str, config: dict[str, Any]) -> Any:
    arguments = {k: v for k, v in config.items() if k not in ("custom_text",)}
    kind = open_clip.CustomTextCLIP if config.get("custom_text") else open_clip.CLIP
    try:
        return kind(**arguments)
    except Exception as error:
        raise BenchError(f"backbone {name}: open_clip cannot build it from its config: {error}") from None


def fetch_backbone(spec: BackboneSpec) -> Path:
    """Fetch released weights into the cache of Hugging Face, where open_clip looks for them; return their file.

    Raises BenchError for unknown weights, and where they can be had in neither way, naming what to do.
    """
    tags = open_clip.list_pretrained_tags_by_model(spec.model)
    if spec.pretrained is None:
        raise BenchError(
            f"backbone {spec.model}: no weights named; write {spec.model}:TAG ({', '.join(tags)}) "
            "or give --checkpoint FILE"
        )
    if spec.pretrained not in tags:
        raise BenchError(
            f"backbone {spec.model}: unknown weights ':{spec.pretrained}'; {did_you_mean(spec.pretrained, tags)}"
        )
    if there := in_weights_folder(spec) or cached_weights(spec):
        return there
    try:
        with _quiet_hub():
            return fetch_from_hub(spec)
    except Exception as error:
        ours = isinstance(error.__cause__, OfflineModeIsEnabled) and not constants.HF_HUB_OFFLINE  # of _quiet_hub
        reason = f"{hub_endpoint()} does not answer" if ours else _first_line(error)
        raise BenchError(
            f"weights '{spec.pretrained}' of {spec.model} are neither cached nor can they be downloaded "
            f"({reason}); get {weights_source(spec)} on a machine with a network and put it into "
            f"{weights_dir()} or pass it with --checkpoint FILE"
        ) from None


def _pretrained(spec: BackboneSpec) -> Any:
    """Load released weights by open_clip's own way."""
    file = fetch_backbone(spec)
    try:
        with _quiet_hub():
            return open_clip.create_model(spec.model, pretrained=spec.pretrained, precision="fp32", device="cpu")
    except Exception as error:
        what = f"{file}: not the weights of {spec.model} ({_first_line(error)})"
        raise BenchError(f"{what}; delete it and fetch it again") from None


def _first_line(error: Exception) -> str:
    lines = str(error.__cause__ or error).strip().splitlines()
    return textwrap.shorten(lines[0], 200, placeholder=" …") if lines else type(error).__name__


@contextlib.contextmanager
def _quiet_hub() -> Iterator[None]:
    """Hub downloads without log lines, and, where the hub cannot be reached, without a minute of retries."""
    loggers = [logging.getLogger(), logging.getLogger("huggingface_hub")]
    levels = [logger.level for logger in loggers]
    offline = constants.HF_HUB_OFFLINE
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    constants.HF_HUB_OFFLINE = offline or not answers(hub_endpoint())
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = offline
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _clip_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Strip the wrappers that training scripts leave around names, and OpenAI's scalars that are no weights."""
    extras = ("input_resolution", "context_length", "vocab_size")
    if all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): value for name, value in state.items()}
    return {
        name: value.float() for name, value in state.items() if name not in extras and not name.endswith("attn_mask")
    }


def _warn_about_activation(spec: BackboneSpec, config: dict[str, Any], file: Path | None) -> None:
    if config.get("quick_gelu"):
        return
    if file is not None:
        derived = any(word in file.name.lower() for word in _OPENAI_DERIVED)
    else:
        derived = bool(open_clip.get_pretrained_cfg(spec.model, spec.pretrained or "").get("quick_gelu"))
    if derived:
        what = file or f"{spec.model}:{spec.pretrained}"
        warnings.warn(
            f"{what} looks derived from OpenAI's CLIP, which uses QuickGELU, but {spec.model} is built with GELU: "
            f'scores will be wrong. Take {spec.model}-quickgelu (or "quick_gelu": true in the config).',
            stacklevel=3,
        )


def _tokenizer(model: str, config: dict[str, Any], is_config: bool) -> Any:
    if not is_config:
        return open_clip.get_tokenizer(model)
    text = config["text_cfg"]
    if text.get("hf_tokenizer_name"):
        return open_clip.HFTokenizer(text["hf_tokenizer_name"], context_length=text.get("context_length", 77))
    return _simple_tokenizer(text.get("context_length", 77))


@functools.cache
def _simple_tokenizer(context_length: int) -> Any:
    """Return CLIP's own tokenizer, whose table takes longer to read than a small model."""
    return open_clip.SimpleTokenizer(context_length=context_length)


def random_clip(model: str) -> Any:
    """Return an open_clip model by name or JSON, with random weights. BenchError for one that is not known."""
    return _empty_model(model, _config(model, "--model")).requires_grad_(False).eval()
