"""The upsamplers by hand, and the fast way against the direct one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from narrowed import present, tensor
from torch import Tensor
from upsampler_helpers import KINDS, for_small_shapes, lively

from bench.errors import BenchError
from bench.models.upsamplers import (
    BilateralUpsampler,
    JBUOne,
    JBUStack,
    PixelScores,
    ScoreRequest,
    steps_for,
    tiles,
    upsampled_scores,
)
from bench.models.upsamplers.jbu import JointBilateral, adaptive_conv
from bench.models.upsamplers.operator import Operator, Step
from bench.models.upsamplers.tiles import Strip, TileGrid


def matrices(upsampler: BilateralUpsampler, guidance: Tensor, grid: tuple[int, int], steps: int = 4) -> Tensor:
    """W (B, P, n) of each window."""
    return upsampler.operator(guidance, grid, steps).matrix()


def through_operator(upsampler: BilateralUpsampler, patches: Tensor, guidance: Tensor, steps: int) -> Tensor:
    """Pixel features (B, C, H, W) by way of W."""
    grid = (patches.shape[2], patches.shape[3])
    operator = matrices(upsampler, guidance, grid, steps)
    projection: Any = upsampler.projection
    weight, bias = projection
    features = operator @ patches.flatten(2).mT
    features = features + 0.1 * (features @ weight.T + bias)
    return features.mT.unflatten(2, (grid[0] << steps, grid[1] << steps))


# --- the adaptive convolution


def test_adaptive_convolution_by_hand() -> None:
    source = torch.arange(16.0).view(1, 1, 4, 4)
    kernels = torch.zeros(1, 9, 2, 2)
    kernels[0, 0] = 1  # the upper left neighbour
    kernels[0, 5, 0, 1] = 10  # at one pixel the right neighbour too
    assert adaptive_conv(source, kernels).tolist() == [[[[0, 1 + 70], [4, 5]]]]


@pytest.mark.parametrize("diameter", [1, 3, 5])
def test_adaptive_convolution_has_the_right_gradients(diameter: int) -> None:
    source = torch.randn(2, 2, 2 + diameter - 1, 3 + diameter - 1, dtype=torch.float64, requires_grad=True)
    kernels = torch.randn(2, diameter**2, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(adaptive_conv, (source, kernels))
    assert torch.autograd.gradcheck(lambda source: adaptive_conv(source, kernels.detach()), (source,))
    assert torch.autograd.gradcheck(lambda kernels: adaptive_conv(source.detach(), kernels), (kernels,))


# --- one step


def test_without_a_fixup_kernels_sum_to_one() -> None:
    module = JointBilateral(2).eval()
    torch.nn.init.zeros_(module.fixup_proj[3].weight)
    torch.nn.init.zeros_(module.fixup_proj[3].bias)
    with torch.no_grad():
        kernels = module.kernels(torch.randn(2, 3, 6, 8))
        assert kernels.shape == (2, 25, 6, 8)
        torch.testing.assert_close(kernels.sum(1), torch.ones(2, 6, 8))
        constant = module(torch.ones(2, 4, 3, 4), torch.randn(2, 3, 6, 8))
    torch.testing.assert_close(constant, torch.ones(2, 4, 6, 8))


def test_on_a_plain_image_the_kernel_is_the_spatial_gaussian() -> None:
    module = JointBilateral(1).eval()
    torch.nn.init.zeros_(module.fixup_proj[3].weight)
    torch.nn.init.zeros_(module.fixup_proj[3].bias)
    edge, corner = np.exp(-1 / 2), np.exp(-2 / 2)  # sigma 1, distances in units of the radius
    expected = np.array([corner, edge, corner, edge, 1, edge, corner, edge, corner])
    expected /= expected.sum()
    kernels = module.kernels(torch.full((1, 3, 2, 2), 0.7))
    np.testing.assert_allclose(kernels[0, :, 1, 0].detach().numpy(), expected, rtol=1e-6)


def test_every_parameter_gets_a_gradient() -> None:
    upsampler = JBUStack(4, modules=2)
    upsampler(torch.randn(1, 4, 3, 3), torch.randn(1, 3, 12, 12), steps=2).square().sum().backward()
    for name, parameter in upsampler.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_dropout_works_in_training_only() -> None:
    upsampler, patches, guidance = JBUOne(8), torch.randn(1, 8, 4, 4), torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        assert not torch.equal(upsampler(patches, guidance, 1), upsampler(patches, guidance, 1))
        upsampler.eval()
        assert torch.equal(upsampler(patches, guidance, 1), upsampler(patches, guidance, 1))


# --- the operator


@for_small_shapes
def test_operator_is_the_direct_way(height: int, width: int, steps: int, radius: int, batch: int) -> None:
    torch.manual_seed(0)  # hypothesis draws shapes, not numbers
    upsampler = lively(JBUOne(5, radius))
    patches, guidance = torch.randn(batch, 5, height, width), torch.randn(batch, 3, 40, 37)
    with torch.no_grad():
        direct = upsampler(patches, guidance, steps)
    by_operator = through_operator(upsampler, patches, guidance, steps)
    torch.testing.assert_close(by_operator, direct, atol=2e-5, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("grid", [(14, 14), (14, 13), (6, 14)])
@pytest.mark.parametrize("kind", KINDS)
def test_operator_is_the_direct_way_at_full_size(kind: str, grid: tuple[int, int]) -> None:
    upsampler = lively(KINDS[kind](8))
    patches, guidance = torch.randn(1, 8, *grid), torch.randn(1, 3, grid[0] * 16, grid[1] * 16)
    with torch.no_grad():
        direct = upsampler(patches, guidance)
    by_operator = through_operator(upsampler, patches, guidance, 4)
    torch.testing.assert_close(by_operator, direct, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("sigma", [1.0, 0.2, 0.1])
def test_operator_where_the_gaussian_is_narrow(sigma: float) -> None:
    """So narrow that what is alike is beyond it, and the floor of the kernels' sum acts."""
    upsampler, guidance = lively(JBUOne(4)), 3 * torch.randn(1, 3, 16, 16)
    torch.nn.init.zeros_(upsampler.up.fixup_proj[3].weight)
    torch.nn.init.zeros_(upsampler.up.fixup_proj[3].bias)
    with torch.no_grad():
        matrices(upsampler, guidance, (4, 4), 2)  # with another Gaussian
        upsampler.up.range_temp.fill_(3)
        upsampler.up.sigma_spatial.fill_(sigma)
        sums = upsampler.up.kernels(guidance).sum(1)
        patches = torch.randn(1, 4, 4, 4)
        direct = upsampler(patches, guidance, 2)
    assert (sums.min() < 0.5) == (sigma < 0.25)
    torch.testing.assert_close(through_operator(upsampler, patches, guidance, 2), direct, atol=1e-4, rtol=1e-4)


def test_operator_with_all_columns_of_tiles_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The way it runs on an accelerator."""
    upsampler, guidance = lively(JBUOne(4)), torch.randn(2, 3, 52, 36)
    by_columns = matrices(upsampler, guidance, (13, 9), 2)
    monkeypatch.setattr(TileGrid, "strips", lambda tiles: [Strip(0, tiles.across)])
    torch.testing.assert_close(matrices(upsampler, guidance, (13, 9), 2), by_columns, atol=1e-6, rtol=1e-5)


def test_operator_stays_in_float32_under_autocast() -> None:
    upsampler, guidance = lively(JBUOne(4)), torch.randn(1, 3, 16, 16)
    expected = matrices(upsampler, guidance, (4, 4), 2)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(matrices(upsampler, guidance, (4, 4), 2), expected)
    assert expected.dtype == torch.float32 and not expected.requires_grad


def test_steps_of_a_stack_have_weights_of_their_own() -> None:
    upsampler, guidance = lively(JBUStack(4)), torch.randn(1, 3, 12, 12)
    first, second = upsampler.modules_for(2)
    pooled = F.adaptive_avg_pool2d(guidance, 6)
    one = Operator([Step(first, pooled)], (3, 3)).matrix()
    torch.testing.assert_close(matrices(upsampler, guidance, (3, 3), 1), one)
    two = Operator([Step(second, guidance)], (6, 6)).matrix() @ one
    torch.testing.assert_close(matrices(upsampler, guidance, (3, 3), 2), two, atol=1e-5, rtol=1e-5)


# --- scores without features


def direct_scores(operator, patches, projection, text, shift) -> Tensor:
    weight, bias = projection
    features = operator @ patches
    features = features + 0.1 * (features @ weight.T + bias)
    if shift is not None:
        features = features + shift[:, None]
    return F.normalize(features, dim=-1) @ text.T


def from_matrices(operator, patches, projection, text, shift=None) -> Tensor:
    return PixelScores.of([ScoreRequest(patches, text, shift)], projection)[0](operator)


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize(("patches", "channels"), [(12, 64), (12, 13), (12, 12), (40, 16), (1, 8)])
def test_scores_are_cosines_of_the_features(patches: int, channels: int, shifted: bool) -> None:
    operator = torch.randn(2, 9000, patches) * patches**-0.5
    tokens = torch.randn(2, patches, channels)
    projection = torch.randn(channels, channels) * channels**-0.5, torch.randn(channels)
    text = F.normalize(torch.randn(7, channels), dim=1)
    shift = -0.3 * torch.randn(2, channels) if shifted else None
    expected = direct_scores(operator, tokens, projection, text, shift)
    scores = from_matrices(operator, tokens, projection, text, shift)
    torch.testing.assert_close(scores, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("tokens", ["equal", "duplicates", "zero"])
def test_scores_of_degenerate_features(tokens: str) -> None:
    channels = 32
    patches = {
        "equal": torch.randn(1, 1, channels).expand(1, 10, channels),
        "duplicates": torch.randn(1, 2, channels).repeat(1, 5, 1),
        "zero": torch.zeros(1, 10, channels),
    }[tokens]
    operator = torch.rand(1, 50, 10)
    operator /= operator.sum(2, keepdim=True)
    projection = torch.zeros(channels, channels), torch.zeros(channels)
    text = F.normalize(torch.randn(3, channels), dim=1)
    expected = direct_scores(operator, patches, projection, text, None)
    scores = from_matrices(operator, patches, projection, text)
    torch.testing.assert_close(scores, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("first", "last"), [(0, 1), (0, 40), (7, 40), (60, 95), (110, 150), (149, 150)])
@pytest.mark.parametrize("words", [5, 48, 60])
def test_scores_where_other_columns_are_zero(first: int, last: int, words: int) -> None:
    projection = torch.randn(64, 64) / 8, torch.randn(64)
    pixels = torch.randn(2, 20, 150)
    pixels[..., :first] = pixels[..., last:] = 0
    request = ScoreRequest(torch.randn(2, 150, 64), F.normalize(torch.randn(words, 64), dim=1), torch.randn(2, 64))
    (score,) = PixelScores.of([request], projection)
    expected = direct_scores(pixels, request.patches, projection, request.text, request.shift)
    torch.testing.assert_close(score(pixels[..., first:last], first), expected, atol=2e-6, rtol=1e-5)


def test_who_else_asks_changes_nothing() -> None:
    upsampler, guidance = lively(JBUOne(16)), torch.randn(1, 3, 48, 64)
    requests = [
        ScoreRequest(torch.randn(1, 12, 16), F.normalize(torch.randn(words, 16), dim=1)) for words in (1, 5, 3, 5)
    ]
    operator = upsampler.operator(guidance, (3, 4))
    together = upsampled_scores(operator, requests, upsampler.projection)
    for request, scores in zip(requests, together, strict=True):
        (alone,) = upsampled_scores(operator, [request], upsampler.projection)
        assert scores.shape == (1, 48, 64, len(request.text))
        assert torch.equal(scores, alone)


def test_the_number_of_threads_changes_rounding_alone() -> None:
    upsampler, guidance = lively(JBUOne(128)), torch.randn(1, 3, 224, 224)
    requests = [ScoreRequest(torch.randn(1, 196, 128), F.normalize(torch.randn(5, 128), dim=1))] * 2
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(upsampled_scores(upsampler.operator(guidance, (14, 14)), requests, upsampler.projection)[1])
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    for scores in found[1:]:
        torch.testing.assert_close(scores, found[0], atol=2e-6, rtol=0)


def test_windows_together_and_apart_are_equal_up_to_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    upsampler, guidance = lively(JBUOne(16)), torch.randn(3, 3, 48, 64)
    request = ScoreRequest(torch.randn(3, 12, 16), F.normalize(torch.randn(5, 16), dim=1), 0.1 * torch.randn(3, 16))
    (together,) = upsampled_scores(upsampler.operator(guidance, (3, 4)), [request], upsampler.projection)
    for number in range(3):
        one = slice(number, number + 1)
        alone_request = ScoreRequest(request.patches[one], request.text, present(request.shift)[one])
        operator = upsampler.operator(guidance[one], (3, 4))
        (alone,) = upsampled_scores(operator, [alone_request], upsampler.projection)
        torch.testing.assert_close(tensor(together)[one], alone, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("kind", "grid", "steps"), [("jbu_one", (4, 23), 3), ("jbu_stack", (2, 17), 4)])
def test_operator_of_a_wide_window_leaves_out_zeros_only(kind: str, grid: tuple[int, int], steps: int) -> None:
    upsampler = lively(KINDS[kind](6))
    guidance = torch.randn(1, 3, grid[0] << steps, grid[1] << steps)
    operator = upsampler.operator(guidance, grid, steps)
    widths = [operator.rows(strip).values.shape[2] for strip in operator.tiles.strips()]
    assert min(widths) < grid[0] * grid[1]
    patches = torch.randn(1, 6, *grid)
    direct = upsampler(patches, guidance, steps)
    torch.testing.assert_close(through_operator(upsampler, patches, guidance, steps), direct, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["jbu_one", "jbu_stack"])
def test_all_at_once_as_on_an_accelerator(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    upsampler, guidance = lively(KINDS[kind](6)), torch.randn(2, 3, 144, 96)
    pieces = matrices(upsampler, guidance, (9, 6), 4)
    monkeypatch.setattr(tiles, "by_pieces", lambda _: False)
    torch.testing.assert_close(matrices(upsampler, guidance, (9, 6), 4), pieces, atol=1e-6, rtol=1e-5)


# --- what cannot be done


@pytest.mark.parametrize(("patch_size", "steps"), [(8, 3), (14, 4), (16, 4), (32, 5)])
def test_steps_for_patch_sizes(patch_size: int, steps: int) -> None:
    assert steps_for(patch_size) == steps


@pytest.mark.parametrize(("kind", "least"), [("jbu_one", 3), ("jbu_stack", 2)])
def test_too_few_patches(kind: str, least: int) -> None:
    upsampler = lively(KINDS[kind](4))
    guidance = torch.randn(1, 3, 32, 32)
    assert upsampler(torch.randn(1, 4, least, 5), guidance, 1).shape == (1, 4, 2 * least, 10)
    assert matrices(upsampler, guidance, (least, 5), 1).isfinite().all()
    with pytest.raises(BenchError, match=f"at least {least} x {least} patches, not {least - 1} x 5"):
        upsampler(torch.randn(1, 4, least - 1, 5), guidance, 1)
    with pytest.raises(BenchError, match=f"not 5 x {least - 1}"):
        matrices(upsampler, guidance, (5, least - 1), 1)


def test_more_steps_than_modules() -> None:
    with pytest.raises(BenchError, match=r"4 modules.* 5 doublings"):
        JBUStack(4).operator(torch.randn(1, 3, 96, 96), (3, 3), 5)
    assert len(JBUStack(4, modules=5).modules_for(5)) == 5
    assert len(JBUOne(4).modules_for(5)) == 5
