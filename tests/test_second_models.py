"""Methods with a second model against outputs of their authors' code."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from golden_helpers import CASES, DINO16, VOCABULARY, Case, image, near, stitched
from second_recipe import mixture_case, second

from bench.config import load_config
from bench.data.images import at_sizes, resize
from bench.errors import BenchError
from bench.evaluation.models import ModelCache, build_row
from bench.inference.row import Row
from bench.inference.segmenter import Segmenter
from bench.methods.coninfer import posterior
from bench.models.second_kinds import TimmModel, load_second
from bench.models.text import encode
from bench.models.upsamplers import load_upsampler
from bench.registry import load_methods
from bench.settings import AntialiasedResize, Settings
from bench.verify import recipe
from bench.verify.goldens import Bed, stored

STORED = stored("second")


@pytest.fixture(scope="module")
def bed() -> Bed:
    return Bed("cpu", "fp32")


LONG = ("lposs_plus", "trident")  # a graph of pixels, SAM at its own size


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=[pytest.mark.slow] if {case.run, case.method} & {*LONG} else [], id=case.key)
        for case in CASES
        if case.key in STORED
    ],
)
def test_scores_are_those_of_the_authors_code(case: Case, bed: Bed) -> None:
    near(case, stitched(bed, case, image(case))[:, ::24, ::24].numpy(), STORED[case.key])


@pytest.mark.parametrize("temperature", [50, 150])
def test_coninfers_mixture_is_that_of_the_authors_code(temperature: int) -> None:
    found = posterior(*mixture_case(), temperature)
    np.testing.assert_allclose(found[::8], STORED[f"coninfer/{temperature}"], atol=1e-6, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["proxyclip", "lposs", "trident"])
def test_the_batch_changes_nothing(method: str, bed: Bed) -> None:
    case = next(case for case in CASES if case.method == method and "oem" not in case.file)
    whole, one_by_one = (stitched(bed, case, image(case), batch) for batch in (9, 1))
    apart = (whole - one_by_one).abs()
    assert np.quantile(apart, 0.97) <= 1e-6


def rows_on(bed: Bed, rows: dict[str, tuple[str, dict[str, str]]], options: dict[str, Any] | None = None) -> Segmenter:
    """Row name -> method and its second models, in one segmenter."""
    text, classes = encode(bed.backbone, VOCABULARY), torch.tensor(VOCABULARY.classes)
    built = [
        Row(
            name,
            load_methods()[method].build(options or {}),
            text,
            classes,
            models={role: second(kind) for role, kind in models.items()},
        )
        for name, (method, models) in rows.items()
    ]
    return Segmenter(bed.backbone, built, 224, 112, 4)


def test_rows_with_one_model_run_it_once(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, int]] = []
    plain = TimmModel.of_normalised

    def counted(self: TimmModel, images: torch.Tensor) -> Any:
        trunk: Any = plain(self, images)
        compute = type(trunk)._forward

        def forward() -> torch.Tensor:
            seen.append((self.name, len(images)))
            return compute(trunk)

        trunk._forward = forward
        return trunk

    monkeypatch.setattr(TimmModel, "of_normalised", counted)
    rows = {"one": ("proxyclip", DINO16), "two": ("lposs", DINO16), "three": ("proxyclip", {"vfm": "dino8"})}
    found = rows_on(bed, rows).scores(recipe.image()[:224, :336])  # two windows, one batch
    assert all(isinstance(scores, torch.Tensor) for scores in found.values())
    assert sorted(seen) == [("dino16", 2), ("dino8", 2)]


@pytest.mark.parametrize("size", [(100, 130), (224, 60), (40, 40)])
def test_small_images_are_padded_for_both_models(size: tuple[int, int], bed: Bed) -> None:
    pixels = np.ascontiguousarray(recipe.image()[: size[0], : size[1]])
    rows = {
        "proxy": ("proxyclip", {"vfm": "dinov2"}),  # patches of 14 beside CLIP's of 16
        "finer": ("proxyclip", {"vfm": "dino8"}),
        "graph": ("lposs", DINO16),
    }
    found = rows_on(bed, rows).scores(pixels)
    for name, scores in found.items():
        assert isinstance(scores, torch.Tensor), (name, scores)
        assert tuple(scores.shape[1:]) == size and bool(scores.isfinite().all())


def test_a_uniform_image_gives_numbers(bed: Bed) -> None:
    """Equal patches: every likeness is its own mean, and no degree may be divided by that is zero."""
    rows = {"proxy": ("proxyclip", DINO16), "graph": ("lposs", DINO16), "mixture": ("trident", DINO16 | {"sam": "sam"})}
    segmenter = rows_on(bed, rows)
    pixels = np.full((224, 336, 3), 128, np.uint8)
    for name, scores in segmenter.scores(pixels, larger=at_sizes(pixels, segmenter.sizes)).items():
        assert isinstance(scores, torch.Tensor) and bool(scores.isfinite().all()), (name, scores)


def test_wide_windows_are_not_turned(bed: Bed) -> None:
    """A window of another height than width: the authors' code mixes the two up there."""
    pixels = np.ascontiguousarray(recipe.image()[:160, :224])
    upright = rows_on(bed, {"row": ("proxyclip", DINO16)}).scores(pixels)["row"]
    assert isinstance(upright, torch.Tensor) and upright.shape[1:] == (160, 224)
    left = rows_on(bed, {"row": ("proxyclip", DINO16)}).scores(np.ascontiguousarray(recipe.image()[:160, :160]))["row"]
    assert isinstance(left, torch.Tensor) and left.shape[1:] == (160, 160)


def test_positions_meet_other_grids_as_their_hubs_say() -> None:
    """timm's way is not that of DINO's hub but at the grid of the training; there both are one."""
    hub = second("dino16")
    library = TimmModel("dino16", hub.model, "dino16", "library")
    for side, alike in ((224, True), (336, False)):
        pixels = torch.from_numpy(recipe.image()[:side, :side].copy()).permute(2, 0, 1)[None].float() / 255
        with torch.inference_mode():
            apart = (hub.trunk(pixels).tokens - library.trunk(pixels).tokens).abs().max()
        assert (apart < 1e-5) == alike and (alike or apart > 0.05)


def test_a_large_graph_is_refused_with_its_limit(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    lposs = importlib.import_module("bench.methods.lposs")
    monkeypatch.setattr(lposs, "MOST", 300)
    failed = rows_on(bed, {"row": ("lposs", DINO16)}).scores(recipe.image()[:224, :336])["row"]
    assert "at most 300 patches; make the network's input smaller" in str(failed)
    monkeypatch.setattr(lposs, "MOST_PIXELS", 1000)
    failed = rows_on(bed, {"row": ("lposs", DINO16)}, {"pixels": True}).scores(recipe.image()[:224, :336])["row"]
    assert "at most 1,000 pixels" in str(failed)


def test_a_role_has_to_be_declared(bed: Bed) -> None:
    failed = rows_on(bed, {"row": ("proxyclip", {})}).scores(recipe.image()[:224, :224])["row"]
    assert "the role 'vfm', which it did not declare; write @method(…, models=" in str(failed)
    models = ModelCache(load_config(), load_methods())
    settings = demo_settings("clip[models.vfm=dino-vitb8]")
    with pytest.raises(BenchError, match=r"models.vfm: clip has no such role \(none\)"):
        build_row(settings, [["tree"], ["road"]], models)


def demo_settings(row: str) -> Settings:
    config = load_config()
    chosen = config.row(row)
    settled = config.resolve(chosen, load_methods()[chosen.method].defaults, {"threshold": 0.0, "background": 0})
    return Settings(row=row, dataset="noise", method=chosen.method, **settled)


def test_weights_that_are_not_there(tmp_path: Path) -> None:
    config = load_config()
    gone = tmp_path / "gone.pth"
    with pytest.raises(BenchError, match=r"gone\.pth does not exist; get it with `python -m bench download"):
        load_second("dino-vitb8", config.models["dino-vitb8"], gone)
    with pytest.raises(BenchError, match=r"accept the licence \(DINOv3 License\) at https://huggingface.co/timm/"):
        load_second("dinov3-vitb16", config.models["dinov3-vitb16"], gone)
    misspelt = config.models["dino-vitb8"].model_copy(update={"name": "vit_base_patch8_224.dini"})
    with pytest.raises(BenchError, match=r"models.dino-vitb8.name: timm .* has no 'vit_base_patch8_224.dini'"):
        load_second("dino-vitb8", misspelt, gone)


def test_every_shipped_second_model_is_known_to_timm() -> None:
    for name, spec in load_config().models.items():
        assert timm.is_model(spec.name), name


def test_upsamplers_take_the_finer_grid(bed: Bed) -> None:
    """ProxyCLIP's features lie on the second model's grid; an upsampler starts from there."""
    text, classes = encode(bed.backbone, VOCABULARY), torch.tensor(VOCABULARY.classes)
    method, models = load_methods()["proxyclip"].build({}), {"vfm": second("dino8")}
    upsampler = load_upsampler("nearest", None, bed.backbone.dim)
    rows = [
        Row("patches", method, text, classes, models=models),
        Row("nearest", method, text, classes, upsampler, models=models),
    ]
    found = Segmenter(bed.backbone, rows, 224, 112, 4).scores(recipe.image()[:224, :224])
    nearest, patches = found["nearest"], found["patches"]
    assert isinstance(nearest, torch.Tensor) and isinstance(patches, torch.Tensor)
    blocks = nearest.view(len(nearest), 28, 8, 28, 8)
    assert (blocks - blocks[:, :, :1, :, :1]).abs().max() < 1e-6  # 28 x 28 patches of 8 pixels
    assert (nearest - patches).abs().max() > 1e-3


def test_lposs_pads_small_windows_with_black_at_the_corner(bed: Bed) -> None:
    """What it finds on the same image with black below, stretched over the window without it."""
    case = next(case for case in CASES if case.run == "lposs")
    small = image(case)[:200, :224]
    black = np.concatenate([small, np.zeros((8, 224, 3), np.uint8)])
    enlarged = F.interpolate(torch.eye(13)[None], size=208, mode="linear")[0]  # (13, 208)
    rows = torch.linalg.pinv(enlarged) @ F.interpolate(torch.eye(13)[None], size=200, mode="linear")[0]
    expected = torch.einsum("qhw,hk->qkw", stitched(bed, case, black), rows)
    assert (stitched(bed, case, small) - expected).abs().max() < 1e-4 * expected.abs().max()


@pytest.mark.slow
def test_trident_stretches_images_and_enlarges_its_scores_once(bed: Bed) -> None:
    case = next(case for case in CASES if case.method == "trident")
    odd = image(case)[:420, :448]
    rule = AntialiasedResize(long_side=1024, multiple=16)
    assert rule.size(420, 448) == (987, 1024) and rule.size(504, 896) == (585, 1024)
    assert resize(odd, rule).shape == (987, 1024, 3)
    scores = stitched(bed, case, odd, size=(840, 896))
    assert scores.shape[1:] == (987 // 16, 64)  # SAM's patches
    even = cv2.resize(odd, (448, 432), interpolation=cv2.INTER_LINEAR)
    near = stitched(bed, case, even, size=(840, 896))
    assert (scores - near).abs().mean() < 0.2 * scores.std()
