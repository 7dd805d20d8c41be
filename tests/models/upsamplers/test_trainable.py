"""The upsampler as it is trained, against the direct way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor
from upsampler_helpers import KINDS, for_small_shapes, lively

from bench.models.upsamplers import JBUOne, Upsampler, tiles
from bench.models.upsamplers.jbu import JointBilateral, TapProducts
from bench.models.upsamplers.trainable import enlarge, upsample

Found = dict[str, Tensor]


def direct(upsampler: Upsampler, patches: Tensor, guidance: Tensor, steps: int) -> Tensor:
    return upsampler(patches, guidance, steps)


def found_by(way: Callable[..., Tensor], upsampler: Upsampler, patches: Tensor, guidance: Tensor, steps: int) -> Found:
    """Pixel features, and the gradients of a random sum of them for patches and parameters."""
    torch.manual_seed(3)  # of the dropout
    upsampler.train().zero_grad()
    leaf = patches.clone().requires_grad_()
    features = way(upsampler, leaf, guidance, steps)
    weights = torch.randn(features.shape, generator=torch.Generator().manual_seed(0))
    (features * weights).sum().backward()
    leaves = {"patches": leaf, **dict(upsampler.named_parameters())}
    gradients = {name: one.grad.clone() for name, one in leaves.items() if one.grad is not None}
    assert len(gradients) == len(leaves)
    return {"features": features.detach(), **gradients}


def assert_same(found: Found, expected: Found) -> None:
    """Up to a share of the largest value, and what sums of thousands of terms lose where these cancel."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert (found[name] - value).abs().max() <= 1e-4 * value.abs().max() + 5e-5, name


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@for_small_shapes
def test_values_and_gradients_are_those_of_the_direct_way(
    height: int, width: int, steps: int, radius: int, batch: int
) -> None:
    torch.manual_seed(0)  # hypothesis draws shapes, not numbers
    upsampler = lively(JBUOne(5, radius))
    inputs = torch.randn(batch, 5, height, width), torch.randn(batch, 3, 40, 37), steps
    assert_same(found_by(upsample, upsampler, *inputs), found_by(direct, upsampler, *inputs))


@pytest.mark.slow
@pytest.mark.parametrize("grid", [(14, 14), (6, 13)])
@pytest.mark.parametrize("kind", KINDS)
def test_all_steps_at_full_size(kind: str, grid: tuple[int, int]) -> None:
    upsampler = lively(KINDS[kind](8))
    inputs = torch.randn(1, 8, *grid), torch.randn(1, 3, grid[0] * 16, grid[1] * 16), 4
    assert_same(found_by(upsample, upsampler, *inputs), found_by(direct, upsampler, *inputs))


class OfKeys(JointBilateral):
    """Its kernels are the inner products of given keys: without networks, whose own rounding depends on threads."""

    def __init__(self, keys: Tensor) -> None:
        super().__init__(radius=5)
        self.keys = keys

    def kernels(self, guidance: Tensor, tap_products: TapProducts | None = None) -> Tensor:
        assert tap_products is not None
        return tap_products(self.keys)


def test_the_number_of_threads_changes_rounding_alone() -> None:
    source, keys, guidance = torch.randn(2, 20, 30, 8), torch.randn(2, 32, 40, 60), torch.randn(2, 3, 40, 60)
    found = []
    for count in (1, 2, 3):
        leaves = source.clone().requires_grad_(), keys.clone().requires_grad_()
        with threads(count):
            out = enlarge(OfKeys(leaves[1]), leaves[0], guidance)
            out.square().sum().backward()
        found.append((out, *(leaf.grad for leaf in leaves)))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], atol=1e-4, rtol=1e-5)


def test_all_columns_at_once_as_on_an_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    upsampler = lively(JBUOne(6))
    inputs = torch.randn(2, 6, 9, 6), torch.randn(2, 3, 144, 96), 4
    expected = found_by(upsample, upsampler, *inputs)
    monkeypatch.setattr(tiles, "by_pieces", lambda _: False)
    assert_same(found_by(upsample, upsampler, *inputs), expected)


def test_under_autocast_features_are_filtered_in_float32() -> None:
    source, guidance = torch.randn(2, 5, 5, 6), torch.randn(2, 3, 10, 10)
    module = OfKeys(torch.randn(2, 32, 10, 10))
    with torch.autocast("cpu", torch.bfloat16):
        found = enlarge(module, source, guidance)
    assert torch.equal(found, enlarge(module, source, guidance))


def test_gradients_go_where_they_are_asked_for() -> None:
    upsampler = lively(JBUOne(4)).requires_grad_(False)
    patches = torch.randn(1, 4, 4, 4, requires_grad=True)
    upsample(upsampler, patches, torch.randn(1, 3, 8, 8), 1).sum().backward()
    assert patches.grad is not None
    upsampler.requires_grad_(True)
    upsample(upsampler, patches.detach(), torch.randn(1, 3, 8, 8), 1).sum().backward()
    assert all(parameter.grad is not None for parameter in upsampler.parameters())


def test_training_after_inference_in_one_process() -> None:
    """What inference keeps of a size is used by training as well."""
    upsampler, guidance = lively(JBUOne(3)), torch.randn(1, 3, 44, 52)
    with torch.inference_mode():
        upsampler.operator(guidance, (11, 13), 2).matrix()
    patches = torch.randn(1, 3, 11, 13, requires_grad=True)
    upsample(upsampler, patches, guidance, 2).square().sum().backward()
    assert patches.grad is not None and patches.grad.isfinite().all()
