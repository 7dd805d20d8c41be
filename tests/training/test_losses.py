"""Jitter, downsampler and losses against hand-made values and plain definitions."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from narrowed import tensor

from bench.training.jitter import MAX_PAD, Jitter, apply_jitter, draw_jitter
from bench.training.losses import (
    AttentionDownsampler,
    ContentRetentionNet,
    UncertaintyNet,
    blur,
    image_loss,
    random_directions,
    reconstruction_loss,
)


def test_reconstruction_is_the_mean_square():
    predicted = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 2, 1, 2)
    target = torch.tensor([1.0, 0.0, 3.0, 1.0]).view(1, 2, 1, 2)
    assert reconstruction_loss(predicted, target).item() == pytest.approx((0 + 4 + 0 + 9) / 4)


def test_reconstruction_along_directions():
    predicted = torch.tensor([3.0, 4.0]).view(1, 2, 1, 1)
    target = torch.zeros(1, 2, 1, 1)
    directions = torch.tensor([[1.0, 0.6], [0.0, 0.8]])[None]  # projections 3 and 5
    assert reconstruction_loss(predicted, target, directions).item() == pytest.approx((9 + 25) / 2)


def test_reconstruction_with_uncertainty():
    predicted = torch.tensor([2.0, 3.0]).view(1, 1, 1, 2)
    uncertainty = torch.tensor([1.0, 2.0]).view(1, 1, 1, 2)
    loss = reconstruction_loss(predicted, torch.zeros(1, 1, 1, 2), None, uncertainty)
    assert loss.item() == pytest.approx((4 / 2 + 0 + 9 / 8 + math.log(2)) / 2)


def test_directions_have_unit_length_and_differ_between_images():
    directions = random_directions(3, 16, 5, torch.Generator().manual_seed(0))
    assert directions.shape == (3, 16, 5)
    torch.testing.assert_close(directions.norm(dim=1), torch.ones(3, 5))
    assert not torch.equal(directions[0], directions[1])


def test_image_loss():
    assert image_loss(torch.tensor([[[[0.5]]]]), torch.tensor([[[[2.0]]]])).item() == pytest.approx(2.25)


def test_uncertainty_starts_near_its_offset_and_has_a_floor():
    net = UncertaintyNet(4)
    assert net.net.weight.abs().max() <= 0.1 * 0.5  # a tenth of torch's bound 1/√4
    with torch.no_grad():
        net.net.weight.zero_()
        net.net.bias.zero_()
        assert net(torch.randn(1, 4, 2, 2)).unique().item() == pytest.approx(math.exp(0.1))
        net.net.bias.fill_(-50)
        assert net(torch.randn(1, 4, 2, 2)).unique().item() == pytest.approx(1e-4)


def test_content_retention_is_two_pixelwise_layers_with_a_norm_over_channels():
    net = ContentRetentionNet(6)
    pixels = torch.randn(2, 6, 3, 4)
    first, _, _, second, _ = net.net
    hidden = F.conv2d(pixels, tensor(first.weight)[:, :, None, None], first.bias)
    hidden = (hidden - hidden.mean(1, keepdim=True)) / (hidden.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    expected = torch.tanh(F.conv2d(F.gelu(hidden), tensor(second.weight)[:, :, None, None], second.bias))
    torch.testing.assert_close(net(pixels), expected)


@pytest.mark.parametrize("jitter", [Jitter(1.0, 0, 7, False), Jitter(1.0, 20, 20, True), Jitter(1.37, 31, 5, True)])
def test_jitter_is_pad_zoom_crop_flip(jitter):
    maps = torch.randn(2, 3, 32, 32)
    whole = F.pad(maps, [MAX_PAD] * 4, mode="reflect")
    if jitter.zoom > 1:
        whole = F.interpolate(whole, scale_factor=jitter.zoom, mode="bilinear")
    cut = whole[:, :, jitter.top : jitter.top + 32, jitter.left : jitter.left + 32]
    expected = cut.flip(3) if jitter.flip else cut
    torch.testing.assert_close(apply_jitter(maps, jitter), expected, atol=1e-5, rtol=0)


def test_drawn_jitters_stay_inside_and_use_the_whole_range():
    generator = torch.Generator().manual_seed(0)
    drawn = [draw_jitter(32, generator) for _ in range(400)]
    for jitter in drawn:
        places = int((32 + 2 * MAX_PAD) * jitter.zoom) - 32
        assert 0 <= jitter.top <= places
        assert 0 <= jitter.left <= places
        assert 1 <= jitter.zoom <= 2
    assert 0.4 < sum(jitter.flip for jitter in drawn) / 400 < 0.6
    assert 0.4 < sum(jitter.zoom > 1 for jitter in drawn) / 400 < 0.6
    assert max(jitter.zoom for jitter in drawn) > 1.95
    assert min(jitter.top for jitter in drawn if jitter.zoom == 1) == 0
    assert max(jitter.top for jitter in drawn if jitter.zoom == 1) == 2 * MAX_PAD


def test_blur_spreads_a_point_like_a_gaussian_and_reflects_at_borders():
    point = torch.zeros(1, 2, 9, 9)
    point[0, 0, 4, 4] = 1
    spread = blur(point)
    weights = [math.exp(-(offset**2) / 2) for offset in (-2, -1, 0, 1, 2)]
    total = sum(weights)
    for dy, dx in ((0, 0), (1, 0), (2, -2)):
        assert spread[0, 0, 4 + dy, 4 + dx].item() == pytest.approx(weights[dy + 2] * weights[dx + 2] / total**2)
    assert spread[0, 0, 4, 7] == 0
    assert spread[0, 1].abs().max() == 0
    torch.testing.assert_close(blur(torch.ones(1, 1, 5, 5)), torch.ones(1, 1, 5, 5))


def test_downsampler_is_a_softmax_mean_of_each_patch():
    net = AttentionDownsampler(3, 2).eval()
    net.patch_dropout = 0.0
    pixels = torch.randn(1, 3, 4, 6)
    result = net(pixels)
    assert result.shape == (1, 3, 2, 3)
    patch = blur(pixels)[0, :, 2:4, 4:6].flatten(1)  # row 1, column 2; (C, side²)
    weights = torch.softmax(net.saliency[1](patch.T).squeeze(1) * net.gain + net.bias, dim=0)
    torch.testing.assert_close(result[0, :, 1, 2], patch @ weights)


def test_downsampler_without_a_say_of_the_features_weighs_by_place():
    net = AttentionDownsampler(3, 2)
    net.patch_dropout = 1.0
    pixels = torch.randn(2, 3, 4, 4)
    weights = torch.softmax(net.bias, dim=0).view(2, 2)
    expected = (blur(pixels).unfold(2, 2, 2).unfold(3, 2, 2) * weights).sum((-2, -1))
    torch.testing.assert_close(net(pixels), expected)
