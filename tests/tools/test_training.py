"""Training of the tiny CLIP, and the weights that ship."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F

from bench.demo.config import CONFIG_FILE, WEIGHTS
from bench.demo.content import MASTER, MASTER_INDEX
from bench.errors import BenchError
from bench.models.attention import attention, last_block
from bench.models.backbone import Backbone
from tools.demo import train_clip
from tools.demo.contrastive import READINGS, TinyClip, contrastive_loss, jitter
from tools.demo.packed import load_packed, read_config, save_packed
from tools.demo.pool import SIDE, Pool, load_pool
from tools.demo.probe_clip import held_out, iou
from tools.demo.train_clip import STAGES, Trainer

SHIPPED = WEIGHTS / "tiny-clip.safetensors"


def _micro_config() -> dict[str, Any]:
    config = read_config()
    config["embed_dim"] = 16
    config["vision_cfg"] |= {"layers": 2, "width": 32, "head_width": 16}
    config["text_cfg"] |= {"layers": 1, "width": 32, "heads": 2}
    return config


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Matrices are tiny here; more threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def micro() -> TinyClip:
    torch.manual_seed(0)
    return TinyClip(_micro_config())


@pytest.fixture
def pool() -> Pool:
    """Two scenes: one all water, one half road and half grass, in flat colours."""
    labels = np.full((2, SIDE, SIDE), MASTER_INDEX["water"], np.uint8)
    labels[1, :, :128], labels[1, :, 128:] = MASTER_INDEX["road"], MASTER_INDEX["grass"]
    return Pool(np.stack([labels * 20] * 3, -1), labels, seed=0)


def test_captions_are_encoded_as_open_clip_does(micro: TinyClip) -> None:
    sentences = ("a photo of the road.", "an aerial image of tree, water and bareland.")
    ids = micro.tokenizer(list(sentences))
    rows = torch.searchsorted(micro.tokens, ids)
    assert torch.equal(micro.tokens[rows], ids)
    with torch.no_grad():
        torch.testing.assert_close(micro.encode_captions(sentences), micro.clip.encode_text(rows, normalize=True))


def test_whole_images_are_encoded_as_open_clip_does(micro: TinyClip) -> None:
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        ours = micro.encode_crops(images, (0, 0), torch.tensor([0, 0]))
        torch.testing.assert_close(ours, micro.clip.encode_image(images, normalize=True), atol=1e-5, rtol=1e-4)


def test_what_is_read_of_each_crop_is_its_own_choice(micro: TinyClip) -> None:
    images = torch.randn(3, 3, 224, 224)
    with torch.no_grad():
        mixed = micro.encode_crops(images, (0, 0), torch.arange(3))
        apart = [micro.encode_crops(images, (0, 0), torch.full((3,), reading)) for reading in range(len(READINGS))]
    for index, same in enumerate(apart):
        torch.testing.assert_close(mixed[index], same[index], atol=1e-5, rtol=1e-4)
        assert all((same - other).abs().max() > 1e-3 for other in apart if other is not same)


def test_readings_are_those_of_the_dense_methods(micro: TinyClip) -> None:
    """Patches: what CLIP gives densely, averaged. The class token without the rest: what M-SA's family gives of it."""
    backbone = Backbone("micro", micro.clip.eval().requires_grad_(False), None, "")
    images = torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        trunk = backbone.trunk(images)
        patches = trunk.project(trunk.input(trunk.depth)).patches.mean(1)
        plain = last_block(trunk, lambda q, k, v: attention(q, k) @ v, residual=False, ffn=False).cls
        for reading, expected in ((1, plain), (2, patches)):
            read = micro.encode_crops(images, (0, 0), torch.tensor([reading] * 2))
            torch.testing.assert_close(read, F.normalize(expected, dim=-1), atol=1e-5, rtol=1e-4)


def test_crops_use_the_position_embeddings_of_their_window(micro: TinyClip) -> None:
    images, whole = torch.randn(1, 3, 48, 48), torch.tensor([0])
    with torch.no_grad():
        assert not torch.allclose(micro.encode_crops(images, (0, 0), whole), micro.encode_crops(images, (11, 4), whole))


def test_loss_by_hand() -> None:
    scores = torch.tensor([[2.0, 0.0], [0.0, 2.0]])
    weight, unsure = torch.eye(2), torch.zeros(2, 2, dtype=torch.bool)
    expected = torch.log1p(torch.exp(torch.tensor(-2.0)))
    torch.testing.assert_close(contrastive_loss(scores, weight, unsure), expected)
    masked = contrastive_loss(scores, weight, ~torch.eye(2, dtype=torch.bool))
    assert masked < 1e-6  # with every other pair left out, nothing competes
    both = contrastive_loss(torch.zeros(2, 2), torch.ones(2, 2), unsure)
    torch.testing.assert_close(both, torch.tensor(2.0).log())


def test_captions_without_a_positive_are_left_out_of_their_own_direction() -> None:
    scores = torch.tensor([[3.0, 1.0]])
    loss = contrastive_loss(scores, torch.tensor([[1.0, 0.0]]), torch.zeros(1, 2, dtype=torch.bool))
    torch.testing.assert_close(loss, torch.log1p(torch.exp(torch.tensor(-2.0))) / 2)


def test_training_lowers_the_loss_of_a_fixed_batch(pool: Pool) -> None:
    torch.manual_seed(0)
    trainer = Trainer(TinyClip(_micro_config()), seed=0)
    images, shares = pool.crops(np.random.default_rng(0), 8, 32)
    losses = [trainer.step(torch.from_numpy(images), shares, progress=0.0) for _ in range(20)]
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.1


def test_crops_say_what_they_show(pool: Pool) -> None:
    images, shares = pool.crops(np.random.default_rng(1), 40, 32)
    assert images.shape == (40, 32, 32, 3) and shares.shape == (40, len(MASTER))
    np.testing.assert_allclose(shares.sum(1), 1, rtol=1e-6)
    water = shares[:, MASTER_INDEX["water"]] == 1
    assert 0 < water.sum() < 40
    assert (images[water] == 20 * MASTER_INDEX["water"]).all()
    again, _ = pool.crops(np.random.default_rng(1), 40, 32)
    np.testing.assert_array_equal(images, again)


def test_jitter_keeps_the_clip_normalisation_on_average() -> None:
    grey = torch.full((400, 4, 4, 3), 118, dtype=torch.uint8)
    out = jitter(grey, torch.Generator().manual_seed(0))
    assert out.shape == (400, 3, 4, 4)
    mean = torch.tensor(open_clip.OPENAI_DATASET_MEAN) * 255
    std = torch.tensor(open_clip.OPENAI_DATASET_STD) * 255
    torch.testing.assert_close(out.mean((0, 2, 3)), (118 - mean) / std, atol=0.05, rtol=0)


def test_stages_fill_the_whole_time_with_sides_of_whole_patches() -> None:
    assert STAGES[-1].until == 1 and all(a.until < b.until for a, b in itertools.pairwise(STAGES))
    assert all(stage.side % 16 == 0 and stage.side <= 224 for stage in STAGES)


def test_packed_weights_come_back(micro: TinyClip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = micro.clip.state_dict()
    save_packed(state, micro.tokens, tmp_path / "tiny.safetensors", {"recipe": "none"})
    back = load_packed(tmp_path / "tiny.safetensors")
    table = back["token_embedding.weight"]
    assert table.shape == (49408, 32)
    torch.testing.assert_close(table[micro.tokens], state["token_embedding.weight"], atol=1e-3, rtol=1e-3)
    assert not table[[index for index in (1000, 2000, 3000) if index not in micro.tokens]].any()
    other = TinyClip(_micro_config())
    other.load(back)
    torch.testing.assert_close(other.clip.text_projection, micro.clip.text_projection, atol=1e-3, rtol=1e-3)


def test_missing_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"gone\.safetensors: no such file"):
        load_packed(tmp_path / "gone.safetensors")


def test_the_shipped_weights_fit_open_clip_and_are_small() -> None:
    model = open_clip.CLIP(**json.loads(CONFIG_FILE.read_text()))
    model.load_state_dict(load_packed(SHIPPED), strict=True)
    assert model.visual.patch_size == (16, 16) and model.visual.grid_size == (14, 14)
    assert sum(path.stat().st_size for path in WEIGHTS.iterdir()) < 8e6


def test_the_shipped_backbone_tells_what_it_was_trained_on() -> None:
    """Crops of unseen scenes that one class fills: the caption of that class scores highest in far more than
    chance's share.
    """
    model = TinyClip(read_config())
    model.load(load_packed(SHIPPED))
    names = ("bareland", "grass", "pavement", "road", "tree", "water", "cropland", "building")
    crops, truth = [], []
    for image, label in held_out(4):
        for y in range(0, 448, 32):
            for x in range(0, 448, 32):
                shares = np.bincount(label[y : y + 32, x : x + 32].ravel(), minlength=256) / 1024
                if shares.max() > 0.8 and shares.argmax() < len(names):
                    crops.append(image[y : y + 32, x : x + 32])
                    truth.append(shares.argmax())
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        seen = model.encode_crops(
            jitter(torch.from_numpy(np.stack(crops)), generator),
            (6, 6),
            torch.ones(len(crops), dtype=torch.long),
        )
        told = F.normalize(model.encode_captions(tuple(f"an aerial image of {name}." for name in names)), dim=-1)
    right = (seen @ told.T).argmax(1).numpy() == np.array(truth)
    recalls = [right[np.array(truth) == index].mean() for index in set(truth)]
    assert np.mean(recalls) > 2.5 / len(names)


def test_the_command_trains_and_goes_on(tmp_path: Path, pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "images.npy", pool.images)
    np.save(tmp_path / "labels.npy", pool.labels)
    monkeypatch.setattr(train_clip, "STAGES", (train_clip.Stage(32, 4, 1.0),))
    monkeypatch.setattr(train_clip, "read_config", _micro_config)
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    common = ["--minutes", "0.002", "--pool", str(tmp_path), "--threads", "1"]
    train_clip.main(["--out", str(first), *common])
    train_clip.main(["--out", str(second), "--from", str(first), *common])
    before, after = load_packed(first), load_packed(second)
    assert before.keys() == after.keys() == TinyClip(_micro_config()).clip.state_dict().keys()
    assert any((before[name] != after[name]).any() for name in before)


def test_a_pool_is_rendered_where_there_is_none(tmp_path: Path) -> None:
    pool = load_pool(tmp_path / "pool", count=1, processes=1, seed=0)
    assert pool.images.shape == (1, SIDE, SIDE, 3)
    assert sorted(path.name for path in (tmp_path / "pool").iterdir()) == ["images.npy", "labels.npy"]


def test_a_pool_larger_than_the_training_seeds_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="--scenes 2000000"):
        load_pool(tmp_path, count=2_000_000, processes=1, seed=0)


def test_iou_by_hand() -> None:
    np.testing.assert_allclose(iou(np.array([[3, 1, 0], [0, 2, 0], [0, 0, 0]])), [75, 200 / 3, np.nan])


def test_held_out_scenes_hide_what_is_no_land_cover() -> None:
    (_, label), *_ = held_out(1)
    assert set(np.unique(label).tolist()) <= {*range(8), 255}
