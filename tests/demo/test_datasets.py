"""Demo datasets on disk."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from bench.data.cards import load_card
from bench.data.samples import open_samples
from bench.demo.content import PLANS, Shot
from bench.demo.datasets import dataset_scenes, demo_data_root, write_demo
from bench.errors import BenchError


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """Two datasets of one small image each."""
    for name, shot, enlarged in (
        ("loveda", Shot(kind="rural", size=(40, 56)), 1.0),
        ("potsdam", Shot(kind="close", size=(130, 150)), 4.0),
    ):
        changes = {"shots": (shot,), "enlarged": enlarged}
        monkeypatch.setitem(PLANS, name, PLANS[name].model_copy(update=changes))
    return ("loveda", "potsdam")


def test_what_is_written_is_read_as_rendered(tmp_path: Path, small: tuple[str, ...]) -> None:
    assert write_demo(tmp_path, small) == small
    for name, tiles in zip(small, (1, 4), strict=True):
        samples = open_samples(load_card(name), tmp_path)
        ((image, label),) = dataset_scenes(name, 1, seed=0)
        assert len(samples) == tiles
        height, width = samples.read(0).label.shape
        np.testing.assert_array_equal(samples.read(0).image, image[:height, :width])
        np.testing.assert_array_equal(samples.read(0).label, label[:height, :width])
        np.testing.assert_array_equal(samples.read(tiles - 1).label, label[-height:, -width:])


def test_a_second_call_does_nothing_and_another_seed_writes_anew(tmp_path: Path, small: tuple[str, ...]) -> None:
    write_demo(tmp_path, small)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")}
    assert write_demo(tmp_path, small) == ()
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")} == files
    before = open_samples(load_card("loveda"), tmp_path).read(0).image
    assert write_demo(tmp_path, small[:1], seed=1) == small[:1]
    assert (open_samples(load_card("loveda"), tmp_path).read(0).image != before).any()


def test_an_unfinished_copy_is_replaced(
    tmp_path: Path, small: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(name: str, count: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("bench.demo.datasets.dataset_scenes", broken)
        write_demo(tmp_path, small)
    (tmp_path / load_card("loveda").folders[0]).mkdir(exist_ok=True)
    assert write_demo(tmp_path, small) == small


def test_somebody_elses_data_is_left_alone(tmp_path: Path, small: tuple[str, ...]) -> None:
    theirs = tmp_path / load_card("loveda").folders[0] / "precious.tif"
    theirs.parent.mkdir()
    theirs.write_text("theirs")
    with pytest.raises(BenchError, match="not written by the demo"):
        write_demo(tmp_path, small)
    assert theirs.read_text() == "theirs"


def test_of_two_that_want_the_data_one_writes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OVSS_BENCH_CACHE", str(tmp_path))
    with ThreadPoolExecutor(2) as pool:
        roots = list(pool.map(demo_data_root, [["wbs_si"]] * 2))
    (folder,) = (path for path in roots[0].iterdir() if path.is_dir() and not path.name.startswith("."))
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*")}
    assert f"rendering 1 of the demo's datasets once, into {roots[0]}" in capsys.readouterr().err
    assert before and demo_data_root(["wbs_si"]) == roots[1] and not capsys.readouterr().err  # as they are there
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("*")} == before
