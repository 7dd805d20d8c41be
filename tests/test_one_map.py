"""Every way to a label map of one row on one image ends at the same map."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from PIL import Image
from project import Project

import bench
from bench.cli import main
from bench.data.cards import load_card
from bench.evaluation.pictures import label_maps
from bench.evaluation.run import planned
from bench.spec import RunSpec
from bench.store.maps import LabelMaps
from bench.store.store import Store

pytestmark = pytest.mark.usefixtures("any_count")

DATASET = "loveda"
# Classes of several words that the tiny model finds about as likely as one: how they are put together decides.
WORDS = [["sand"], ["grass"], ["town"], ["river", "street", "city", "crop"], ["plane"], ["soil", "field"], ["forest"]]
ROWS: dict[str, dict[str, Any]] = {
    "max": {"threshold": 0.0},
    "sum": {"threshold": 0.0, "aggregate": "sum"},
    "logsumexp": {"aggregate": "logsumexp"},
    "card": {},  # at the card's threshold
    "sure": {"threshold": 0.35, "aggregate": "sum", "scale": 40},
    "refined": {"refine": "pamr", "threshold": 0.0},
    "refined-original": {"refine": "pamr-original", "aggregate": "sum"},
    "upsampled": {"upsampler": "simfeatup", "debias": 0.3},
}
Maps = dict[str, NDArray[np.uint8]]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("maps"))
    project.configure(**{row: {"method": "sclip", "vocabulary": "many", **changes} for row, changes in ROWS.items()})
    content = yaml.safe_load(project.config.read_text()) | {"vocabularies": {"many": {DATASET: WORDS}}}
    project.config.write_text(yaml.safe_dump(content))
    return project


@pytest.fixture(scope="module")
def kept(project: Project) -> Maps:
    """The maps of the first sample that a run kept, which are those that it counted."""
    assert project.run("--datasets", DATASET, "--methods", ",".join(ROWS), "--save-predictions", "1") == 0
    cells = {row: Store(project.root / "results").cell(row, DATASET) for row in ROWS}
    return {
        row: np.asarray(Image.open(io.BytesIO(LabelMaps.of(cell).find(cell.ids[0])))) for row, cell in cells.items()
    }


@pytest.fixture(scope="module")
def image(project: Project, kept: Maps) -> Path:
    """The file of that sample."""
    name = Store(project.root / "results").cell("max", DATASET).ids[0]
    (file,) = (project.data / "LoveDA").rglob(f"images_png/{name}.png")
    return file


def differing(found: Maps, kept: Maps) -> list[str]:
    return [row for row in ROWS if not np.array_equal(found[row], kept[row])]


def test_the_rows_differ_in_what_is_tested(kept: Maps) -> None:
    pairs = [("max", "sum"), ("card", "logsumexp"), ("max", "card"), ("sum", "sure"), ("max", "refined")]
    for row, other in pairs:
        assert np.mean(kept[row] != kept[other]) > 0.01, (row, other)


def test_a_figure_draws_the_maps_that_a_run_counted(project: Project, kept: Maps) -> None:
    spec = RunSpec(
        datasets=[DATASET],
        methods=list(ROWS),
        results=project.root / "nothing",
        config=project.config,
        backbone=str(project.backbone),
        checkpoint=project.checkpoint,
        upsamplers={"simfeatup": project.root / "up.ckpt"},
        data_root=project.data,
        device="cpu",
    )
    with planned(spec, writes=False) as run:
        assert differing(label_maps(run, run.datasets[0], 0), kept) == []


def test_a_loaded_segmenter_gives_the_maps_that_a_run_counted(project: Project, kept: Maps, image: Path) -> None:
    options = {"config": project.config, "backbone": str(project.backbone), "checkpoint": project.checkpoint}
    options |= {"upsamplers": {"simfeatup": project.root / "up.ckpt"}, "device": "cpu"}
    found = {row: bench.load_segmenter(row, dataset=DATASET, **options)(image).labels for row in ROWS}
    assert differing(found, kept) == []


def test_predict_writes_the_maps_that_a_run_counted(project: Project, kept: Maps, image: Path) -> None:
    card, found = load_card(DATASET), {}
    for row, changes in ROWS.items():
        flags = ["--config", project.config, "--backbone", project.backbone, "--checkpoint", project.checkpoint]
        flags += ["--classes", "; ".join(map(", ".join, WORDS)), "--device", "cpu", "--background", card.background]
        flags += ["--threshold", changes.get("threshold", card.threshold), "-o", project.root / f"{row}.png"]
        flags += ["--upsampler-checkpoint", project.root / "up.ckpt"]
        assert main(["predict", str(image), "--method", row, *map(str, flags)]) == 0
        found[row] = np.asarray(Image.open(project.root / f"{row}.png"))
    assert differing(found, kept) == []
