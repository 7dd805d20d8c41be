"""Agreement with the released code, from what lies in this checkout: text, tokens, features, scores, labels."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from narrowed import tensor
from numpy.typing import NDArray

from bench.cli import main
from bench.metrics import Ints
from bench.models.upsamplers import BilateralUpsampler
from bench.runtime.provenance import differing, machine
from bench.training.trainer import feature_map
from bench.verify import goldens, recipe
from bench.verify.demo import moved_pixels
from bench.verify.goldens import (
    BOUNDS,
    PIXEL_STEP,
    RUNS,
    SCORE_STEP,
    TOKEN_STEP,
    TOKENS,
    Bed,
    Check,
    compare,
    dense,
    stored,
)
from tools.pretended_cuda import pretended_cuda

RELEASED = stored("released")
ROWS = stored("rows")


@pytest.fixture(scope="module")
def bed() -> Bed:
    return Bed("cpu", "fp32")


@pytest.fixture(scope="module")
def outputs(bed: Bed) -> tuple[dict[str, NDArray[np.float32]], dict[str, Ints]]:
    return bed.outputs()


@pytest.fixture
def window(bed: Bed) -> Iterator[torch.Tensor]:
    yield bed.backbone.normalise(torch.from_numpy(recipe.image()[recipe.WINDOW]))[None]


def test_text_is_the_released_codes(bed: Bed) -> None:
    np.testing.assert_allclose(bed.text.numpy(), RELEASED["text/query_features"], atol=1e-5, rtol=0)


def test_tokens_are_the_released_codes(bed: Bed) -> None:
    found = dict(bed.tokens())
    named = {name.removeprefix("tokens/") for name in RELEASED if name.startswith("tokens/")}
    assert set(found) == named - {"simfeatup_train_features"} and len(TOKENS) == 9
    for name, values in found.items():
        every = values[::TOKEN_STEP] if values.ndim == 2 else values
        np.testing.assert_allclose(every, RELEASED[f"tokens/{name}"], atol=1e-4, rtol=0, err_msg=name)


def test_features_to_train_on_are_the_released_codes(bed: Bed, window: torch.Tensor) -> None:
    trunk = bed.backbone.trunk(window)
    names = {"x": "simfeatup_train_features", "output": "vanilla/ir0/tokens", "maskclip": "MaskCLIP/ir1/tokens"}
    for feature, name in names.items():
        found = feature_map(trunk, feature)[0].flatten(1).T[::TOKEN_STEP]
        np.testing.assert_allclose(found.numpy(), RELEASED[f"tokens/{name}"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["jbu_one", "jbu_stack"])
@torch.inference_mode()
def test_the_first_step_is_the_released_codes(bed: Bed, window: torch.Tensor, kind: str) -> None:
    upsampler = bed.upsamplers[kind]
    assert isinstance(upsampler, BilateralUpsampler)
    module = upsampler.modules_for(1)[0]
    guidance = F.adaptive_avg_pool2d(window, (28, 28))
    ranged = module.range_kernels(guidance)
    product = ranged * module.spatial_kernel()[:, None, None]
    patches = torch.from_numpy(RELEASED["upsample/tokens"]).T.reshape(1, recipe.DIM, 14, 14)
    ours = {
        "guidance_x2": guidance[0],
        "spatial": module.spatial_kernel(),
        "kernel_range": ranged[0, :, ::15, ::15],
        "kernel_product_normalised": (product / product.sum(1, keepdim=True))[0, :, ::15, ::15],
        "kernel_final": module.kernels(guidance)[0, :, ::15, ::15],
        "x2": module(patches, guidance)[0, :, ::6, ::6],
    }
    for name, values in ours.items():
        expected = RELEASED[f"upsample/{kind}/{name}"]
        np.testing.assert_allclose(values.numpy(), expected, atol=1e-5, rtol=0, err_msg=name)


@pytest.mark.parametrize("way", ["direct", "operator"])
@pytest.mark.parametrize("kind", ["jbu_one", "jbu_stack"])
def test_upsampled_features_are_the_released_codes(bed: Bed, window: torch.Tensor, kind: str, way: str) -> None:
    tokens = RELEASED["upsample/tokens"]
    if way == "operator":
        found = bed.features(kind, tokens)
    else:
        with torch.inference_mode():
            patches = torch.from_numpy(tokens).T.reshape(1, recipe.DIM, 14, 14)
            found = bed.upsamplers[kind](patches, window)[0].numpy()
    expected = {name: RELEASED[f"upsample/{kind}/{name}"] for name in ("out", "corner", "out_stats")}
    np.testing.assert_allclose(found[:, ::PIXEL_STEP, ::PIXEL_STEP], expected["out"], atol=1e-4, rtol=0)
    np.testing.assert_allclose(found[:, :6, -6:], expected["corner"], atol=1e-4, rtol=0)
    stats = [found.mean(dtype=np.float64), found.std(dtype=np.float64), np.abs(found).max()]
    np.testing.assert_allclose(stats, expected["out_stats"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("run", RUNS)
def test_scores_and_counts_are_the_stored_ones(
    outputs: tuple[dict[str, NDArray[np.float32]], dict[str, Ints]], run: str
) -> None:
    scores, counts = (found[run] for found in outputs)
    np.testing.assert_allclose(scores[:, ::SCORE_STEP, ::SCORE_STEP], ROWS[f"{run}/scores"], atol=2e-5, rtol=0)
    assert counts.sum() == (recipe.label() != 255).sum()
    assert moved_pixels(counts, dense(ROWS, run)) <= BOUNDS["fp32"].bins
    assert moved_pixels(counts.sum(2), dense(ROWS, run).sum(2)) <= BOUNDS["fp32"].labels


def test_scores_without_upsampler_are_cosines_of_the_released_tokens(bed: Bed) -> None:
    """One pixel that only one window sees, patch by patch: scores that no code of this project made."""
    text = RELEASED["text/query_features"]
    row = next(q for q in bed.segmenter().rows if q.name == "segearth_plain")
    image = torch.from_numpy(recipe.image()[recipe.WINDOW].copy())[None]
    found = tensor(bed.segmenter().window_scores(image, [row])[row.name])[0].numpy()  # (14, 224, 224)
    tokens = RELEASED["upsample/tokens"]  # all of SegEarth's
    cosine = tokens / np.linalg.norm(tokens, axis=1, keepdims=True) @ text.T  # (196, 14)
    low = torch.from_numpy(cosine.T.reshape(1, 14, 14, 14))
    expected = F.interpolate(low, size=(224, 224), mode="bilinear")[0].numpy()
    np.testing.assert_allclose(found, expected, atol=2e-5, rtol=0)


@pytest.mark.slow
def test_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(goldens, "RUNS", {name: RUNS[name] for name in ("gem", "segearth_ov")})
    with pretended_cuda(monkeypatch):
        checks = compare("cuda", "fp32", batch=2)
    assert [check.what for check in checks][:4] == ["text", "tokens", "upsampled features", "scores"]
    assert all(check.good for check in checks), checks


def test_a_number_that_is_none_is_not_good() -> None:
    assert not Check("scores", float("nan"), "", 1.0).good


def test_the_command_holds_half_precision_to_its_own_bounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(goldens, "RUNS", {"clearclip": RUNS["clearclip"]})
    file = tmp_path / "found.json"
    assert main(["verify", "goldens", "--device", "cpu", "--dtype", "bf16", "--json", str(file)]) == 0
    shown = capsys.readouterr().out
    assert "simd" in shown and "upsampled features" in shown and "TOO FAR" not in shown
    record = json.loads(file.read_text())
    assert record["dtype"] == "bf16" and all(check["good"] for check in record["goldens"])
    found = {check["what"]: check["found"] for check in record["goldens"]}
    assert BOUNDS["fp32"].tokens < found["tokens"]  # it was half precision
    assert main(["verify", "goldens", "--device", "cpu", "--dtype", "tf32"]) == 2
    assert "--dtype tf32: cpu has no TF32" in capsys.readouterr().err


def test_the_command_finds_a_wrong_lambda(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(goldens, "RUNS", {"segearth_cls": RUNS["segearth_cls"]._replace(debias=0.29)})
    file = tmp_path / "found.json"
    assert main(["verify", "goldens", "--device", "cpu", "--json", str(file)]) == 1
    assert "TOO FAR" in capsys.readouterr().out
    found = {check["what"]: check for check in json.loads(file.read_text())["goldens"]}
    assert not found["scores"]["good"] and found["scores"]["worst"] == "segearth_cls"
    assert found["tokens"]["good"]


def test_machines_are_told_apart_by_what_rounding_depends_on() -> None:
    here = machine()
    assert {"cpu", "simd", "threads"} <= set(here)
    other = here | {"threads": "99", "host": "elsewhere"}
    assert differing(here, other) == [f"threads {here['threads']} -> 99"]
    assert differing(here, {}) == [] and differing({"torch": "2.4"}, {"torch": "2.5"}) == ["torch 2.4 -> 2.5"]
