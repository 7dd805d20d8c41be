"""Upsamplers besides JBU: against outputs of their authors' code, the fast way against the readable one, by hand."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from second_recipe import guidance, upsampler_state
from torch import Tensor

from bench.errors import BenchError
from bench.models.upsamplers import KINDS, Naf, ScoreRequest, Upsampler, load_upsampler, upsampler
from bench.models.upsamplers.attending import AnyUp, _Unification
from bench.models.upsamplers.naf import neighbourhoods
from bench.verify import recipe

STORED = dict(np.load(Path(__file__).parents[2] / "golden" / "upsamplers.npz"))
NEW = ("naf", "anyup", "jafar", "loftup")
MEANS = ("bilinear", "nearest", "naf", "anyup", "jafar")  # of patches' features, by weights that sum to one
OTHERS = (*MEANS, "loftup")
TOLERANCE = 2e-5  # of values up to 4


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Upsampler]:
    """Each kind with the recipe's weights, read from a file as the authors' checkpoints are named."""
    found = {}
    for kind in NEW:
        file = tmp_path_factory.mktemp("weights") / f"{kind}.pth"
        torch.save(upsampler_state(kind), file)
        found[kind] = load_upsampler(kind, file, 128)
        assert load_upsampler(None, file, 128).kind == kind  # it is seen from the file
    return found


def on_grid(tokens: Tensor) -> Tensor:
    return tokens.T.reshape(1, -1, 14, 14)


@pytest.mark.parametrize("kind", NEW)
def test_pixel_features_of_the_authors_code(kind: str, released: dict[str, Upsampler]) -> None:
    image = guidance(recipe.image()[recipe.WINDOW], released[kind].statistics)
    with torch.inference_mode():
        found = released[kind](on_grid(torch.from_numpy(STORED["features"])), image)[0]
    assert np.abs(found[:, 3::32, 5::32].numpy() - STORED[kind]).max() < TOLERANCE


@pytest.mark.parametrize("kind", OTHERS)
def test_scores_are_those_of_the_pixel_features(kind: str) -> None:
    """Of a request with a shift, and of one without."""
    torch.manual_seed(3)
    new = load_upsampler(kind, None, 24, seed=1)
    grid, image = (9, 11), torch.randn(2, 3, 72, 88)
    patches, other = torch.randn(2, 2, 99, 24).unbind()
    words = [F.normalize(torch.randn(count, 24), dim=-1) for count in (5, 2)]
    requests = [ScoreRequest(patches, words[0], 0.5 * torch.randn(2, 24)), ScoreRequest(other, words[1])]
    with torch.inference_mode():
        found = new.prepare(image, grid)(requests)
        for request, scores in zip(requests, found, strict=True):
            features = new(request.patches.mT.reshape(2, 24, *grid), image)
            if request.shift is not None:
                features = features + request.shift[:, :, None, None]
            expected = torch.einsum("bchw,qc->bhwq", F.normalize(features, dim=1), request.text)
            assert scores.shape == expected.shape
            assert (scores - expected).abs().max() < 5e-6


@pytest.mark.parametrize("kind", OTHERS)
def test_neither_batch_nor_company_matters(kind: str) -> None:
    torch.manual_seed(4)
    new = load_upsampler(kind, None, 16, seed=2)
    image, patches = torch.randn(3, 3, 72, 72), torch.randn(3, 81, 16)
    text = F.normalize(torch.randn(4, 16), dim=-1)
    with torch.inference_mode():
        together, _ = new.prepare(image, (9, 9))([ScoreRequest(patches, text), ScoreRequest(-patches, text)])
        (alone,) = new.prepare(image[1:2], (9, 9))([ScoreRequest(patches[1:2], text)])
    assert (together[1:2] - alone).abs().max() < 2e-6


def test_nearest_and_bilinear_by_hand() -> None:
    patches = torch.tensor([[[[1.0, 3.0]]]])  # one row of two patches
    image = torch.zeros(1, 3, 2, 4)
    with torch.inference_mode():
        assert load_upsampler("nearest", None, 1)(patches, image)[0, 0].tolist() == [[1, 1, 3, 3]] * 2
        assert load_upsampler("bilinear", None, 1)(patches, image)[0, 0].tolist() == [[1, 1.5, 2.5, 3]] * 2


def test_equal_features_stay_as_they_are() -> None:
    """Weights that sum to one, of all but JBU, whose learned fix-up does not."""
    image = torch.randn(1, 3, 72, 72)
    for kind in MEANS:
        with torch.inference_mode():
            pixels = load_upsampler(kind, None, 8, seed=5)(torch.full((1, 8, 9, 9), 2.5), image)
        assert (pixels - 2.5).abs().max() < 1e-5, kind


def test_naf_is_linear_in_the_features_and_its_heads_are_apart() -> None:
    torch.manual_seed(6)
    new, image = load_upsampler("naf", None, 8, seed=6), torch.randn(1, 3, 72, 72)
    one, two = torch.randn(2, 1, 8, 9, 9).unbind()
    only = two.clone()
    only[:, :6] = 0  # the last head's quarter alone
    with torch.inference_mode():
        assert (new(one + 2 * two, image) - new(one, image) - 2 * new(two, image)).abs().max() < 1e-5
        assert new(only, image)[:, :6].abs().max() == 0
        assert torch.equal(new(only, image)[:, 6:], new(two, image)[:, 6:])


def test_naf_neighbourhoods_are_shifted_inside() -> None:
    rows, columns = neighbourhoods(torch.zeros(1, 3, 24, 36), (12, 9))
    seen = [sorted(np.flatnonzero(row).tolist()) for row in rows.numpy()]
    assert seen[0] == list(range(9)) and seen[9] == list(range(9))  # own patch 4
    assert seen[10] == list(range(1, 10)) and seen[-1] == list(range(3, 12))
    assert columns.all()


def test_naf_says_what_it_needs() -> None:
    new = load_upsampler("naf", None, 8, seed=1)
    with pytest.raises(BenchError, match="at least 9 x 9 patches of whole pixels, not 7 x 7 on 112 x 112"):
        new.prepare(torch.zeros(1, 3, 112, 112), (7, 7))
    with pytest.raises(BenchError, match="whole pixels"):
        new.prepare(torch.zeros(1, 3, 100, 100), (9, 9))


def test_anyup_sees_a_tenth_of_the_side() -> None:
    rows, _ = load_upsampler("anyup", None, 8, seed=1).sees(torch.zeros(1, 3, 224, 224), (14, 14))  # type: ignore[operator]
    counts = rows.sum(1)
    assert rows[0].nonzero().flatten().tolist() == [0, 1]  # centre 0.5 / 224: up to ceil(1.43)
    assert rows[112].nonzero().flatten().tolist() == [5, 6, 7, 8]
    assert counts.min() >= 2 and counts.max() <= 4


def test_anyup_reads_channels_as_released() -> None:
    """(C, 128) maps read as (128, C): with C = 1 that is a softmax over the filters; with C = 128 over the channels."""
    torch.manual_seed(7)
    unify = _Unification()
    with torch.no_grad():
        unify.basis.copy_(torch.randn_like(unify.basis))
        one = torch.randn(1, 1, 5, 5)
        correlated = F.conv2d(one, unify.basis, padding=2)
        inside = F.conv2d(torch.ones(1, 1, 5, 5), torch.ones(1, 1, 5, 5), padding=2)
        assert (unify(one) - (correlated / inside).softmax(1)).abs().max() < 1e-6
        wide = torch.randn(1, 128, 5, 5)
        maps = F.conv2d(wide[0, :, None], unify.basis, padding=2) / inside  # (channels, filters, 5, 5)
        assert (unify(wide)[0] - maps.softmax(0).mean(1)).abs().max() < 1e-6


@pytest.mark.parametrize("kind", ["jafar", "loftup"])
def test_some_are_for_one_width(kind: str, tmp_path: Path) -> None:
    file = tmp_path / f"{kind}.pth"
    torch.save(upsampler_state(kind), file)
    with pytest.raises(BenchError, match=r"features of 128 channels, this backbone's have 512; .* \(naf, anyup\)"):
        load_upsampler(kind, file, 512)
    assert load_upsampler(kind, file, 128).dim == 128


def test_loftup_has_the_released_number_of_parameters_and_looks_at_one_window() -> None:
    assert sum(parameter.numel() for parameter in load_upsampler("loftup", None, 512).parameters()) == 7_165_462
    torch.manual_seed(8)
    new, image, patches = load_upsampler("loftup", None, 8, seed=3), torch.randn(2, 3, 32, 48), torch.randn(2, 8, 2, 3)
    with torch.inference_mode():
        together, alone = new(patches, image), new(patches[1:], image[1:])
        other = new(patches[1:], 3 * image[1:] - 1)  # colours are stretched, so their scale is nothing
    assert (together[1:] - alone).abs().max() < 1e-5 and (other - alone).abs().max() < 1e-2


def test_the_wrong_kind_is_named(tmp_path: Path) -> None:
    file = tmp_path / "naf.pth"
    torch.save(upsampler_state("naf"), file)
    with pytest.raises(BenchError, match="holds a naf, not a anyup; set kind: naf"):
        load_upsampler("anyup", file, 128)


def test_drawn_weights_are_the_same_each_time_and_differ_by_seed() -> None:
    one, same, other = (load_upsampler("naf", None, 8, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(value, same[name]) for name, value in one.items())
    assert not torch.equal(one["image_encoder.encoder.0.weight"], other["image_encoder.encoder.0.weight"])


def test_a_kind_of_ones_own_needs_a_forward_alone() -> None:
    @upsampler("test-repeat")
    class Repeat(Upsampler):
        weightless = True

        def forward(self, patches: Tensor, guidance: Tensor) -> Tensor:
            return F.interpolate(patches, guidance.shape[2:], mode="nearest")

    try:
        mine, nearest = load_upsampler("test-repeat", None, 4), load_upsampler("nearest", None, 4)
        image, text = torch.randn(2, 3, 8, 12), F.normalize(torch.randn(3, 4), dim=-1)
        request = ScoreRequest(torch.randn(2, 6, 4), text, torch.randn(2, 4))
        (found,), (expected,) = (each.prepare(image, (2, 3))([request]) for each in (mine, nearest))
        assert (found - expected).abs().max() < 1e-6
    finally:
        del KINDS["test-repeat"]


def test_two_kinds_of_one_name_are_refused() -> None:
    with pytest.raises(BenchError, match="two upsamplers are of kind 'naf'"):
        upsampler("naf")(type("Other", (AnyUp,), {"__module__": __name__, "__file__": sys.modules[__name__].__file__}))
    assert KINDS["naf"] is Naf
