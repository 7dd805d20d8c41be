"""Label maps of another program as a row of the leaderboard: `bench score`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from narrowed import present
from PIL import Image
from project import Project

from bench.cli import main
from bench.data.cards import load_card
from bench.data.prepared import find_samples
from bench.inference.visualize import palette_png
from bench.metrics import confusion
from bench.metrics.boundary import boundary_counts
from bench.report.figure import coloured
from bench.store.maps import LabelMaps
from bench.store.store import Store

pytestmark = pytest.mark.usefixtures("any_count")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def predictions(project: Project, folder: str, write: object) -> tuple[Path, dict[str, np.ndarray]]:
    """Random label maps of LoveDA, written by `write(file without ending, map)`."""
    samples = find_samples(load_card("loveda"), project.data)
    target, maps = project.root / folder, {}
    target.mkdir()
    for index, name in enumerate(samples.ids):
        label = samples.read(index).label
        maps[name] = np.random.default_rng(index).integers(0, 7, label.shape).astype(np.uint8)
        write(target / name, maps[name])  # type: ignore[operator]
    return target, maps


def score(project: Project, folder: Path, *flags: str, row: str = "mine") -> int:
    where = ["--data-root", str(project.data), "--results", str(project.root / "results")]
    return main(["score", str(folder), "--dataset", "loveda", "--row", row, *where, *flags])


CARD = load_card("loveda")
FORMATS = {
    "index png": lambda file, labels: Image.fromarray(labels).save(f"{file}.png"),
    "palette png": lambda file, labels: Path(f"{file}.png").write_bytes(palette_png(labels, CARD.colours)),
    "colours": lambda file, labels: Image.fromarray(coloured(labels, CARD)).save(f"{file}.png"),
    "tif": lambda file, labels: Image.fromarray(labels).save(f"{file}.tif"),
    "npy": lambda file, labels: np.save(f"{file}.npy", labels),
    "scores npz": lambda file, labels: np.savez(f"{file}.npz", np.eye(7, dtype=np.float32)[labels].transpose(2, 0, 1)),
}


@pytest.mark.parametrize("kind", FORMATS)
def test_label_maps_are_counted_whatever_holds_them(
    kind: str, project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, maps = predictions(project, "maps", FORMATS[kind])
    assert score(project, folder, "--label", "My model") == 0
    cell = Store(project.root / "results").cell("mine", "loveda")
    samples = find_samples(CARD, project.data)
    for place, name in enumerate(cell.ids):
        expected = confusion(samples.read(place).label, maps[name], 7)
        assert np.array_equal(cell.confusion()[place], expected)
        assert np.array_equal(LabelMaps.of(cell).labels(name), maps[name])
    assert cell.info.label == "My model" and "external" in present(cell.info.caveat)
    assert "mine on loveda:" in capsys.readouterr().out


def test_maps_may_hold_the_values_of_the_label_files(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    folder, maps = predictions(project, "maps", lambda file, labels: Image.fromarray(labels + 1).save(f"{file}.png"))
    assert score(project, folder) == 2
    assert "holds 7; the classes of loveda are 0 to 6, and every pixel needs one" in (said := capsys.readouterr().err)
    assert "values of the dataset's label files take --as-labels" in said
    assert score(project, folder, "--as-labels") == 0
    cell = Store(project.root / "results").cell("mine", "loveda")
    assert all(np.array_equal(LabelMaps.of(cell).labels(name), of) for name, of in maps.items())
    Image.fromarray(np.zeros_like(maps[cell.ids[0]])).save(folder / f"{cell.ids[0]}.png")  # LoveDA's "no data"
    assert score(project, folder, "--as-labels") == 2
    assert "holds 255" in capsys.readouterr().err


def test_boundaries_are_counted_on_request(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    folder, maps = predictions(project, "maps", FORMATS["index png"])
    assert score(project, folder) == 0
    assert Store(project.root / "results").cell("mine", "loveda").boundary() is None
    assert score(project, folder, "--boundary") == 0
    cell = Store(project.root / "results").cell("mine", "loveda")
    samples = find_samples(CARD, project.data)
    expected = [boundary_counts(samples.read(place).label, maps[name], 7) for place, name in enumerate(cell.ids)]
    assert np.array_equal(cell.boundary(), expected)
    assert main(["tables", "--results", str(project.root / "results")]) == 0
    assert "boundary.md" in capsys.readouterr().out


def test_it_stands_in_the_leaderboard_beside_methods(project: Project) -> None:
    folder, _ = predictions(project, "maps", FORMATS["index png"])
    assert score(project, folder) == 0
    assert project.run("--datasets", "loveda", "--methods", "clip") == 0
    board = pd.read_csv(project.root / "results" / "tables" / "leaderboard.csv")
    mine = board[(board.row == "mine") & (board.dataset == "loveda")].iloc[0]
    assert mine.status == "ok" and "external" in mine.caveat and pd.isna(mine.stale)
    assert main(["compare", "mine", "clip", "--results", str(project.root / "results")]) == 0


def test_a_pattern_names_the_files(project: Project) -> None:
    folder, _ = predictions(project, "maps", lambda file, labels: Image.fromarray(labels).save(f"{file}_pred.png"))
    assert score(project, folder, "--pattern", "{id}_pred.png") == 0


def test_what_does_not_fit_is_said_before_anything_is_stored(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, maps = predictions(project, "maps", FORMATS["index png"])
    name = next(iter(maps))
    file = folder / f"{name}.png"
    whole = file.read_bytes()

    def refused(message: str, *flags: str, row: str = "mine") -> None:
        assert score(project, folder, *flags, row=row) == 2
        assert message in capsys.readouterr().err
        assert Store(project.root / "results").cell("mine", "loveda") is None

    file.unlink()
    refused(f"no prediction of sample '{name}'; expected {name}.png or {name}.tif")
    Image.fromarray(maps[name][:-1]).save(file)
    refused("give label maps of the original size")
    Image.fromarray(np.full_like(maps[name], 9)).save(file)
    refused("holds 9; the classes of loveda are 0 to 6")
    Image.fromarray(np.full((*maps[name].shape, 3), 77, np.uint8)).save(file)
    refused("colour (77, 77, 77) at 0, 0 is none of the card's palette")
    file.write_bytes(b"text")
    refused("not an image that Pillow can read")
    file.write_bytes(whole)
    refused("has no {id}", "--pattern", "x.png")
    for name in ("sclip", "towers"):
        refused("is a row of benchmark.yaml, or a group of rows", row=name)
    for name in ("(x)", "a,b", " a", "a\tb", " "):  # which tables, the page and --rows could not tell apart
        refused("is no name; give letters and digits", row=name)
    assert score(project, project.root / "nowhere") == 2
