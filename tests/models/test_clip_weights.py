from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from reference import tiny_config, tiny_model, write_tiny
from safetensors.torch import save_file

from bench.config import BackboneSpec
from bench.errors import BenchError
from bench.models.checkpoints import read_state_dict
from bench.models.clip_weights import fetch_backbone, load_backbone
from bench.models.weights import weights_source


def test_weights_that_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is told of an offline mode of the hub that was not asked for."""
    monkeypatch.setenv("OVSS_BENCH_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(BenchError, match=r"can they be downloaded \(.*127\.0\.0\.1.*\); get https://openai") as error:
        fetch_backbone(BackboneSpec(model="ViT-B-16-quickgelu", pretrained="openai"))
    assert "HF_HUB_OFFLINE" not in str(error.value)


def _spec(config: Path) -> BackboneSpec:
    return BackboneSpec(model=str(config))


def test_formats_of_a_checkpoint_give_the_same_backbone(tmp_path: Path) -> None:
    config, plain = write_tiny(tmp_path)
    state = tiny_model().state_dict()
    wrapped, tensors = tmp_path / "epoch_1.pt", tmp_path / "tiny.safetensors"
    torch.save({"epoch": 1, "state_dict": {f"module.{k}": v for k, v in state.items()}}, wrapped)
    save_file({k: v.contiguous() for k, v in state.items()}, tensors)
    fingerprints = {load_backbone(_spec(config), file).fingerprint for file in (plain, wrapped, tensors)}
    assert len(fingerprints) == 1


def test_openai_archive_is_read(tmp_path: Path) -> None:
    """OpenAI's files are TorchScript archives that also hold three scalars."""
    config, _ = write_tiny(tmp_path)

    class Archive(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = tiny_model().visual.ln_post
            for name, value in {"input_resolution": 224, "context_length": 77, "vocab_size": 49408}.items():
                self.register_buffer(name, torch.tensor(value))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x)

    file = tmp_path / "archive.pt"
    torch.jit.save(torch.jit.script(Archive()), str(file))
    assert {"inner.weight", "inner.bias", "vocab_size"} <= set(read_state_dict(file))
    with pytest.raises(
        BenchError, match=r"archive\.pt: does not fit the model .*missing: positional_embedding"
    ) as error:
        load_backbone(_spec(config), file)
    assert "vocab_size" not in str(error.value)


def test_wrong_checkpoint_names_the_first_keys(tmp_path: Path) -> None:
    config, _ = write_tiny(tmp_path)
    state = dict(tiny_model().state_dict())
    del state["visual.proj"]
    state["extra"] = torch.zeros(1)
    state["logit_scale"] = torch.zeros(2)
    file = tmp_path / "wrong.pt"
    torch.save(state, file)
    with pytest.raises(
        BenchError,
        match=r"wrong\.pt: .*missing: visual\.proj; unexpected: extra; other shape: logit_scale is \(2,\), not \(\)",
    ):
        load_backbone(_spec(config), file)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_truncated_checkpoint(tmp_path: Path, suffix: str) -> None:
    config, plain = write_tiny(tmp_path)
    file = tmp_path / f"cut{suffix}"
    file.write_bytes(plain.read_bytes()[:5000])
    with pytest.raises(BenchError, match=rf"cut\{suffix}: not a readable checkpoint"):
        load_backbone(_spec(config), file)


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "evil.pt"
    torch.save({"state_dict": Path("/")}, file)
    with pytest.raises(BenchError, match=r"evil\.pt: not a readable checkpoint"):
        read_state_dict(file)


def test_missing_files_and_unknown_names_say_what_to_do(tmp_path: Path) -> None:
    config, _ = write_tiny(tmp_path)
    with pytest.raises(BenchError, match="a model config has no weights; give them with --checkpoint FILE"):
        load_backbone(_spec(config))
    with pytest.raises(BenchError, match=r"checkpoint .*absent\.pt does not exist"):
        load_backbone(_spec(config), tmp_path / "absent.pt")
    with pytest.raises(
        BenchError, match=r"unknown open_clip model 'ViT-B-16-quickgel'; did you mean .*ViT-B-16-quickgelu"
    ):
        load_backbone(BackboneSpec(model="ViT-B-16-quickgel", pretrained="openai"))
    with pytest.raises(BenchError, match="unknown weights ':opena1'; did you mean openai"):
        load_backbone(BackboneSpec(model="ViT-B-16-quickgelu", pretrained="opena1"))
    with pytest.raises(BenchError, match="no weights named; write ViT-B-16-quickgelu:TAG"):
        load_backbone(BackboneSpec(model="ViT-B-16-quickgelu"))
    odd = tmp_path / "odd.json"
    odd.write_text(json.dumps({"embed_dim": 3}))
    with pytest.raises(BenchError, match="lacks text_cfg, vision_cfg"):
        load_backbone(_spec(odd), tmp_path / "x.pt")


def test_weights_that_cannot_be_downloaded_say_where_to_get_and_put_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("bench.models.clip_weights.fetch_from_hub", refuse)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # where nothing answers
    spec = BackboneSpec(model="ViT-B-16-quickgelu", pretrained="openai")
    with pytest.raises(BenchError, match="no route to host") as error:
        load_backbone(spec)
    assert weights_source(spec) in str(error.value)
    assert "--checkpoint FILE" in str(error.value)
    assert "\n" not in str(error.value)


def test_openai_weights_on_a_plain_gelu_config_are_warned_of(tmp_path: Path) -> None:
    _, plain = write_tiny(tmp_path)
    config = tmp_path / "gelu.json"
    config.write_text(json.dumps({**tiny_config(), "quick_gelu": False}))
    derived = plain.rename(tmp_path / "RemoteCLIP-ViT-B-32.pt")
    with pytest.warns(UserWarning, match="uses QuickGELU, but .*gelu.json is built with GELU"):
        load_backbone(_spec(config), derived)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_backbone(_spec(config), derived.rename(tmp_path / "own.pt"))
