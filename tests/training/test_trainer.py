"""Steps, whole trainings, resuming, checkpoints, several processes, and the command."""

from __future__ import annotations

import argparse
import io
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from reference import tiny_backbone, write_tiny
from torch import nn
from training_helpers import SMALL, batch_of, new_trainer, small, train_small, without_dropout, write_images

from bench.cli import train as command
from bench.errors import BenchError
from bench.models.upsamplers import load_upsampler
from bench.runtime.distributed import init_distributed
from bench.training.log import feature_picture
from bench.training.model import Learner
from bench.training.trainer import FEATURES, feature_map


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"), 6)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Nothing here is large enough to gain from more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def gradients(trainer) -> torch.Tensor:
    return torch.cat([parameter.grad.flatten() for parameter in trainer.parameters])


def test_feature_maps_are_row_major_and_eq_6_as_printed_has_no_norm():
    trunk = tiny_backbone(8, 32).trunk(torch.randn(2, 3, 32, 24))
    for name in FEATURES:
        maps = feature_map(trunk, name)
        assert maps.shape == (2, 24, 4, 3)
        assert torch.equal(maps[1, :, 2, 1], FEATURES[name](trunk)[1, 2 * 3 + 1])
    printed = trunk.input(-1)[:, 1:] @ trunk.visual.proj
    torch.testing.assert_close(FEATURES["x-printed"](trunk), printed)


def test_gradients_reach_all_that_is_trained_and_nothing_else(images):
    trainer = new_trainer()
    before = [parameter.clone() for parameter in trainer.backbone.model.parameters()]
    trainer.step(batch_of(images, range(2)))
    for name, parameter in trainer.learner.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name
    for old, parameter in zip(before, trainer.backbone.model.parameters(), strict=True):
        assert parameter.grad is None
        assert torch.equal(old, parameter)
    target = trainer._features(torch.randn(1, 3, 32, 32))
    assert not target.requires_grad


def test_the_total_is_the_reconstruction_and_gamma_times_the_image_loss(images):
    losses = new_trainer(small(image_loss=0.25)).step(batch_of(images, range(2)))
    assert losses.total == pytest.approx(losses.reconstruction + 0.25 * losses.image, rel=1e-5)
    assert losses.image > 0


def test_without_image_loss_there_is_no_content_retention_net(images):
    trainer = new_trainer(small(image_loss=0.0))
    losses = trainer.step(batch_of(images, range(2)))
    assert trainer.learner.retention is None
    assert losses.image == 0
    assert losses.total == losses.reconstruction


def test_one_upsampling_for_all_jitters_has_the_same_gradient(images):
    both = [without_dropout(new_trainer(small(upsample_once=once))) for once in (False, True)]
    losses = [trainer.step(batch_of(images, range(2))) for trainer in both]
    assert losses[0] == pytest.approx(losses[1])
    torch.testing.assert_close(gradients(both[0]), gradients(both[1]), atol=1e-10, rtol=1e-3)


def test_dropout_is_drawn_anew_for_each_jitter(images):
    both = [new_trainer(small(upsample_once=once)) for once in (False, True)]
    losses = [trainer.step(batch_of(images, range(2))) for trainer in both]
    assert losses[0] != pytest.approx(losses[1], rel=1e-4)


def test_gradients_of_the_first_ten_steps_are_clipped(images):
    trainer = new_trainer()
    trainer.done = 9
    trainer.step(batch_of(images, range(2)))
    assert gradients(trainer).norm().item() == pytest.approx(1e-4, rel=1e-2)
    trainer.step(batch_of(images, range(2)))
    assert gradients(trainer).norm() > 1e-3


def test_the_reference_gradient_reaches_square_taps_alone(images):
    ours, theirs = (new_trainer(small(reference_gradient=flag)) for flag in (False, True))
    theirs.learner.load_state_dict(ours.learner.state_dict())
    losses = [without_dropout(trainer).step(batch_of(images, range(2))) for trainer in (ours, theirs)]
    assert losses[0] == losses[1]
    per_tap = [trainer.learner.upsampler.get_parameter("up.fixup_proj.3.bias").grad.abs() for trainer in (ours, theirs)]
    assert per_tap[0].count_nonzero() == 25
    assert per_tap[1].nonzero().flatten().tolist() == [0, 1, 4, 9, 16]


@pytest.mark.parametrize(("patch", "crop", "steps"), [(14, 56, 4), (32, 96, 5)])
@pytest.mark.parametrize("kind", ["jbu_one", "jbu_stack"])
def test_other_patch_sizes(patch, crop, steps, kind):
    learner = Learner(small(kind=kind, crop=crop), dim=24, patch=patch)
    pixels = learner.upsample(torch.randn(1, 24, crop // patch, crop // patch), torch.randn(1, 3, crop, crop))
    assert pixels.shape == (1, 24, crop, crop)
    assert learner.downsampler(pixels).shape == (1, 24, crop // patch, crop // patch)
    assert learner.steps == steps
    assert sum(isinstance(module, nn.GELU) for module in learner.upsampler.modules()) == 2 * (
        1 if kind == "jbu_one" else steps
    )


def test_bfloat16_stays_close(images):
    plain, mixed = (without_dropout(new_trainer(small(amp=amp))) for amp in (False, True))
    losses = [trainer.step(batch_of(images, range(2))) for trainer in (plain, mixed)]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


def test_the_losses_fall(images):
    """On the same two crops and the same view of them, before and after fifteen steps with others."""
    trainer = without_dropout(new_trainer(small(uncertainty=False, jitters=1, lr=1e-2)))
    batch = batch_of(images, range(2))
    before = trainer.step(batch)
    for _ in range(15):
        trainer.step(batch)
    trainer.done = 0  # draws the first step's view again
    after = trainer.step(batch)
    assert after.total < 0.6 * before.total
    assert after.reconstruction < 0.85 * before.reconstruction
    assert after.image < 0.5 * before.image


def test_a_training_leaves_its_files(images, tmp_path):
    out = tmp_path / "out"
    trainer = train_small(images, out, 4, save_every=2)
    log = pd.read_csv(out / "log.csv")
    assert log.columns.tolist() == ["step", "epoch", "loss", "reconstruction", "image", "seconds", "peak_gib"]
    assert log.peak_gib.between(0.05, 50).all()
    assert log["step"].tolist() == [1, 2, 3, 4]
    assert log["epoch"].tolist() == [1, 1, 1, 2]
    names = sorted(file.name for file in (out / "pictures").iterdir())
    assert names == ["step_000000.png", "step_000002.png", "step_000004.png"]
    state = torch.load(out / "last.ckpt", weights_only=True)["state_dict"]
    assert set(state) == {f"upsampler.{name}" for name in trainer.learner.upsampler.state_dict()}
    for file in ("last.ckpt", "upsampler.safetensors"):
        loaded = load_upsampler("jbu_one", out / file, 24)
        assert loaded.radius == 2
        for name, value in trainer.learner.upsampler.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], value)


def test_a_resumed_training_is_the_uninterrupted_one(images, tmp_path):
    train_small(images, tmp_path / "whole", 4)
    train_small(images, tmp_path / "parts", 2)
    with (tmp_path / "parts" / "log.csv").open("a") as log:
        log.write("3,1,9,9,9,9,9\n4,2,9,9")  # what a killed process wrote after its last checkpoint
    train_small(images, tmp_path / "parts", 4, resume=True)
    whole, parts = (torch.load(tmp_path / name / "last.ckpt", weights_only=True) for name in ("whole", "parts"))
    assert parts["training"].pop("identity") == whole["training"].pop("identity")
    torch.testing.assert_close(parts, whole, atol=0, rtol=0)
    files = [(tmp_path / name / "upsampler.safetensors").read_bytes() for name in ("whole", "parts")]
    assert files[0] == files[1]
    logs = [
        pd.read_csv(tmp_path / name / "log.csv").drop(columns=["seconds", "peak_gib"]) for name in ("whole", "parts")
    ]
    pd.testing.assert_frame_equal(*logs)


def _steps_of_a_process(rank: int, port: int, folder: Path, out: Path) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    with init_distributed("cpu") as distributed:
        trainer = without_dropout(new_trainer(SMALL, distributed))
        losses = [trainer.step(batch_of(folder, range(2 * rank, 2 * rank + 2))) for _ in range(2)]
    torch.save((trainer.learner.state_dict(), [tuple(step) for step in losses]), out / f"{rank}.pt")


@pytest.mark.slow
def test_two_processes_are_one_with_their_batches_together(images, tmp_path):
    port = 20000 + os.getpid() % 20000
    torch.multiprocessing.spawn(_steps_of_a_process, (port, images, tmp_path), nprocs=2)
    alone = without_dropout(new_trainer(small(batch=4)))
    losses = [alone.step(batch_of(images, range(4))) for _ in range(2)]
    (first, losses_0), (second, losses_1) = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    for name, value in alone.learner.state_dict().items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], value, atol=1e-4, rtol=1e-3)
    for step, mine, other in zip(losses, losses_0, losses_1, strict=True):
        assert mine == other
        assert tuple(step) == pytest.approx(mine, rel=1e-4)


def test_the_picture_shows_image_patches_and_pixels():
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    before = torch.randn(5, 2, 2)
    after = before.repeat_interleave(4, 1).repeat_interleave(4, 2)
    with Image.open(io.BytesIO(feature_picture(image, before, after))) as file:
        picture = np.asarray(file)
    assert picture.shape == (8, 3 * 8 + 2 * 4, 3)
    assert np.array_equal(picture[:, :8], image)
    assert np.array_equal(picture[:, 12:20], picture[:, 24:])
    assert len(np.unique(picture[:, 12:20].reshape(-1, 3), axis=0)) == 4


def test_a_truncated_image_is_named_and_the_training_goes_on(tmp_path):
    folder = write_images(tmp_path / "images", 3)
    whole = (folder / "2.png").read_bytes()
    (folder / "2.png").write_bytes(whole[: len(whole) // 2])
    with pytest.warns(UserWarning, match=r"2\.png: .*; another image stands in"):
        trainer = train_small(folder, tmp_path / "out", 2)
    assert trainer.done == 2


def test_a_used_folder_wants_resume(images, tmp_path):
    train_small(images, tmp_path, 1)
    with pytest.raises(BenchError, match=r"already holds last\.ckpt; resume with --resume"):
        train_small(images, tmp_path, 2)


def test_resume_wants_a_checkpoint(images, tmp_path):
    with pytest.raises(BenchError, match=r"last\.ckpt does not exist; leave --resume out"):
        train_small(images, tmp_path, 1, resume=True)


@pytest.mark.parametrize(
    ("content", "message"), [(b"torn", "cannot be read"), ({"state_dict": {}}, "cannot be resumed")]
)
def test_resume_wants_a_whole_checkpoint(images, tmp_path, content, message):
    if isinstance(content, bytes):
        (tmp_path / "last.ckpt").write_bytes(content)
    else:
        torch.save(content, tmp_path / "last.ckpt")
    with pytest.raises(BenchError, match=message):
        train_small(images, tmp_path, 1, resume=True)


def test_resume_wants_the_same_training(images, tmp_path):
    train_small(images, tmp_path / "out", 1)
    with pytest.raises(BenchError, match=r"was trained with lr = 0\.001, not 0\.5"):
        train_small(images, tmp_path / "out", 2, small(lr=0.5), resume=True)
    with pytest.raises(BenchError, match="was trained with images = "):
        train_small(write_images(tmp_path / "others", 3), tmp_path / "out", 2, resume=True)


def test_a_log_of_something_else_is_not_written_over(images, tmp_path):
    train_small(images, tmp_path, 1)
    (tmp_path / "log.csv").write_text("a,b\n1,2\n")
    with pytest.raises(BenchError, match=r"log\.csv: not a training log"):
        train_small(images, tmp_path, 2, resume=True)


def test_a_loss_that_is_no_number_ends_the_training(images, tmp_path):
    with pytest.raises(BenchError, match=r"step \d+: the loss is (nan|inf).*lower --lr"):
        train_small(images, tmp_path, 30, small(lr=1e30))


def test_the_crop_must_fit_the_patches():
    for crop in (36, 16):
        with pytest.raises(BenchError, match=f"--crop {crop}: not a multiple of the backbone's patch size 8"):
            new_trainer(small(crop=crop))


def run_command(*flags: str) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.main(parser.parse_args(["upsampler", *flags]))


def test_the_command(tmp_path, capsys):
    config, checkpoint = write_tiny(tmp_path)
    folder = write_images(tmp_path / "images", 3)
    (folder / "notes.txt").write_text("no image")
    model = ("--backbone", str(config), "--checkpoint", str(checkpoint), "--device", "cpu")
    recipe_flags = ("--kind", "jbu_stack", "--crop", "48", "--batch", "1", "--jitters", "1", "--no-uncertainty")
    where = ("--images", str(folder), "--out", str(tmp_path / "out"), "--workers", "0")
    assert run_command(*where, *model, *recipe_flags) == 0
    assert len(pd.read_csv(tmp_path / "out" / "log.csv")) == 3
    assert "3 images" in (shown := capsys.readouterr().out)
    assert "1 other files passed over" in shown
    assert load_upsampler("jbu_stack", tmp_path / "out" / "upsampler.safetensors", 24).radius == 3
    assert run_command(*where, *model, *recipe_flags, "--epochs", "2", "--resume") == 0
    assert len(pd.read_csv(tmp_path / "out" / "log.csv")) == 6


@pytest.mark.parametrize(
    "flags", [("--lr", "0"), ("--image-loss", "-1"), ("--projection", "-1"), ("--steps", "0"), ("--lr", "nan")]
)
def test_numbers_out_of_range(flags):
    with pytest.raises(BenchError, match=f"^{' '.join(flags)}: Input should be"):
        run_command("--images", "x", "--out", "y", *flags)
