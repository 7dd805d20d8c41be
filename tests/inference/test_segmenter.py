from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from narrowed import tensor
from reference import tiny_backbone

from bench.errors import BenchError
from bench.inference.row import Row
from bench.inference.segmenter import Segmenter
from bench.models.backbone import Features, Trunk
from bench.models.upsamplers import JBUOne
from bench.registry import load_methods

WINDOW, STRIDE = 64, 32


def _row(backbone: object, name: str = "segearth-ov", **settings: object) -> Row:
    generator = torch.Generator().manual_seed(1)
    text = F.normalize(torch.randn(5, 24, generator=generator), dim=-1)
    return Row(name, load_methods()[name].build({}), text, torch.tensor([0, 1, 1, 2, 3]), **settings)


def _image(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(("height", "width"), [(128, 108), (64, 86), (40, 64), (50, 36)])
def test_batch_size_changes_nothing(height: int, width: int) -> None:
    backbone = tiny_backbone()
    row = _row(backbone, upsampler=JBUOne(24).eval(), debias=0.3)
    one, many = (Segmenter(backbone, [row], WINDOW, STRIDE, batch).scores(_image(height, width)) for batch in (1, 9))
    assert one["segearth-ov"].shape == (5, height, width)
    assert torch.allclose(one["segearth-ov"], many["segearth-ov"], atol=1e-5)


def test_rows_together_and_apart_are_equal() -> None:
    backbone = tiny_backbone()
    rows = [_row(backbone, name) for name in ("clip", "gem", "sclip")]
    together = Segmenter(backbone, rows, WINDOW, STRIDE).scores(_image(90, 75))
    for row in rows:
        apart = Segmenter(backbone, [row], WINDOW, STRIDE).scores(_image(90, 75))
        assert torch.equal(apart[row.name], together[row.name])
    assert set(Segmenter(backbone, rows, WINDOW, STRIDE).scores(_image(64, 64), ["gem"])) == {"gem"}


@pytest.mark.parametrize(("patch", "window"), [(32, 96), (14, 56)])
def test_other_patch_sizes_are_upsampled_to_the_window(patch: int, window: int) -> None:
    backbone = tiny_backbone(patch)
    row = _row(backbone, upsampler=JBUOne(24).eval(), debias=0.3)
    scores = Segmenter(backbone, [row], window, window // 2).scores(_image(window + 26, window + 6))["segearth-ov"]
    assert scores.shape == (5, window + 26, window + 6)
    assert scores.isfinite().all()


def test_debias_on_features_is_equation_9() -> None:
    """Both ways by the direct route: features of one window, the upsampler's forward, the subtraction, the
    cosine.
    """
    backbone = tiny_backbone()
    upsampler = JBUOne(24).eval()
    pixels = backbone.normalise(torch.from_numpy(_image(64, 64)))[None]
    with torch.inference_mode():
        features = load_methods()["segearth-ov"].build({})(backbone.trunk(pixels))
        low = features.patches.transpose(1, 2).unflatten(2, (4, 4))
        high = upsampler(low, pixels)  # (1, C, 64, 64)
        text = _row(backbone).text
        cosine = torch.einsum("qc,bchw->bqhw", text, F.normalize(high, dim=1))[0]
        expected = {
            "scores": cosine - 0.3 * (F.normalize(features.cls, dim=-1) @ text.T)[0][:, None, None],
            "features": torch.einsum(
                "qc,bchw->bqhw", text, F.normalize(high - 0.3 * features.cls[..., None, None], dim=1)
            )[0],
        }
    assert (expected["scores"] - expected["features"]).abs().max() > 1e-2
    for where, direct in expected.items():
        row = _row(backbone, upsampler=upsampler, debias=0.3, debias_on=where)
        scores = Segmenter(backbone, [row], WINDOW, STRIDE).scores(_image(64, 64))["segearth-ov"]
        assert (tensor(scores) - direct).abs().max() < 1e-5


def test_a_row_that_raises_leaves_the_others_alone() -> None:
    def broken(trunk: Trunk) -> Features:
        raise ZeroDivisionError("no features today")

    backbone = tiny_backbone()
    good = _row(backbone, "clip")
    bad = Row("broken", broken, good.text, good.classes)
    scores = Segmenter(backbone, [bad, good], WINDOW, STRIDE).scores(_image(128, 128))
    assert isinstance(scores["broken"], ZeroDivisionError)
    assert torch.equal(scores["clip"], Segmenter(backbone, [good], WINDOW, STRIDE).scores(_image(128, 128))["clip"])


def test_an_upsampled_row_that_raises_leaves_the_others_alone() -> None:
    def broken(trunk: Trunk) -> Features:
        raise ZeroDivisionError("no features today")

    backbone, upsampler = tiny_backbone(), JBUOne(24).eval()
    good = _row(backbone, upsampler=upsampler, debias=0.3)
    bad = Row("broken", broken, good.text, good.classes, upsampler)
    for order in ([good, bad], [bad, good]):
        scores = Segmenter(backbone, order, WINDOW, STRIDE).scores(_image(90, 64))
        assert isinstance(scores["broken"], ZeroDivisionError)
        alone = Segmenter(backbone, [good], WINDOW, STRIDE).scores(_image(90, 64))
        assert torch.equal(scores["segearth-ov"], alone["segearth-ov"])


def test_no_cls_and_a_debias_is_an_error() -> None:
    def patches_only(trunk: Trunk) -> Features:
        return Features(trunk.project(trunk.input(-1)).patches, None)

    backbone = tiny_backbone()
    good = _row(backbone)
    row = Row("patches", patches_only, good.text, good.classes, debias=0.3)
    outcome = Segmenter(backbone, [row], WINDOW, STRIDE).scores(_image(64, 64))["patches"]
    assert isinstance(outcome, BenchError)
    assert "gives no CLS token" in str(outcome)


def test_out_of_memory_halves_the_batch_and_goes_on() -> None:
    backbone = tiny_backbone()
    sizes = []

    def hungry(trunk: Trunk) -> Features:
        sizes.append(len(trunk.images))
        if len(trunk.images) > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return load_methods()["clip"].build({})(trunk)

    good = _row(backbone, "clip")
    row = Row("hungry", hungry, good.text, good.classes)
    segmenter = Segmenter(backbone, [row], WINDOW, STRIDE, batch=9)
    with pytest.warns(UserWarning, match="out of memory on cpu; retrying with --batch 2"):
        scores = segmenter.scores(_image(128, 128))["hungry"]
    assert sizes[:3] == [9, 4, 2]
    assert torch.allclose(
        scores, Segmenter(backbone, [good], WINDOW, STRIDE).scores(_image(128, 128))["clip"], atol=1e-5
    )


def test_own_scores_of_a_plug_in_are_taken_as_they_are() -> None:
    class Own:
        def scores(self, trunk: Trunk, text: torch.Tensor) -> torch.Tensor:
            return trunk.images.mean(dim=1, keepdim=True).expand(-1, len(text), -1, -1)

    backbone = tiny_backbone()
    good = _row(backbone)
    row = Row("own", Own(), good.text, good.classes)
    scores = Segmenter(backbone, [row], WINDOW, STRIDE).scores(_image(50, 60))["own"]
    expected = backbone.normalise(torch.from_numpy(_image(50, 60))).mean(dim=0)
    assert torch.allclose(tensor(scores)[0], expected, atol=1e-6)


def test_scores_of_another_shape_fail_the_row_alone() -> None:
    class Own:
        def scores(self, trunk: Trunk, text: torch.Tensor) -> torch.Tensor:
            return trunk.images.new_zeros(len(trunk.images), 3, 7, 7)

    backbone = tiny_backbone()
    good = _row(backbone, "clip")
    rows = [Row("own", Own(), good.text, good.classes), good]
    scores = Segmenter(backbone, rows, WINDOW, STRIDE).scores(_image(64, 86))
    assert "the method's scores are (2, 3, 7, 7); (2, 5, h, w) are needed" in str(scores["own"])
    assert torch.equal(scores["clip"], Segmenter(backbone, [good], WINDOW, STRIDE).scores(_image(64, 86))["clip"])


def test_rows_of_one_method_compute_its_features_once() -> None:
    calls = []

    def counted(trunk: Trunk, option: int = 0) -> Features:
        calls.append(option)
        return trunk.project(trunk.input(-1))

    good = _row(tiny_backbone())
    methods = {"a": {"option": 1}, "a+": {"option": 1}, "b": {"option": 2}}
    rows = [
        Row(name, functools.partial(counted, **options), good.text, good.classes) for name, options in methods.items()
    ]
    segmenter = Segmenter(tiny_backbone(), rows, WINDOW, STRIDE)
    segmenter.scores(_image(64, 64))  # the first windows, on which each method is looked at
    calls.clear()
    scores = segmenter.scores(_image(64, 64))
    assert calls == [1, 2]
    assert torch.equal(scores["a"], scores["a+"])


WRONG = {
    "return None": "the method returned NoneType; return Features",
    "return trunk.input(-1)": "the method returned Tensor; return Features",
    "return Features(trunk.project(trunk.input(-1)).patches[:, 1:], None)": "the method's patches are",
    "return Features(torch.zeros(2, 49, 24, dtype=torch.long), None)": "the method's patches are",
    "return Features(torch.nan * trunk.project(trunk.input(-1)).patches, None)": "are not finite",
    "trunk.qkv(-1)[1].mul_(2); return trunk.project(trunk.input(-1))": "changed the queries, keys or values of block 2",
    "f = trunk.project(trunk.input(-1)); return f._replace(cls=torch.randn_like(f.cls))": "it gives two results",
    "trunk.input(-1).add_(1); return trunk.project(trunk.input(-1))": "changed the input of block 2 in place",
    "trunk.input(7)": "block 7 was asked for, but the tower has 3",
}


@pytest.mark.parametrize("body", WRONG)
def test_what_a_method_does_wrong_is_said_on_the_first_window(body: str) -> None:
    backbone = tiny_backbone()
    names: dict[str, object] = {"torch": torch, "Features": Features}
    exec(f"def broken(trunk):\n    {body}", names)
    good = _row(backbone, "sclip")
    bad = Row("broken", names["broken"], good.text, good.classes)
    image = np.random.default_rng(0).integers(0, 255, (120, 120, 3), dtype=np.uint8)
    alone = Segmenter(backbone, [good], 112, 112).scores(image)[good.name]
    for rows in ([good, bad], [bad, good]):
        found = Segmenter(backbone, rows, 112, 112).scores(image)
        assert WRONG[body] in str(found["broken"]), found["broken"]
        assert torch.equal(found[good.name], alone)


def test_features_that_depend_on_words_are_not_shared_between_vocabularies() -> None:
    backbone, seen = tiny_backbone(), []

    def by_words(trunk: Trunk, text: torch.Tensor) -> Features:
        seen.append(text)
        return trunk.project(trunk.input(-1) + text.mean())

    one = _row(backbone)
    rows = [
        Row("one", by_words, one.text, one.classes, takes_text=True),
        Row("same", by_words, one.text, one.classes, takes_text=True),
        Row("other", by_words, -one.text, one.classes, takes_text=True),
    ]
    image = np.zeros((112, 112, 3), np.uint8)
    segmenter = Segmenter(backbone, rows, 112, 112)
    segmenter.scores(image)
    seen.clear()
    found = segmenter.scores(image)
    assert len(seen) == 2 and torch.equal(found["one"], found["same"]) and not torch.equal(found["one"], found["other"])


def test_a_refinement_gets_the_stitched_scores_of_the_image() -> None:
    backbone = tiny_backbone()
    plain = _row(backbone, "sclip")
    shapes = []

    def refine(image: torch.Tensor, scores: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        shapes.append((tuple(image.shape), tuple(scores.shape), tuple(text.shape)))
        return 2 * scores

    refined = replace(plain, name="refined", refine=refine)
    wrong = replace(plain, name="wrong", refine=lambda image, scores, text: scores[:2])
    image = np.random.default_rng(0).integers(0, 255, (150, 120, 3), dtype=np.uint8)
    found = Segmenter(backbone, [plain, refined, wrong], 112, 56).scores(image)
    assert torch.equal(found["refined"], 2 * tensor(found[plain.name]))
    assert shapes == [((3, 150, 120), (5, 150, 120), (5, 24))]
    assert "its refinement gives (2, 150, 120), not (5, 150, 120)" in str(found["wrong"])
