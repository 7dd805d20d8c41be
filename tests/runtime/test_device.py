"""Code for GPUs on a pretended one (`pretended_cuda`), and devices that are not there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from project import SMALL
from reference import write_tiny
from torch import nn
from training_helpers import train_small, write_images

from bench.cli import main
from bench.errors import BenchError
from bench.runtime.device import (
    choose_device,
    default_batch,
    default_workers,
    exact_float32,
    is_out_of_memory,
    peak_memory,
    rounding,
)
from bench.store.store import Store
from bench.training.trainer import Trainer
from tools.pretended_cuda import pretended_cuda


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with pretended_cuda(monkeypatch):
        yield


def test_the_pretended_device_refuses_what_a_gpu_refuses(cuda: None) -> None:
    there, here = torch.zeros(3, device="cuda"), torch.zeros(3)
    for mix in (lambda: there + here, lambda: torch.cat([here, there]), lambda: nn.Linear(3, 3).to("cuda")(here)):
        with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
            mix()
    for array in (there.numpy, lambda: np.asarray(there)):
        with pytest.raises(TypeError, match="can't convert cuda:0 device type tensor to numpy"):
            array()
    copied = there.cpu()
    there += 1
    assert str(there.device) == "cuda:0" and copied.tolist() == [0, 0, 0]
    assert (there * torch.tensor(2.0)).cpu().numpy().tolist() == [2, 2, 2]


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "share"), [("fp32", 1e-4), ("fp16", 1e-2)])
def test_all_rows_run_on_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, share: float) -> None:
    (tmp_path / "small.yaml").write_text(SMALL)
    command = ["run", "--demo", "--methods", "all", "--datasets", "whu_aerial", "--limit", "1", "--workers", "0"]
    command += ["--config", str(tmp_path / "small.yaml")]
    with pretended_cuda(monkeypatch):
        assert main([*command, "--results", str(tmp_path / "cuda"), "--device", "cuda", "--dtype", dtype]) == 0
    assert main([*command, "--results", str(tmp_path / "cpu"), "--device", "cpu"]) == 0
    gpu, cpu = (Store(tmp_path / device, demo=True, limit=1) for device in ("cuda", "cpu"))
    rows = [cell.row for cell in cpu.cells()]
    assert len(rows) == 10
    for row in rows:
        found, expected = gpu.cell(row, "whu_aerial"), cpu.cell(row, "whu_aerial").confusion().sum(0)
        assert found.info.device == "cuda" and found.record.cost.peak_memory_bytes == 1
        assert np.abs(found.confusion().sum(0) - expected).sum() < share * expected.sum(), row


@pytest.mark.slow
def test_the_plan_and_own_images_on_a_gpu(tmp_path: Path, cuda: None, capsys: pytest.CaptureFixture[str]) -> None:
    plan = ["run", "--demo", "--datasets", "whu_aerial", "--methods", "clip", "--dry-run", "--device", "cuda"]
    assert main([*plan, "--results", str(tmp_path / "results")]) == 0
    assert "on cuda (an image of noise timed" in capsys.readouterr().out
    noise = np.random.default_rng(0).integers(0, 256, (100, 150, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "image.png")
    command = ["predict", str(tmp_path / "image.png"), "--method", "segearth-ov", "--classes", "water; road"]
    for device in ("cpu", "cuda"):
        for size in ("224", "none"):
            out = ["-o", str(tmp_path / f"{device}-{size}.png")]
            assert main([*command, "--backbone", "demo", "--device", device, "--resize", size, *out]) == 0
    for size in ("224", "none"):
        cpu, gpu = (np.asarray(Image.open(tmp_path / f"{device}-{size}.png")) for device in ("cpu", "cuda"))
        assert np.mean(cpu != gpu) < 1e-3


RECIPES = {
    "": "SimFeatUp",
    "--kind jbu_stack --feature maskclip --image-loss 0": "FeatUp",
    "--reference-gradient --upsample-once --projection 0 --no-uncertainty --feature x-printed": "other switches",
}


@pytest.mark.slow
@pytest.mark.parametrize("flags", RECIPES, ids=RECIPES.values())
def test_training_on_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str) -> None:
    config, checkpoint = write_tiny(tmp_path)
    write_images(tmp_path / "images", 4)
    command = ["train", "upsampler", "--images", str(tmp_path / "images"), "--workers", "0", "--jitters", "2"]
    command += ["--backbone", str(config), "--checkpoint", str(checkpoint), "--crop", "48", "--batch", "2"]
    for device in ("cpu", "cuda"):
        with pretended_cuda(monkeypatch):
            out = [*flags.split(), "--device", device, "--out", str(tmp_path / device)]
            assert main([*command, *out, "--steps", "1"]) == 0
            assert main([*command, *out, "--steps", "3", "--resume"]) == 0
    gpu, cpu = (
        pd.read_csv(tmp_path / device / "log.csv").drop(columns=["seconds", "peak_gib"]) for device in ("cuda", "cpu")
    )
    assert len(cpu) == 3
    pd.testing.assert_frame_equal(gpu, cpu, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("device", ["nonsense", "hpu", "cuda:99"])
@pytest.mark.parametrize(
    "command",
    [
        "run --demo",
        "predict {image} --method clip --classes a;b --backbone demo -o {folder}/out.png",
        "train upsampler --images {folder} --out {folder}/out --backbone demo",
        "speed",
    ],
)
def test_a_device_that_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, device: str
) -> None:
    image = write_images(tmp_path, 1) / "0.png"
    words = [word.format(image=image, folder=tmp_path) for word in command.split()]
    assert main([*words, "--device", device]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"bench: --device {device}: ") and line.endswith("; use --device cpu or another device")


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_half_precision_has_tf32_after_the_trunk_on_a_gpu_and_says_so(cuda: None, dtype: str) -> None:
    try:
        choose_device("cuda", dtype)
        assert torch.backends.cuda.matmul.allow_tf32 and not torch.backends.cudnn.allow_tf32
    finally:
        choose_device("cpu")
    assert rounding("cuda:1", dtype) == f"{dtype}, tf32 after the trunk"
    assert (rounding("cpu", dtype), rounding("cuda", "fp32"), rounding("cuda", "tf32")) == (dtype, "fp32", "tf32")


def test_under_torchrun_each_process_takes_its_own_gpu(monkeypatch: pytest.MonkeyPatch, cuda: None) -> None:
    taken: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    assert choose_device("cuda:0") == "cuda:0"
    assert choose_device("cuda") == "cuda"
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert choose_device("cuda") == "cuda:0"
    assert choose_device("cpu") == "cpu"
    assert taken == [torch.device("cuda", 0)] * 3


def test_a_training_that_runs_out_of_memory_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def step(*_: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(Trainer, "step", step)
    with pytest.raises(BenchError, match="step 1: out of memory on cpu with --batch 2 and --crop 32; take a smaller"):
        train_small(write_images(tmp_path / "images", 2), tmp_path / "out", 1)


def test_peak_memory_is_of_the_device(cuda: None) -> None:
    before = peak_memory("cpu")
    big = torch.ones(40 * 2**20)
    assert peak_memory(torch.device("cpu")) >= before and big.nbytes < peak_memory("cpu") < 100 * 2**30
    assert peak_memory("cuda:0") == 1  # what the pretended one says


def test_what_is_out_of_memory() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60)
    assert is_out_of_memory(caught.value) and is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("shapes differ"))


def test_defaults_fit_the_device(monkeypatch: pytest.MonkeyPatch, cuda: None) -> None:
    assert default_batch("cpu") == 4
    for free, batch in ((100 << 20, 1), (6000 << 20, 9), (5400 << 20, 9), (23 << 30, 36), (140 << 30, 64)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _, free=free: (free, free))
        assert default_batch("cuda") == batch
    for cores, processes, on_cpu, on_gpu in ((1, 1, 1, 1), (4, 1, 2, 3), (64, 1, 2, 8), (32, 8, 2, 3), (2, 2, 1, 1)):
        monkeypatch.setattr("os.sched_getaffinity", lambda _, cores=cores: set(range(cores)), raising=False)
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
        assert (default_workers("cpu"), default_workers("cuda:1")) == (on_cpu, on_gpu)


def test_tf32_is_asked_for_and_text_stays_exact(cuda: None) -> None:
    try:
        assert choose_device("cuda", "tf32") == "cuda"
        assert torch.backends.cuda.matmul.allow_tf32
        with exact_float32():
            assert not torch.backends.cuda.matmul.allow_tf32
        assert torch.backends.cuda.matmul.allow_tf32
    finally:
        choose_device("cpu")
    assert not torch.backends.cuda.matmul.allow_tf32
