"""Towers that are no CLIP, against what their authors' code computed on the same drawn weights."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from narrowed import tensor

from bench.config import BackboneSpec
from bench.errors import BenchError
from bench.inference.row import Row
from bench.inference.segmenter import Segmenter
from bench.models.checkpoints import read_state_dict
from bench.models.text import Vocabulary
from bench.models.towers import tiny
from bench.models.towers.dinotxt import Dinotxt, TextEncoder, VisionHead, tiny_dinotxt
from bench.models.towers.loading import load_tower, needs
from bench.models.towers.radio import convert
from bench.models.towers.sam3 import Sam3, named, needed, squashed, tiny_sam3
from bench.notebook import load_segmenter, run
from bench.registry import load_methods
from bench.verify.goldens import stored
from bench.verify.towers import cases, compare

GOLDENS = dict(cases(stored("towers")))
WORDS = Vocabulary.parse("road; building, roof; water")


def of(library: str) -> list[str]:
    return [name for name in GOLDENS if name.startswith(library)]


@pytest.fixture(scope="module")
def sam3() -> Sam3:
    pytest.importorskip("transformers", "5.0")
    return tiny_sam3("sam3", 7)


@pytest.fixture
def window() -> torch.Tensor:
    return torch.randint(0, 256, (70, 90, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", of("sam3"))
def test_sam3_is_its_authors(name: str) -> None:
    pytest.importorskip("transformers", "5.0")
    found = compare(name, GOLDENS[name])
    assert found.good, found


@pytest.mark.parametrize("name", of("radseg") + of("vip"))
def test_radseg_and_vip_are_their_authors(name: str) -> None:
    found = compare(name, GOLDENS[name])
    assert found.good, found


def test_vip_scores_the_classes_that_have_words(window: torch.Tensor) -> None:
    words, tower = Vocabulary.of([["road"], [], ["building", "roof"]]), tiny_dinotxt("dinotxt", 7)
    method: Any = load_methods()["vip"].build({})
    row = Row("vip", method, method.encode_text(tower, words), torch.tensor([0, 2]), scale=1.0)
    scores = Segmenter(tower, [row], 48, 48).scores(window.numpy())["vip"]
    assert isinstance(scores, torch.Tensor) and scores.isfinite().all()
    assert set(np.unique(row.label_map(scores, (70, 90)))) <= {0, 2}


def test_nvidias_file_is_converted_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVSS_BENCH_CACHE", str(tmp_path))
    model, head = tiny.radio()
    theirs = {"blocks": "blocks", "pos_embed": "patch_generator.pos_embed"}
    state = {
        f"base_model.{theirs[k.split('.')[0]]}{k[len(k.split('.')[0]) :]}": v
        for k, v in model.state_dict().items()
        if k.split(".")[0] in theirs
    }
    state["base_model.patch_generator.embedder.weight"] = tensor(model.patch_embed.proj.weight).flatten(1)
    state["base_model.patch_generator.cls_token.token"] = torch.cat(
        [tensor(model.cls_token)[0], tensor(model.reg_token)[0]]
    )
    state |= {f"_heads.1.{k}": v for k, v in head.state_dict().items()}
    args = argparse.Namespace(teachers=[{"name": "clip"}, {"name": "siglip2-g"}])
    torch.save({"state_dict": state, "args": args}, tmp_path / "theirs.pth.tar")
    convert(tmp_path / "theirs.pth.tar", tmp_path / "ours.safetensors", tiny.radio()[0])
    found = read_state_dict(tmp_path / "ours.safetensors")
    expected = {k: v for k, v in model.state_dict().items() if k != "patch_embed.proj.bias"}
    assert all(torch.equal(found[k], v) for k, v in expected.items())
    assert all(torch.equal(found[f"head.{k}"], v) for k, v in head.state_dict().items())
    with pytest.raises(BenchError, match="has no head 'sam'; it has clip, siglip2-g"):
        convert(tmp_path / "theirs.pth.tar", tmp_path / "x", tiny.radio()[0], "sam")


def test_dinotxts_files_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVSS_BENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache" / "weights").mkdir(parents=True)
    image, name = tmp_path / "cache" / "weights" / "image.pth", "vit_small_patch16_dinov3"
    torch.save(timm.create_model(name, num_classes=0).state_dict(), image)
    parts = {"visual_model.head.": VisionHead(384, 64, 2), "text_model.": TextEncoder(64, 3, 768, vocabulary=49408)}
    state = {f"{prefix}{key}": value for prefix, part in parts.items() for key, value in part.state_dict().items()}
    torch.save(state | {"logit_scale": torch.zeros(1)}, tmp_path / "dinotxt.pth")
    spec = BackboneSpec(library="dinotxt", model=name, image_file="image.pth")
    tower = load_tower("dinotxt", spec, tmp_path / "dinotxt.pth", "cpu", "fp32")
    assert isinstance(tower, Dinotxt)
    found = tower.encode_prompts(["a road", "a road"])
    assert found.shape == (2, 384) and torch.equal(found[0], found[1])
    trunk = tower.trunk(torch.zeros(1, 3, 48, 64))
    assert trunk.patches.shape == (1, 12, 384)
    even = torch.full((1, 12, 12), 1 / 12)
    assert tower.head(trunk.patches, even).shape == (1, 12, 384)


def test_the_text_encoder_of_dinotxt_is_causal_and_ends_at_the_last_token() -> None:
    torch.manual_seed(0)
    encoder = TextEncoder(64, 2, 8, vocabulary=50).eval()
    tokens = torch.tensor([[1, 2, 49, 0, 0], [1, 2, 49, 3, 3], [1, 5, 49, 0, 0]])
    with torch.inference_mode():
        found = encoder(tokens)
    assert torch.allclose(found[0], found[1], atol=1e-6) and not torch.allclose(found[0], found[2], atol=1e-3)


def test_windows_are_squashed_as_torchvision_does_on_a_cpu() -> None:
    golden = GOLDENS["sam3_tall"]
    image = torch.from_numpy(golden["image"]).permute(2, 0, 1).float() / 255
    assert np.array_equal(squashed(image, 112)[0].permute(1, 2, 0).numpy(), golden["views"][0])


def test_the_geometric_token_stands_behind_the_words(sam3: Sam3, window: torch.Tensor) -> None:
    """Transformers leaves it out where a text alone is given, and then is not the authors' model."""
    trunk, words = sam3.trunk(sam3.normalise(window)[None]), sam3.encode_words(["road"])
    (answer,) = trunk.answers(0, words, 0.0)
    ids = sam3._tokenizer(["road"])
    pixels = squashed(trunk.rgb[0], sam3.side).float() / 255
    asked = {"pixel_values": 2 * pixels - 1, "input_ids": ids, "attention_mask": (ids != 0).long()}
    with torch.inference_mode():
        without = sam3.model(**asked)
        none = {"input_boxes": torch.zeros(1, 1, 4), "input_boxes_labels": torch.full((1, 1), -10)}
        given = sam3.model(**asked, **none)
    assert (answer.semantic - given.semantic_seg[0, 0]).abs().max() < 1e-4
    assert (answer.semantic - without.semantic_seg[0, 0]).abs().max() > 0.05


def rows_of(sam3: Sam3, *options: dict[str, Any]) -> list[Row]:
    found = []
    for number, own in enumerate(options):
        built: Any = load_methods()["segearth-ov3"].build(own)
        text = built.encode_text(sam3, WORDS)
        found.append(Row(str(number), built, text, torch.tensor(WORDS.classes), scale=0.0))
    return found


def test_rows_share_one_pass_for_each_word_and_window(sam3: Sam3, window: torch.Tensor) -> None:
    rows = rows_of(sam3, {}, {"fusion": "pgrf", "confidence": 0.3}, {"instances": False}, {"presence": False})
    asked: list[int] = []
    hook = sam3.model.detr_encoder.register_forward_pre_hook(
        lambda _, args, kwargs: asked.append(len(kwargs["text_features"])), with_kwargs=True
    )
    try:
        found = Segmenter(sam3, rows, 60, 60, batch=3).scores(window.numpy())
    finally:
        hook.remove()
    assert sum(asked) == 4 * len(WORDS.queries)
    assert all(isinstance(one, torch.Tensor) and one.shape == (4, 70, 90) for one in found.values())


def test_instances_below_what_was_remembered_are_asked_for_again(sam3: Sam3, window: torch.Tensor) -> None:
    words = sam3.encode_words(["road"])
    trunk, other = (sam3.trunk(sam3.normalise(window)[None]) for _ in range(2))
    (first,), (all_of_them,) = trunk.answers(0, words, 0.5), trunk.answers(0, words, 0.0)
    (fresh,) = other.answers(0, words, 0.0)
    assert len(first.kept) < len(all_of_them.kept) == len(all_of_them.probability)
    assert torch.equal(all_of_them.masks, fresh.masks)


def test_lower_precision_leaves_procsam3s_detector_alone(window: torch.Tensor) -> None:
    pytest.importorskip("transformers", "5.0")
    full, half = tiny_sam3("sam3", 7), tiny_sam3("sam3", 7, dtype="bf16")
    words = full.encode_words(["road"])
    trunks = [tower.trunk(tower.normalise(window)[None]) for tower in (full, half)]
    (exact,) = trunks[0].answers(0, words, 0.5)
    (lower,), (mixed,) = trunks[1].answers(0, words, 0.5), trunks[1].answers(0, words, 0.5, exact=True)
    assert lower.semantic.dtype == mixed.semantic.dtype == torch.float32
    assert 0 < (mixed.semantic - exact.semantic).abs().mean() < (lower.semantic - exact.semantic).abs().mean()


def test_the_authors_names_of_sam3_are_known() -> None:
    """A few of each kind, one file with the tracker beside."""
    many = {
        "backbone.vision_backbone.trunk.blocks.3.attn.qkv.weight": (
            "vision_encoder.backbone.layers.3.attention.k_proj.weight"
        ),
        "backbone.vision_backbone.trunk.blocks.3.mlp.fc1.bias": "vision_encoder.backbone.layers.3.mlp.fc1.bias",
        "backbone.vision_backbone.convs.0.dconv_2x2_1.weight": "vision_encoder.neck.fpn_layers.0.scale_layers.2.weight",
        "backbone.language_backbone.encoder.transformer.resblocks.2.attn.in_proj_bias": (
            "text_encoder.text_model.encoder.layers.2.self_attn.v_proj.bias"
        ),
        "backbone.language_backbone.encoder.transformer.resblocks.2.attn.out_proj.weight": (
            "text_encoder.text_model.encoder.layers.2.self_attn.out_proj.weight"
        ),
        "geometry_encoder.encode.1.cross_attn_image.out_proj.bias": "geometry_encoder.layers.1.cross_attn.o_proj.bias",
        "transformer.encoder.layers.0.self_attn.in_proj_weight": "detr_encoder.layers.0.self_attn.q_proj.weight",
        "transformer.decoder.layers.5.ca_text.in_proj_weight": "detr_decoder.layers.5.text_cross_attn.v_proj.weight",
        "transformer.decoder.layers.5.norm2.weight": "detr_decoder.layers.5.self_attn_layer_norm.weight",
        "transformer.decoder.boxRPB_embed_x.layers.1.weight": "detr_decoder.box_rpb_embed_x.layer2.weight",
        "dot_prod_scoring.prompt_mlp.out_norm.weight": "dot_product_scoring.text_mlp_out_norm.weight",
        "segmentation_head.mask_predictor.mask_embed.layers.0.bias": "mask_decoder.mask_embedder.layers.0.bias",
    }
    state = {f"detector.{name}": torch.arange(6.0).view(6, 1) for name in many} | {"tracker.x": torch.zeros(1)}
    state["detector.backbone.vision_backbone.trunk.pos_embed"] = torch.zeros(1, 577, 2)
    state["detector.backbone.vision_backbone.trunk.blocks.0.attn.freqs_cis"] = torch.zeros(1)
    found = named(state)
    assert set(many.values()) <= set(found) and not any("freqs" in name or "tracker" in name for name in found)
    assert found["vision_encoder.backbone.embeddings.position_embeddings"].shape == (1, 576, 2)
    parts = [found[f"detr_encoder.layers.0.self_attn.{part}_proj.weight"].flatten().tolist() for part in "qkv"]
    assert parts == [[0, 1], [2, 3], [4, 5]]
    model = torch.nn.ModuleDict({"a": torch.nn.Linear(1, 1, bias=False), "text_encoder": torch.nn.Module()})
    model["text_encoder"].text_projection = torch.nn.Linear(1, 1, bias=False)
    kept = needed({"a.weight": torch.ones(1, 1), "sam2_convs.x": torch.ones(1)}, model)
    assert set(kept) == {"a.weight", "text_encoder.text_projection.weight"}
    assert not kept["text_encoder.text_projection.weight"].any()  # drawn values would give a fingerprint a load
    hub = {"detector_model.vision_encoder.x": torch.zeros(1), "tracker_model.y": torch.zeros(1)}
    assert list(named(hub)) == ["vision_encoder.x"]


def test_what_is_missing_is_said_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVSS_BENCH_CACHE", str(tmp_path))
    spec = BackboneSpec(library="sam3", model="x", file="sam3.pt", url="https://y", license="SAM License", gated=True)
    with pytest.raises(BenchError, match=r"sam3\.pt does not exist; accept the licence \(SAM License\) at https://y"):
        load_tower("sam3", spec, None, "cpu", "fp32")
    with pytest.raises(BenchError, match=r"needs no_such_package .*pip install 'ovss-bench\[towers\]'"):
        needs("no_such_package", "sam3")


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("test_vit", r"other\.pt: lacks the weights 'ln_final\.weight'; give the file of backbone mine$"),
        ("no_such_vit", r"cannot build 'no_such_vit' as this tower \(.*\); correct `model` in `backbones:`$"),
    ],
)
def test_another_models_file_or_name_is_said(
    model: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OVSS_BENCH_CACHE", str(tmp_path))
    (tmp_path / "weights").mkdir()
    for file in (tmp_path / "weights/image.pt", tmp_path / "other.pt"):
        torch.save({"a": torch.zeros(1)}, file)
    spec = BackboneSpec(library="dinotxt", model=model, image_file="image.pt")
    with pytest.raises(BenchError, match=said):
        load_tower("mine", spec, tmp_path / "other.pt", "cpu", "fp32")


def test_rows_of_towers_run_in_the_demo(tmp_path: Path) -> None:
    """From images to stored results, a method of each family that needs no further package."""
    found = run("radseg,vip", "wbs_si", demo=True, limit=1, results=tmp_path, device="cpu", workers=0)
    assert not found.failures and list(found.scores.row) == ["radseg", "vip"]


def test_sam3s_rows_run_in_the_demo(tmp_path: Path) -> None:
    pytest.importorskip("transformers", "5.0")
    found = run("segearth-ov3,procsam3", "wbs_si", demo=True, limit=1, results=tmp_path, device="cpu", workers=0)
    assert not found.failures and len(found.scores) == 2
    segment = load_segmenter("segearth-ov3", "road; water", backbone="demo", device="cpu")
    assert segment(np.zeros((60, 80, 3), np.uint8)).scores.shape == (2, 60, 80)
