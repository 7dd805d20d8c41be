"""Reading the upsamplers' weights: every format, and an answer to every file that is none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from bench.errors import BenchError
from bench.models.upsamplers import JBUOne, JBUStack, Upsampler, load_upsampler


def lightning(upsampler: Upsampler) -> dict[str, object]:
    """The layout of the released files, with the neighbours that a training run leaves in it."""
    state = {f"upsampler.{key}": value for key, value in upsampler.state_dict().items()}
    return {"epoch": 1, "state_dict": {**state, "downsampler.weight": torch.ones(2)}, "optimizer_states": []}


def write(upsampler: Upsampler, path: Path, layout: str) -> Path:
    if layout == "safetensors":
        save_file(upsampler.state_dict(), path)
    else:
        torch.save(lightning(upsampler) if layout == "lightning" else upsampler.state_dict(), path)
    return path


@pytest.mark.parametrize("layout", ["lightning", "plain", "safetensors"])
@pytest.mark.parametrize(
    "upsampler",
    [JBUOne(8), JBUOne(8, radius=3), JBUStack(8), JBUStack(8, modules=5)],
    ids=["11x11", "7x7", "four", "five"],
)
def test_every_layout_and_size(upsampler: Upsampler, layout: str, tmp_path: Path) -> None:
    file = write(upsampler, tmp_path / f"up.{'safetensors' if layout == 'safetensors' else 'ckpt'}", layout)
    for kind in (upsampler.kind, None):
        loaded = load_upsampler(kind, file, 8)
        assert (loaded.kind, loaded.radius, loaded.training) == (upsampler.kind, upsampler.radius, False)
        expected = upsampler.state_dict()
        assert loaded.state_dict().keys() == expected.keys()
        assert all(torch.equal(value, expected[key]) for key, value in loaded.state_dict().items())


def test_parameter_counts_are_the_released_ones() -> None:
    assert sum(p.numel() for p in load_upsampler("jbu_one", None, 512).parameters()) == 293_729
    assert sum(p.numel() for p in load_upsampler("jbu_stack", None, 512).parameters()) == 287_588


# --- files that do not serve


def refusal(kind: str | None, file: Path, dim: int = 8) -> str:
    with pytest.raises(BenchError) as error:
        load_upsampler(kind, file, dim)
    message = str(error.value)
    assert str(file) in message and "\n" not in message
    return message


def test_unknown_kind() -> None:
    with pytest.raises(BenchError, match="did you mean jbu_one"):
        load_upsampler("jbu_on", None, 8)


def test_other_kind(tmp_path: Path) -> None:
    file = write(JBUStack(8), tmp_path / "a.ckpt", "plain")
    assert "holds a jbu_stack, not a jbu_one" in refusal("jbu_one", file)


def test_other_width(tmp_path: Path) -> None:
    message = refusal("jbu_one", write(JBUOne(8), tmp_path / "a.ckpt", "lightning"), dim=512)
    assert "features of 8 channels, this backbone's have 512" in message


def test_differing_keys_are_named(tmp_path: Path) -> None:
    state = JBUOne(8).state_dict()
    state["up.extra"] = state.pop("up.range_temp")
    state["up.range_proj.0.weight"] = torch.zeros(32, 4, 1, 1)
    torch.save(state, tmp_path / "a.pt")
    message = refusal("jbu_one", tmp_path / "a.pt")
    assert "missing: up.range_temp; unexpected: up.extra" in message
    assert "other shape: up.range_proj.0.weight is (32, 4, 1, 1), not (32, 3, 1, 1)" in message


def test_many_differing_keys_are_counted(tmp_path: Path) -> None:
    state = JBUStack(8).state_dict()
    kept = {key: value for key, value in state.items() if not key.startswith("up2.range_proj")}
    torch.save(kept, tmp_path / "a.pt")
    message = refusal(None, tmp_path / "a.pt")
    assert "missing: up2.range_proj.0.weight" in message and "and 1 more" in message


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ({}, "no named tensors"),
        ({"visual.proj": torch.ones(1)}, "'visual.proj'"),
        ({"up.range_temp": torch.ones(())}, "'up.fixup_proj.3.bias' is missing"),
        ({"up.fixup_proj.3.bias": torch.ones(48)}, "48 values"),
        ({"state_dict": 3}, "no named tensors"),
        ([torch.ones(1)], "no named tensors"),
    ],
)
def test_other_contents(state: object, expected: str, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "a.ckpt")
    assert expected in refusal(None, tmp_path / "a.ckpt")


@pytest.mark.parametrize("suffix", ["ckpt", "safetensors"])
@pytest.mark.parametrize("kept", [0, 10, 0.5, 0.99])
def test_truncated_files(suffix: str, kept: float, tmp_path: Path) -> None:
    file = write(JBUOne(8), tmp_path / f"a.{suffix}", "lightning" if suffix == "ckpt" else suffix)
    content = file.read_bytes()
    file.write_bytes(content[: kept if isinstance(kept, int) else int(len(content) * kept)])
    assert "not a readable checkpoint" in refusal("jbu_one", file)


def test_other_files(tmp_path: Path) -> None:
    (tmp_path / "page.ckpt").write_text("<!DOCTYPE html><title>404</title>")
    assert "not a readable checkpoint" in refusal(None, tmp_path / "page.ckpt")
    torch.save({"state_dict": {}, "model": JBUOne(8)}, tmp_path / "object.ckpt")  # would run code when unpickled
    assert "not a readable checkpoint" in refusal(None, tmp_path / "object.ckpt")
    assert "no such file" in refusal(None, tmp_path / "absent.ckpt")
    assert "no such file" in refusal(None, tmp_path)
