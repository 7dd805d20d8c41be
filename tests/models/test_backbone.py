from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock
from reference import GOLDEN, golden, needs_golden, recipe, tiny_backbone

from bench.config import BackboneSpec
from bench.errors import BenchError
from bench.models.backbone import Backbone, Trunk
from bench.models.clip_weights import load_backbone
from bench.registry import load_methods


@pytest.fixture(scope="module")
def golden_trunk(tmp_path_factory: pytest.TempPathFactory) -> Trunk:
    checkpoint = tmp_path_factory.mktemp("golden") / "tiny.pt"
    torch.save(recipe().tiny_state_dict(), checkpoint)
    backbone = load_backbone(BackboneSpec(model=str(GOLDEN / "tiny_clip.json")), checkpoint)
    window = recipe().normalise(recipe().synth_image()[100:324, 130:354])
    return backbone.trunk(torch.from_numpy(window))


METHODS = {
    ("clip", ""): "vanilla/ir0",
    ("maskclip", ""): "MaskCLIP/ir1",
    ("sclip", ""): "SCLIP/ir1",
    ("sclip", "keep"): "SCLIP/ir0",
    ("clearclip", ""): "ClearCLIP/ir1",
    ("segearth-ov", ""): "SegEarth/ir1",
    ("naclip", "1"): "NACLIP/ir1",
    ("gem", ""): "GEM/ir1",
    ("gem", "keep"): "GEM/ir0",
}


@needs_golden
@pytest.mark.parametrize(("method", "option", "key"), [(*k, v) for k, v in METHODS.items()])
def test_tokens_are_those_of_the_released_code(golden_trunk: Trunk, method: str, option: str, key: str) -> None:
    options = {"": {}, "keep": {"residual": "keep"}, "1": {"sigma": 1.0}}[option]
    with torch.inference_mode():
        features = load_methods()[method].build(options)(golden_trunk)
    expected = golden("b_tokens_square")
    assert np.abs(features.patches[0].numpy() - expected[f"sq/{key}/tokens"]).max() < 1e-4
    if f"sq/{key}/cls" in expected:  # GEM has none in the reference
        assert np.abs(features.cls[0].numpy() - expected[f"sq/{key}/cls"]).max() < 1e-4


@needs_golden
def test_block_inputs_are_those_of_the_released_code(golden_trunk: Trunk) -> None:
    expected = golden("b_tokens_square")
    with torch.inference_mode():
        assert np.abs(golden_trunk.input(0)[0].numpy() - expected["sq/after_ln_pre"]).max() < 1e-4
        assert np.abs(golden_trunk.input(-1)[0].numpy() - expected["sq/last_block_input"]).max() < 1e-4


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
