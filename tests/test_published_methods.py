"""Newer methods against outputs of their authors' code: a part in any clone, all with golden-methods beside it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from project import SMALL
from reference import SHARED

from bench.cli import main
from bench.inference.row import Row
from bench.inference.segmenter import Segmenter
from bench.methods import cliptrase
from bench.models.backbone import Features, Trunk
from bench.models.text import Vocabulary, encode
from bench.registry import find_refinement, load_methods
from bench.store.store import Store
from bench.verify import recipe
from bench.verify.goldens import Bed

ROOT = Path(__file__).resolve().parents[1]
STORED = dict(np.load(ROOT / "tests" / "golden" / "methods.npz"))
WHOLE = SHARED / "golden-methods"
CLASSES = (
    "background; bareland, barren; grass; pavement; road; tree, forest; water, river; cropland; building, roof, house"
)
VOCABULARY = Vocabulary.parse(CLASSES)
RECTANGLE = (slice(20, 180), slice(60, 348))
GOLDENS: dict[str, tuple[str, str]] = {  # name of the golden -> method, refinement
    "naclip": ("naclip", ""),
    "naclip_pamr": ("naclip", "pamr"),
    "clip_surgery": ("clip-surgery", ""),
    "resclip": ("resclip", ""),
    "scclip": ("sc-clip", ""),
    "sfp": ("sfp", ""),
    "cliptrase": ("cliptrase", ""),
    "dihclip": ("dih-clip", ""),
    "pearl": ("pearl", ""),
    "pearl_tlp": ("pearl", "tlp"),
    "maskclip_kspd": ("maskclip-own", ""),
    "floss": ("floss", ""),
    "itaclip": ("itaclip", ""),
}
TOLERANCE = {"floss": 2e-4, "dihclip": 5e-5}  # of stitched scores; 2e-5 for the others


@pytest.fixture(scope="module")
def bed() -> Bed:
    return Bed("cpu", "fp32")


def options(golden: str, folder: Path) -> dict[str, Any]:
    """The files that the golden was computed with."""
    if golden == "itaclip":
        file = folder / "definitions.txt"
        file.write_text("\n".join(map(str, STORED["itaclip/aux_words"])))
        return {"definitions": str(file)}
    if golden == "floss":
        file = folder / "templates.txt"
        file.write_text("\n".join(" ".join(str(n) for n in line if n >= 0) for line in STORED["floss/templates"]))
        return {"ranking": str(file)}
    return {}


def built(bed: Bed, golden: str, folder: Path, **more: Any) -> tuple[Any, torch.Tensor]:
    """The method of a golden with its options, and the text that it is given."""
    method = load_methods()[GOLDENS[golden][0]].build({**options(golden, folder), **more})
    own = getattr(method, "encode_text", None)
    return method, own(bed.backbone, VOCABULARY) if own else encode(bed.backbone, VOCABULARY)


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


def test_clip_surgery_in_any_clone(bed: Bed, tmp_path: Path) -> None:
    method, text = built(bed, "clip_surgery", tmp_path)
    np.testing.assert_allclose(text, STORED["clip_surgery/text"], atol=1e-5, rtol=0)
    with torch.inference_mode():
        scores = method.scores(trunk(bed), text)[0]
    expected = STORED["clip_surgery/win/surgery"][1:].T.reshape(14, 14, 14)  # without CLS
    np.testing.assert_allclose(scores, expected, atol=2e-5, rtol=0)


def test_maskclip_with_key_smoothing_and_denoising_in_any_clone(bed: Bed, tmp_path: Path) -> None:
    method, text = built(bed, "maskclip_kspd", tmp_path, key_smoothing=1.0, denoising=0.5)
    with torch.inference_mode():
        scores = method.scores(trunk(bed), text)[0]
    np.testing.assert_allclose(scores, STORED["maskclip_kspd/win_kspd/output"], atol=5e-4, rtol=0)


def test_itaclips_views_in_any_clone(bed: Bed, tmp_path: Path) -> None:
    method, text = built(bed, "itaclip", tmp_path, views=True)
    with torch.inference_mode():
        scores = F.interpolate(method.scores(trunk(bed), text), size=(224, 224), mode="bilinear")[0]
    np.testing.assert_allclose(scores[:, ::13, ::13], STORED["itaclip/win_eng/scores_stride13"], atol=2e-5, rtol=0)


def test_floss_in_any_clone(bed: Bed, tmp_path: Path) -> None:
    method, text = built(bed, "floss", tmp_path)
    with torch.inference_mode():
        scores = method.scores(trunk(bed), text)[0]
    np.testing.assert_allclose(scores[:, ::15, ::15], STORED["floss/win/fused_stride5"], atol=2e-4, rtol=0)


def test_cliptrase_finds_the_clusters_and_words_in_any_clone(bed: Bed, tmp_path: Path) -> None:
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


@pytest.mark.beside("golden-methods")
@pytest.mark.parametrize("golden", GOLDENS)
def test_stitched_scores(golden: str, bed: Bed, tmp_path: Path) -> None:
    name, refine = GOLDENS[golden]
    method, text = built(bed, golden, tmp_path)
    row = Row(
        golden,
        method,
        text,
        torch.tensor(VOCABULARY.classes),
        takes_text=load_methods()[name].takes_text,
        refine=find_refinement(refine).apply if refine else None,
    )
    whole = np.load(WHOLE / f"{golden}.npz")
    square = np.load(SHARED / "golden" / "images.npz")["oem_resized"]
    for key, image in {"sq": square, "rect": square[64:384]}.items():
        scores = Segmenter(bed.backbone, [row], 224, 112, 9).scores(np.ascontiguousarray(image))[golden]
        assert isinstance(scores, torch.Tensor), scores
        bound = TOLERANCE.get(golden, 2e-5)
        for found, stored in (
            (scores[:, ::13, ::13], whole[f"{key}/preds_stride13"]),
            (scores[:, 100:112, 100:112], whole[f"{key}/preds_patch12"]),
        ):
            np.testing.assert_allclose(found, stored, atol=bound, rtol=0)


@pytest.mark.beside("golden-methods")
@pytest.mark.parametrize("image", ["win_kspd", "sq_plain", "sq_ks", "sq_pd", "sq_kspd", "rect_kspd"])
def test_maskclip_on_whole_images(image: str, bed: Bed, tmp_path: Path) -> None:
    square = np.load(SHARED / "golden" / "images.npz")["oem_resized"]
    pixels = {"sq": square, "rect": square[64:384], "win": recipe.image()[recipe.WINDOW]}[image.partition("_")[0]]
    more = {"key_smoothing": float("ks" in image), "denoising": 0.5 if "pd" in image else 0.0}
    method, text = built(bed, "maskclip_kspd", tmp_path, **more)
    windows = bed.backbone.trunk(bed.backbone.normalise(torch.from_numpy(np.ascontiguousarray(pixels)))[None])
    with torch.inference_mode():
        scores = method.scores(windows, text)[0]
    expected = np.load(WHOLE / "maskclip_kspd.npz")[f"{image}/output"]
    step = 1 if image.startswith("win") else 3
    np.testing.assert_allclose(scores[:, ::step, ::step], expected, atol=5e-4, rtol=0)


@pytest.mark.beside("golden-methods")
def test_the_whole_image_of_clip_surgery(bed: Bed, tmp_path: Path) -> None:
    square = np.load(SHARED / "golden" / "images.npz")["oem_resized"]
    method, text = built(bed, "clip_surgery", tmp_path)
    windows = bed.backbone.trunk(bed.backbone.normalise(torch.from_numpy(square))[None])
    with torch.inference_mode():
        scores = method.scores(windows, text)[0]
    expected = np.load(WHOLE / "clip_surgery.npz")["sq_whole/surgery"].T.reshape(14, 28, 28)
    np.testing.assert_allclose(scores, expected, atol=2e-5, rtol=0)


@pytest.mark.beside("golden-methods")
def test_pamr_at_the_original_size(bed: Bed) -> None:
    refine = find_refinement("pamr-original")
    assert refine.at_original
    text, method = encode(bed.backbone, VOCABULARY), load_methods()["naclip"].build({})
    classes = torch.tensor(VOCABULARY.classes)
    row = Row("x", method, text, classes, refine=refine.apply, refine_original=True)
    square = np.load(SHARED / "golden" / "images.npz")["oem_resized"]
    scores = Segmenter(bed.backbone, [row], 224, 112, 9).scores(square, None, (640, 640))["x"]
    whole = np.load(WHOLE / "naclip_pamr.npz")
    np.testing.assert_allclose(scores[:, ::19, ::19], whole["sq_original640/scores_stride19"], atol=2e-5, rtol=0)


def test_strips_of_pamr_are_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.methods import pamr

    monkeypatch.setattr(pamr, "STRIP", 40)
    image, scores = torch.randn(3, 150, 60), torch.randn(2, 150, 60)
    whole = pamr.diffuse(image, scores, 2)
    np.testing.assert_allclose(pamr.pamr_original(image, scores, scores, steps=2), whole, atol=1e-6)


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
