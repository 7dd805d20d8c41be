"""Small damage in every kind of stored file: the number shown is the original, or the cell is named.

One bit, one byte, a zeroed sector or two bytes swapped, 600 times; `python -m pytest -m chaos -k random`, with
`--chaos-seed N` for other damage. A tenth of it runs in the ordinary suite.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from reference import tiny_backbone
from store_helpers import opened, random_counts, settings, write

from bench.models.text import Vocabulary, encode
from bench.store.record import RECORD
from bench.store.store import Store

SECTOR = 512
WORDS = Vocabulary.of([["sea"], ["land", "field"]])
KINDS = ("counts.parquet", RECORD, "part-*.parquet", "*.f32")


def one_bit(data: bytearray, random: np.random.Generator) -> None:
    data[random.integers(len(data))] ^= 1 << int(random.integers(8))


def one_byte(data: bytearray, random: np.random.Generator) -> None:
    data[random.integers(len(data))] = int(random.integers(256))


def a_zeroed_sector(data: bytearray, random: np.random.Generator) -> None:
    start = int(random.integers(len(data) // SECTOR + 1)) * SECTOR
    data[start : start + SECTOR] = bytes(len(data[start : start + SECTOR]))


def two_bytes_swapped(data: bytearray, random: np.random.Generator) -> None:
    one, other = random.integers(len(data), size=2)
    data[one], data[other] = data[other], data[one]


DAMAGES = (one_bit, one_byte, a_zeroed_sector, two_bytes_swapped)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two whole cells, one that is still in parts, and the embeddings of three words."""
    folder = tmp_path_factory.mktemp("whole")
    for row in ("sclip", "gem"):
        write(Store(folder), 2, settings=settings(row))
    growing = opened(Store(folder), 4, settings=settings("clip", debias=0.3))
    for index in range(3):
        growing.add(index, *random_counts(index))
        growing.flush()
    encode(tiny_backbone(), WORDS, folder / "text")
    return folder


def shown(folder: Path) -> tuple[dict[str, tuple[object, ...]], set[str]]:
    """What a reader sees of each cell, and the cells that are named as damaged."""
    store = Store(folder)
    cells = {cell.row: cell for cell in store.cells()}
    named = {row for row, _ in store.damaged()} | {row for row, cell in cells.items() if cell.damage}
    named |= {row for row, cell in cells.items() if "not as it was written" in str(cell.reason)}
    return {
        row: (cell.table.to_pylist(), cell.areas().stack.tolist(), cell.record) for row, cell in cells.items()
    }, named


@pytest.mark.parametrize("times", [60, pytest.param(600, marks=pytest.mark.chaos)])
def test_random_damage_shows_no_other_number(
    times: int, whole: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    random = np.random.default_rng([request.config.getoption("--chaos-seed"), times])
    backbone = tiny_backbone()
    before, none = shown(whole)
    words = encode(backbone, WORDS, whole / "text")
    assert none == set() and before.keys() == {"sclip", "gem", "clip"}
    folder = tmp_path / "copy"
    shutil.copytree(whole, folder)
    changed = 0
    for number in range(times):
        files = sorted(folder.rglob(KINDS[number % len(KINDS)]))
        file = files[random.integers(len(files))]
        kept = file.read_bytes()
        data = bytearray(kept)
        DAMAGES[random.integers(len(DAMAGES))](data, random)
        file.write_bytes(data)
        changed += data != kept
        after, named = shown(folder)
        silent = [row for row in before if row not in named and after.get(row) != before[row]]
        assert not silent, f"{file}: {silent} shown otherwise"
        assert named <= {file.parent.name}, "another cell is named"
        assert torch.equal(encode(backbone, WORDS, folder / "text"), words)
        file.write_bytes(kept)
    assert changed > times // 2
