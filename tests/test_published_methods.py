"""Newer methods against outputs of their authors' code."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden_helpers import GOLDENS, built
from project import SMALL

from bench.cli import main
from bench.methods import cliptrase
from bench.models.backbone import Features, Trunk
from bench.registry import load_methods
from bench.store.store import Store
from bench.verify import recipe
from bench.verify.goldens import Bed, stored

STORED = stored("methods")
RECTANGLE = (slice(20, 180), slice(60, 348))


@pytest.fixture(scope="module")
def bed() -> Bed:
    return Bed("cpu", "fp32")


def trunk(bed: Bed, box: tuple[slice, slice] = recipe.WINDOW) -> Trunk:
    pixels = torch.from_numpy(np.ascontiguousarray(recipe.image()[box]))
    return bed.backbone.trunk(bed.backbone.normalise(pixels)[None])


OF_TOKENS = sorted(
    key
    for key in STORED
    if key.endswith(("/win", "/rectwin")) and not key.startswith(("itaclip", "maskclip", "clip_s"))
)


@pytest.mark.parametrize("key", OF_TOKENS)
def test_tokens(key: str, bed: Bed, tmp_path: Path) -> None:
    golden, _, image = key.partition("/")
    method, text = built(bed, golden, tmp_path)
    windows, step = (trunk(bed), 9) if image == "win" else (trunk(bed, RECTANGLE), 12)
    with torch.inference_mode():
        features: Features = method(windows, text=text) if golden == "resclip" else method(windows)
    np.testing.assert_allclose(features.patches[0, ::step], STORED[key], atol=1e-4, rtol=0)


def test_clip_surgery_scores_as_the_authors_code_does(bed: Bed, tmp_path: Path) -> None:
    method, text = built(bed, "clip_surgery", tmp_path)
    np.testing.assert_allclose(text, STORED["clip_surgery/text"], atol=1e-5, rtol=0)
    with torch.inference_mode():
        scores = method.scores(trunk(bed), text)[0]
    expected = STORED["clip_surgery/win/surgery"][1:].T.reshape(14, 14, 14)  # without CLS
    np.testing.assert_allclose(scores, expected, atol=2e-5, rtol=0)


def test_maskclip_smooths_keys_and_denoises_as_the_authors_code_does(bed: Bed, tmp_path: Path) -> None:
    method, text = built(bed, "maskclip_kspd", tmp_path, key_smoothing=1.0, denoising=0.5)
    with torch.inference_mode():
        scores = method.scores(trunk(bed), text)[0]
    np.testing.assert_allclose(scores, STORED["maskclip_kspd/win_kspd/output"], atol=5e-4, rtol=0)


def test_itaclips_views_are_those_of_the_authors_code(bed: Bed, tmp_path: Path) -> None:
    method, text = built(bed, "itaclip", tmp_path, views=True)
    with torch.inference_mode():
        scores = F.interpolate(method.scores(trunk(bed), text), size=(224, 224), mode="bilinear")[0]
    np.testing.assert_allclose(scores[:, ::13, ::13], STORED["itaclip/win_eng/scores_stride13"], atol=2e-5, rtol=0)


def test_floss_scores_as_the_authors_code_does(bed: Bed, tmp_path: Path) -> None:
    method, text = built(bed, "floss", tmp_path)
    with torch.inference_mode():
        scores = method.scores(trunk(bed), text)[0]
    np.testing.assert_allclose(scores[:, ::15, ::15], STORED["floss/win/fused_stride5"], atol=2e-4, rtol=0)


def test_cliptrase_finds_the_clusters_and_words_of_the_authors_code(bed: Bed, tmp_path: Path) -> None:
    method, text = built(bed, "cliptrase", tmp_path, clusters=True)
    with torch.inference_mode():
        rows = cliptrase.correlation(trunk(bed))[0].flatten(0, 1)
        word = method.scores(trunk(bed), text)[0].argmax(dim=0)
    assert np.array_equal(cliptrase.dbscan(rows.double().numpy(), 0.7, 3), STORED["cliptrase/win/clusters"])
    assert (word.numpy() == STORED["cliptrase/win/word"]).mean() > 0.9999


def test_dbscan_by_hand() -> None:
    line = np.array([[0.0], [1], [2], [10], [11], [12], [13.5], [30]])
    assert cliptrase.dbscan(line, 1.0, 3).tolist() == [0, 0, 0, 1, 1, 1, -1, -1]
    assert cliptrase.dbscan(line, 0.5, 2).tolist() == [-1] * 8


def test_strips_of_pamr_are_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.methods import pamr

    monkeypatch.setattr(pamr, "STRIP", 40)
    image, scores = torch.randn(3, 150, 60), torch.randn(2, 150, 60)
    whole = pamr.diffuse(image, scores, 2)
    np.testing.assert_allclose(pamr.pamr_original(image, scores, scores, steps=2), whole, atol=1e-6)


def test_pamr_reaches_as_far_as_it_says() -> None:
    from bench.methods import pamr

    image, scores = torch.rand(3, 340, 20), torch.rand(2, 340, 20)
    whole = pamr.pamr(image, scores, scores)[:, :12]
    for reach, same in ((pamr.REACH, True), (pamr.REACH // 2, False)):
        part = pamr.pamr(image[:, : 12 + reach], scores[:, : 12 + reach], scores)[:, :12]
        assert torch.allclose(part, whole, rtol=0, atol=1e-7) is same


def test_pamr_reads_neighbours_and_not_the_pixel_itself() -> None:
    from bench.methods.pamr import affinity, diffuse

    flat = torch.zeros(3, 40, 40)
    assert torch.allclose(affinity(flat), torch.full((16, 1, 40, 40), 1 / 16))
    point = torch.zeros(1, 40, 40)
    point[0, 20, 20] = 16.0
    once = diffuse(flat, point, steps=1)[0]
    assert once[20, 20] == 0 and once[12, 12] == once[20, 28] == once[36, 20] == 1.0
    assert once.sum() == pytest.approx(16.0)


METHODS = sorted({method for method, _ in GOLDENS.values()})
SCORERS = [name for name in METHODS if load_methods()[name].makes_scores]


def run_with_ours(methods: Iterable[str], results: Path) -> int:
    """On one image of the demo, in one window of 7 × 7 patches."""
    config = results / "small.yaml"
    config.write_text(SMALL)
    rows = ",".join(f"{name}+ours" for name in methods)
    flags = ["--demo", "--methods", rows, "--datasets", "whu_aerial", "--limit", "1", "--device", "cpu"]
    return main(["run", *flags, "--config", str(config), "--results", str(results / "results")])


def test_methods_that_make_features_run_with_ours(tmp_path: Path) -> None:
    methods = [name for name in METHODS if name not in SCORERS]
    assert run_with_ours(methods, tmp_path) == 0
    cells = Store(tmp_path / "results", demo=True, limit=1).cells()
    assert {cell.settings.row for cell in cells} == {f"{name}+ours" for name in methods}
    assert all(cell.status == "ok" and cell.settings.upsampler == "simfeatup" for cell in cells)


@pytest.mark.parametrize("method", SCORERS)
def test_methods_that_make_scores_refuse_ours(method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_with_ours([method], tmp_path) == 2
    assert "makes its own scores" in capsys.readouterr().err
