"""The functions that `bench` offers."""

from __future__ import annotations

import doctest
import inspect
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal, get_origin

import numpy as np
import pytest
from data_helpers import scene
from PIL import Image
from project import SMALL

import bench
from bench.cli import main
from bench.data.cards import load_card
from bench.data.prepared import find_samples
from bench.demo.datasets import demo_data_root
from bench.demo.writers import write_dataset
from bench.maps.spec import MapSpec
from bench.notebook import MapKeywords, RunOptions, SegmenterKeywords
from bench.spec import RunSpec, SegmenterOptions

ROOT = Path(__file__).resolve().parents[1]
DEMO = {"backbone": "demo", "device": "cpu"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture, and results of two rows of the demo."""
    folder = tmp_path_factory.mktemp("notebook")
    noise = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "scene.png")
    (folder / "small.yaml").write_text(SMALL)
    flags = ["--demo", "--datasets", "whu_aerial", "--methods", "clip,segearth-ov", "--device", "cpu"]
    flags += ["--config", str(folder / "small.yaml")]
    assert main(["run", *flags, "--results", str(folder / "results" / "demo-run")]) == 0
    return folder


def test_a_run_tells_its_progress_and_what_is_missing(folder: Path) -> None:
    told: list[bench.Progress] = []
    options = {"demo": True, "results": folder / "told", "device": "cpu"}
    found = bench.run(["maskclip"], ["whu_aerial"], progress=told.append, **options)
    assert (found.failures, found.missing) == ((), ()) and list(found.scores.status) == ["ok"]
    assert [step.done for step in told] == list(range(told[0].total + 1)) and told[0].datasets == 1
    again = bench.run("maskclip", "whu_aerial", progress=told.append, **options)
    assert again.scores.equals(found.scores)


def test_mistakes_of_a_run_are_named(tmp_path: Path) -> None:
    mistakes: dict[str, dict[str, Any]] = {
        "unknown option 'devise'; did you mean device": {"devise": "cpu"},
        "unknown row or method 'clop'": {"methods": "clop", "datasets": "whu_aerial", "demo": True},
        "--demo brings its backbone and data; leave --backbone out": {"demo": True, "backbone": "demo"},
        "--only broken: not a state": {"demo": True, "only": ["broken"], "datasets": "loveda"},
    }
    for message, options in mistakes.items():
        with pytest.raises(bench.BenchError, match=message):
            bench.run(**{"results": tmp_path, **options})


def test_the_session_of_the_readme_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    session = (ROOT / "README.md").read_text().split("```pycon\n")[1].split("```")[0]
    test = doctest.DocTestParser().get_doctest(session, {}, "README", None, 0)
    assert len(test.examples) == 5
    assert doctest.DocTestRunner().run(test).failed == 0


def test_frames_hold_what_is_stored(folder: Path) -> None:
    results = folder / "results" / "demo-run"
    scores = bench.scores(results)
    assert list(scores)[:3] == ["row", "dataset", "score"]
    assert list(scores.row) == ["clip", "segearth-ov"] and set(scores.status) == {"ok"} and scores.demo.all()
    classes = bench.per_class(results)
    of_building = classes[(classes.row == "clip") & (classes["class"] == "building")].iou.item()
    assert of_building == pytest.approx(scores[scores.row == "clip"].foreground_iou.item())
    images = bench.per_image("clip", "whu_aerial", results)
    assert list(images["index"]) == list(range(scores.images[0]))
    (pair,) = bench.compare("segearth-ov", "clip", results).pairs
    gain = scores.set_index("row").score
    assert pair.interval.estimate == pytest.approx(gain["segearth-ov"] - gain["clip"])
    with pytest.raises(bench.BenchError, match="nothing is stored of clip on loveda"):
        bench.per_image("clip", "loveda", results)


def test_arrays_paths_strips_and_cards(folder: Path) -> None:
    segment = bench.load_segmenter("sclip", [["road", "street"], "water"], **DEMO)
    pixels = np.asarray(Image.open(folder / "scene.png"))
    assert np.array_equal(segment(pixels).labels, segment(str(folder / "scene.png")).labels)
    native = bench.load_segmenter("sclip", "road; water", native=True, **DEMO)(pixels)
    assert native.labels.shape == (90, 120) and native.scores.shape == (2, 90, 120)
    card = bench.load_segmenter("clip", dataset="loveda", **DEMO)
    assert card.names[1] == "building" and card.settings.threshold == 0.3


def test_maps_are_those_of_the_command(tmp_path: Path, folder: Path) -> None:
    seen: list[bench.Progress] = []
    wanted: dict[str, Any] = {"method": "clip", "classes": "road; water", "blend": "gaussian", **DEMO}
    made = bench.predict([folder / "scene.png"], tmp_path / "python", progress=seen.append, **wanted)
    assert (made.files, made.failures) == ((tmp_path / "python" / "scene.png",), ())
    assert (seen[-1].dataset, seen[-1].done) == ("scene.png", seen[-1].total)
    flags = [f"--{name}={value}" for name, value in wanted.items()]
    assert main(["predict", str(folder / "scene.png"), *flags, "-o", str(tmp_path / "command")]) == 0
    for file in (tmp_path / "command").iterdir():
        assert file.read_bytes() == (tmp_path / "python" / file.name).read_bytes()
    mistakes: dict[str, dict[str, Any]] = {
        "predict: give either classes or dataset": {"dataset": "loveda"},
        "names a method twice": {"method": "clip,clip"},
        "unknown option 'band'; did you mean bands": {"band": 3},
    }
    for message, mistake in mistakes.items():
        with pytest.raises(bench.BenchError, match=message):
            bench.predict(folder / "scene.png", tmp_path, **wanted | mistake)


MISTAKES: dict[str, dict[str, Any]] = {
    "give either classes or dataset": {"classes": None},
    "unknown option 'devise'; did you mean device": {"devise": "cpu"},
    "background 2: there are 2 classes": {"background": 2},
    "threshold 2: Input should be less than 1": {"threshold": 2},
    "unknown row or method 'clop'": {"method": "clop"},
}


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes_are_named(message: str) -> None:
    with pytest.raises(bench.BenchError, match=message):
        bench.load_segmenter(**{"method": "clip", "classes": "road; water", **DEMO, **MISTAKES[message]})


def test_what_is_no_image_is_refused() -> None:
    segment = bench.load_segmenter("clip", "road; water", **DEMO)
    for wrong in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)):
        with pytest.raises(bench.BenchError, match="give an RGB array"):
            segment(wrong)


def test_one_path_stands_for_a_list_of_one(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN)
    (tmp_path / "cards").mkdir()
    spec = RunSpec(methods="plain", datasets="loveda", plugins=str(tmp_path / "mine.py"), cards=tmp_path / "cards")
    assert (spec.plugins, spec.cards) == ((tmp_path / "mine.py",), (tmp_path / "cards",))
    assert RunSpec(methods="clip", datasets="loveda", options="debias=0.3").options == ("debias=0.3",)
    results = folder / "results" / "demo-run"
    assert len(bench.scores(results, cards=str(tmp_path / "cards"))) == 2
    assert {file.name for file in bench.tables(results, tmp_path / "out", "md", "1")} == {"table1-demo.md"}
    assert (
        bench.load_segmenter("clip", dataset="loveda", cards=str(tmp_path / "cards"), **DEMO).names[0] == "background"
    )


PLUGIN = """from bench.api import last_block, method

@method("plain")
def plain(trunk):
    return last_block(trunk, lambda q, k, v: v, residual=False, ffn=False)
"""


def test_label_maps_are_scored_shown_and_exported(tmp_path: Path) -> None:
    card, data = load_card("whu_aerial"), tmp_path / "data"
    write_dataset(card, data, [scene(card, 48, 64, 0)])
    samples = find_samples(card, data)
    (tmp_path / "maps").mkdir()
    np.save(tmp_path / "maps" / f"{samples.ids[0]}.npy", np.where(samples.read(0).label == 1, 1, 0))
    found = bench.score(tmp_path / "maps", "whu_aerial", "mine", data_root=data, results=tmp_path / "results")
    assert found.value == 1 and found.verdict.counted == 1
    text = repr(bench.show("mine", "whu_aerial", tmp_path / "results"))
    assert text.startswith("mine on whu_aerial\nscore") and "100.0 % foreground_iou" in text
    assert "{" not in text and "boundary_iou" not in text
    assert bench.export(tmp_path / "mine.zip", tmp_path / "results").stat().st_size > 0


def test_label_maps_of_the_demo_are_scored_and_exchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    samples = find_samples(load_card("whu_aerial"), demo_data_root(["whu_aerial"]))
    (tmp_path / "maps").mkdir()
    for number, name in enumerate(samples.ids):
        np.save(tmp_path / "maps" / f"{name}.npy", samples.read(number).label % 2)
    assert main(["score", "maps", "--dataset", "whu_aerial", "--row", "mine", "--demo"]) == 0
    (score,) = bench.scores("results/demo-run").to_dict("records")
    assert (score["row"], score["status"], score["demo"]) == ("mine", "ok", True)
    assert main(["export", "mine.zip", "--demo"]) == 0 and not list(tmp_path.glob("results/cells"))
    shutil.rmtree(tmp_path / "results")
    assert main(["import", "mine.zip", "--demo"]) == 0 and len(bench.scores("results/demo-run")) == 1


def test_bench_offers_what_it_says() -> None:
    assert sorted(dir(bench)) == sorted(bench.__all__)
    assert all(getattr(bench, name) for name in bench.__all__)


def test_signatures_show_every_keyword_with_its_documentation() -> None:
    assert set(RunOptions.__annotations__) == set(RunSpec.model_fields) - {"methods", "datasets"}
    assert set(SegmenterKeywords.__annotations__) == set(SegmenterOptions.model_fields)
    assert set(MapKeywords.__annotations__) == set(MapSpec.model_fields)
    for options, spec in ((RunOptions, RunSpec), (MapKeywords, MapSpec)):
        for keyword, kind in options.__annotations__.items():
            field, written = spec.model_fields[keyword], kind.__forward_arg__
            assert ("None" in written) == (field.default is None), keyword
            assert get_origin(field.annotation) is not Literal or str(field.annotation) == f"typing.{written}"
    functions = [getattr(bench, name) for name in bench.__all__ if name.islower()]
    assert bench.run in functions and bench.figure in functions
    for function in functions:
        for name, parameter in inspect.signature(function).parameters.items():
            assert parameter.kind is not inspect.Parameter.VAR_KEYWORD
            assert parameter.annotation is not inspect.Parameter.empty, f"{function.__name__}: {name}"
    run = inspect.signature(bench.run).parameters
    assert (run["dtype"].default, run["cards"].annotation) == ("fp32", "Paths")
    assert f"    limit: {RunSpec.model_fields['limit'].description}\n" in str(bench.run.__doc__)


def test_importing_bench_imports_nothing_heavy() -> None:
    code = "import bench, sys; assert not {'torch', 'pandas', 'numpy', 'pydantic'} & set(sys.modules); bench.nothing"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "module 'bench' has no attribute 'nothing'" in done.stderr
