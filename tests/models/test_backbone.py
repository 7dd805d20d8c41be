from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock
from reference import tiny_backbone

from bench.errors import BenchError
from bench.models.backbone import Backbone
from bench.registry import load_methods


def test_the_whole_tower_is_open_clips_own() -> None:
    backbone = tiny_backbone()
    images = torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        trunk = backbone.trunk(images)
        ours = trunk.project(trunk.input(trunk.depth)).cls
        theirs = backbone.model.encode_image(images)
        clip = load_methods()["clip"].build({})(trunk).cls
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert torch.allclose(clip, theirs, atol=1e-5)


def test_methods_share_the_blocks_of_a_trunk() -> None:
    backbone = tiny_backbone()
    calls = []
    hooks = [
        block.ln_2.register_forward_hook(lambda *_: calls.append(1)) for block in backbone.visual.transformer.resblocks
    ]
    try:
        with torch.inference_mode():
            trunk = backbone.trunk(torch.randn(1, 3, 224, 224))
            for name in ("maskclip", "sclip", "clearclip", "segearth-ov", "naclip"):
                load_methods()[name].build({})(trunk)
    finally:
        for hook in hooks:
            hook.remove()
    assert len(calls) == trunk.depth - 1


def test_position_embedding_is_taken_as_stored_when_only_the_shape_of_the_grid_differs() -> None:
    """196 tokens on a 7x28 grid: the released code does not look at the shape."""
    backbone = tiny_backbone()
    trunk = backbone.trunk(torch.zeros(1, 3, 7 * 16, 28 * 16))
    assert trunk._position_embedding() is backbone.visual.positional_embedding


def test_position_embedding_of_another_grid_uses_the_explicit_factor() -> None:
    backbone = tiny_backbone()
    stored = backbone.visual.positional_embedding
    cells = stored[1:].T.reshape(1, -1, 14, 14)
    expected = F.interpolate(cells, scale_factor=(14.1 / 14, 13.1 / 14), mode="bicubic", recompute_scale_factor=False)
    by_size = F.interpolate(cells, size=(14, 13), mode="bicubic")
    got = backbone.trunk(torch.zeros(1, 3, 224, 208))._position_embedding()
    assert torch.equal(got[0], stored[0])
    assert torch.allclose(got[1:].T.reshape(1, -1, 14, 13), expected)
    assert not torch.allclose(expected, by_size, atol=1e-3)


def test_antialiased_trunk_is_the_same_object_at_the_native_grid_only() -> None:
    backbone = tiny_backbone()
    native = backbone.trunk(torch.zeros(1, 3, 224, 224))
    assert native.antialiased is native
    other = backbone.trunk(torch.zeros(1, 3, 224, 208))
    assert other.antialiased is not other
    difference = other.antialiased._position_embedding() - other._position_embedding()
    assert difference.abs().max() > 1e-3
    assert other.antialiased.antialiased is other.antialiased


def test_normalise_uses_clips_pixel_statistics() -> None:
    image = torch.tensor([[[122, 116, 104]]], dtype=torch.uint8)
    expected = [(122 - 122.771) / 68.501, (116 - 116.746) / 66.632, (104 - 104.094) / 70.323]
    assert tiny_backbone().normalise(image)[:, 0, 0].tolist() == pytest.approx(expected, abs=1e-6)


def test_a_tower_of_other_blocks_is_refused() -> None:
    class Parallel(ResidualAttentionBlock):
        """Attention and network side by side: computing it as the usual block would be silently wrong."""

    model = copy.deepcopy(tiny_backbone().model)  # tests share the original
    model.visual.transformer.resblocks[1].__class__ = Parallel
    with pytest.raises(BenchError, match="is not a plain CLIP ViT"):
        Backbone("parallel", model, None, "")


def test_a_tower_that_is_no_plain_vit_is_refused() -> None:
    with pytest.raises(BenchError, match=r"backbone odd: its image tower .* is not a plain CLIP ViT"):
        Backbone("odd", torch.nn.ModuleDict({"visual": torch.nn.Linear(1, 1)}), None, "")
