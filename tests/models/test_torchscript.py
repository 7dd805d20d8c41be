"""TorchScript archives are read without running their code."""

from __future__ import annotations

import random
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from bench.errors import BenchError
from bench.models.checkpoints import read_state_dict
from bench.models.torchscript import is_torchscript

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*")


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(3, 2).half()
        self.register_buffer("input_resolution", torch.tensor(224))
        self.names = ["a", "b"]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.proj(x)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(Block(), Block())
        both = torch.arange(12.0)  # two views of one storage
        self.a, self.b = nn.Parameter(both[:6].view(2, 3).t()), nn.Parameter(both[6:])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.blocks(x)


class Hostile(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x

    @torch.jit.export
    def __getstate__(self) -> tuple[torch.Tensor, bool]:
        return self.weight, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, bool]) -> None:
        print("CODE RAN")
        self.weight = state[0]  # type: ignore[assignment]
        self.training = state[1]


def saved(module: nn.Module, file: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(module), str(file))
    return file


def test_state_is_that_of_torch(tmp_path: Path) -> None:
    net = Net()
    file = saved(net, tmp_path / "net.pt")
    assert is_torchscript(file)
    found, expected = read_state_dict(file), net.state_dict()
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype and torch.equal(found[name], value)


def test_code_of_the_archive_does_not_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = saved(Hostile(), tmp_path / "hostile.pt")
    capfd.readouterr()
    with pytest.raises(BenchError, match="holds no named tensors"):
        read_state_dict(file)
    assert "CODE RAN" not in capfd.readouterr().out
    torch.jit.load(str(file))
    assert "CODE RAN" in capfd.readouterr().out  # what would have happened


def rewritten(file: Path, target: Path, change: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(target, "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, change.get(name.partition("/")[2], old.read(name)))
    return target


@pytest.mark.parametrize(
    "pickled",
    [
        b"cos\nsystem\n(S'true'\ntR.",
        b"ctorch._utils\n_rebuild_tensor_v2\n(N(I9\ntR.",
        b"\x80\x02" + b"(" * 100_000 + b".",
        b"c__torch__\nNet\n.",
    ],
)
def test_other_pickles_are_refused(pickled: bytes, tmp_path: Path) -> None:
    file = rewritten(saved(Net(), tmp_path / "net.pt"), tmp_path / "other.pt", {"data.pkl": pickled})
    with pytest.raises(BenchError, match=r"other\.pt: (not a readable checkpoint|holds no named tensors)"):
        read_state_dict(file)


def test_packed_numbers_are_refused_before_they_are_read(tmp_path: Path) -> None:
    archive = saved(Net(), tmp_path / "net.pt")
    torch.save(Net().state_dict(), tmp_path / "plain.pt")
    for file in (archive, tmp_path / "plain.pt"):
        bomb = rewritten(file, tmp_path / "bomb.pt", {"data/0": bytes(20_000_000)}, zipfile.ZIP_DEFLATED)
        assert bomb.stat().st_size < 100_000
        with pytest.raises(BenchError, match="not a readable checkpoint"):
            read_state_dict(bomb)


def test_damaged_archives_are_one_error(tmp_path: Path) -> None:
    data, drawn = bytearray(saved(Net(), tmp_path / "net.pt").read_bytes()), random.Random(0)
    for _ in range(60):
        damaged = bytearray(data)
        damaged[drawn.randrange(len(data))] ^= 1 << drawn.randrange(8)
        (tmp_path / "damaged.pt").write_bytes(damaged)
        try:
            read_state_dict(tmp_path / "damaged.pt")
        except BenchError as error:
            assert "damaged.pt" in str(error)
