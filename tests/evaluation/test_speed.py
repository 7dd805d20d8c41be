from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from reference import tiny_config

from bench.cli import main
from bench.config import load_config
from bench.evaluation.speed import STAGES, Bench, Case, Timing, cases, mean, regions
from bench.models.clip_weights import DTYPES
from bench.paths import shipped
from bench.registry import load_methods


def test_plan_grows_in_one_direction_at_a_time() -> None:
    plan = cases([(448, 448), (1000, 800)], [9, 60], ["a", "b", "c"], [1, 2, 3, 7])
    assert [(c.height, c.width, c.queries, len(c.rows)) for c in plan] == [
        *((448, 448, 9, 3), (1000, 800, 9, 3)),
        (448, 448, 60, 3),
        *((448, 448, 9, 1), (448, 448, 9, 2)),
    ]


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_half_precision_is_held_against_a_stock_encoder_of_that_precision(tmp_path: Path, dtype: str) -> None:
    model, config = _small(tmp_path)
    bench = Bench(load_config(config), load_methods(), str(model), "cpu", dtype)
    assert {value.dtype for value in bench._stock.visual.parameters()} == {DTYPES[dtype]}
    assert bench.measure(Case(200, 300, 5, ("clip", "gem", "sclip+ours")), repeats=1).ratio > 0


def test_measures_every_stage_of_a_real_run(tmp_path: Path) -> None:
    model, config = _small(tmp_path)
    bench = Bench(load_config(config), load_methods(), str(model), "cpu", "fp32")
    timing = bench.measure(Case(200, 300, 5, ("maskclip", "naclip+pamr", "sclip+ours")), repeats=1, one_by_one=True)
    assert timing.windows == 2
    assert list(timing.shares) == list(STAGES)
    assert all(timing.shares[name] > 0 for name in STAGES)
    assert sum(timing.shares.values()) == pytest.approx(timing.all_rows, rel=0.01)
    assert list(timing.one_by_one) == ["maskclip", "naclip+pamr", "sclip+ours"] and min(timing.one_by_one.values()) > 0
    assert timing.peak_memory > 50 * 2**20


def test_a_geometry_that_the_stock_encoder_cannot_read_is_held_against_as_many_windows_of_its_own(
    tmp_path: Path,
) -> None:
    model, config = _small(tmp_path)
    bench = Bench(load_config(config), load_methods(), str(model), "cpu", "fp32")
    timing = bench.measure(Case(100, 900, 5, ("clip",)), repeats=1)  # 11 x 96 pixels for the network, windows of 64
    assert timing.windows == 2 and timing.ratio > 0


def test_labels_are_regions_of_all_classes_and_of_what_is_ignored() -> None:
    label = regions(700, 900, 9)
    assert label.shape == (700, 900) and set(np.unique(label)) == {*range(9), 255}
    assert (label[:, 1:] != label[:, :-1]).mean() < 0.02


def test_methods_with_a_text_side_of_their_own_are_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVSS_BENCH_CACHE", str(tmp_path / "cache"))
    model, config = _small(tmp_path)
    bench = Bench(load_config(config), load_methods(), str(model), "cpu", "fp32")
    assert bench.measure(Case(200, 300, 5, ("clip", "floss", "maskclip-own")), repeats=1).ratio > 0
    assert not (tmp_path / "cache").exists()  # embeddings of random weights are of no use to anyone


def test_command_prints_tables_and_writes_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, config = _small(tmp_path)
    flags = [
        "--config",
        str(config),
        "--sizes",
        "96x96,80x96",
        "--queries",
        "3,5",
        "--methods",
        "clip,segearth-ov",
        "--row-counts",
        "1",
    ]
    target = tmp_path / "speed.json"
    assert main(["speed", "--model", str(model), *flags, "--repeats", "1", "--one-by-one", "--json", str(target)]) == 0
    shown = capsys.readouterr().out
    assert "Per cent of the rows' time" in shown
    assert "the same rows one by one" in shown
    record = json.loads(target.read_text())
    assert [(c["height"], c["queries"], len(c["rows"])) for c in record["cases"]] == [
        *((96, 3, 2), (80, 3, 2)),
        *((96, 5, 2), (96, 3, 1)),
    ]
    assert set(record["upsampler_seconds_a_window"]) == {"taps", "operator", "scores"}
    isaid = next(line for line in shown.splitlines() if line.startswith("isaid"))
    ((images, seconds),) = [(one["images"], one["seconds"]) for one in record["paper"] if one["dataset"] == "isaid"]
    assert isaid.split() == ["isaid", "11644", f"{images / seconds:.2f}", f"{seconds / 60:.1f}"]


def test_two_machines_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, config = _small(tmp_path)
    flags = ["--config", str(config), "--sizes", "96x96", "--queries", "3", "--methods", "clip", "--row-counts", "1"]
    flags = ["speed", "--model", str(model), *flags, "--repeats", "1"]
    target = tmp_path / "speed.json"
    assert main([*flags, "--json", str(target)]) == 0
    record = json.loads(target.read_text())
    record["machine"] = "Another CPU"
    record["cases"][0] |= {"encoder": 1.0, "all_rows": 1e6}  # a millionth image per second, at a ratio of a million
    other = tmp_path / "other.json"
    other.write_text(json.dumps(record))
    capsys.readouterr()
    assert main([*flags, "--json", str(target), "--against", str(other)]) == 0
    shown = capsys.readouterr().out
    (mine,) = json.loads(target.read_text())["cases"]
    line = shown.splitlines()[-1].split()
    assert "there: " in shown and "Another CPU" in shown
    assert line[:3] == ["96x96", "3", "1"] and [float(value) for value in line[3:]] == pytest.approx(
        [1e3 * mine["all_rows"], 1e9, mine["ratio"], 1e6, 1 / mine["all_rows"], 0, 1e6 / mine["all_rows"]], abs=0.01
    )
    record["cases"][0]["queries"] = 4
    other.write_text(json.dumps(record))
    assert main([*flags, "--against", str(other)]) == 0
    assert "no case was measured on both" in capsys.readouterr().out


NO_RECORDS = {
    None: "No such file or directory",
    "{": "Invalid JSON",
    "[]": "top level: Input should be",
    '{"model": "x"}': "lacks dtype",
}


@pytest.mark.parametrize("content", NO_RECORDS)
def test_what_is_no_record_is_refused_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None
) -> None:
    file = tmp_path / "other.json"
    if content is not None:
        file.write_text(content)
    assert main(["speed", "--against", str(file)]) == 2
    said = capsys.readouterr().err
    assert f"bench: --against {file}: " in said and NO_RECORDS[content] in said and said.count("\n") == 1


@pytest.mark.slow
def test_processes_side_by_side_are_averaged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, config = _small(tmp_path)
    target = tmp_path / "speed.json"
    flags = ["--config", str(config), "--sizes", "96x96", "--queries", "3", "--methods", "clip", "--row-counts", "1"]
    flags += ["--repeats", "1", "--processes", "2", "--json", str(target)]
    assert main(["speed", "--model", str(model), *flags]) == 0
    assert f"{max(1, torch.get_num_threads() // 2)} threads" in (shown := capsys.readouterr().out)
    assert "2 processes at a time" in shown
    record = json.loads(target.read_text())
    (case,) = record["cases"]
    assert record["processes"] == 2
    assert case["ratio"] == case["all_rows"] / case["encoder"] > 0


@pytest.mark.slow
def test_a_mistake_in_one_of_several_processes_is_answered_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, config = _small(tmp_path)
    flags = ["--config", str(config), "--methods", "sclp", "--processes", "2"]
    assert main(["speed", "--model", str(model), *flags]) == 2
    assert "bench: --methods: unknown row or method 'sclp'" in capsys.readouterr().err


def test_means_by_hand() -> None:
    one = Timing(9, 2.0, 4.0, {"trunk": 1.0, "last block": 3.0}, {"clip": 20.0}, 100)
    two = Timing(9, 4.0, 5.0, {"trunk": 3.0, "last block": 2.0}, {"clip": 30.0}, 70)
    assert mean([one, two]) == Timing(9, 3.0, 4.5, {"trunk": 2.0, "last block": 2.5}, {"clip": 25.0}, 100)
    assert mean([Timing(1, 1.0, 2.0)] * 3).one_by_one == {}


def _small(folder: Path) -> tuple[Path, Path]:
    """Model config and benchmark.yaml at a geometry of 96 / 64 / 32 pixels."""
    model, config = folder / "small.json", folder / "benchmark.yaml"
    model.write_text(json.dumps(tiny_config(image_size=64)))
    content = yaml.safe_load(shipped("benchmark.yaml").read_text())
    content["protocol"] |= {"resize": {"long_side": 96}, "window": 64, "stride": 32}
    config.write_text(yaml.safe_dump(content))
    return model, config


MISTAKES = {
    "--sizes 448": "argument --sizes",
    "--queries 0": "argument --queries",
    "--methods sclp": "unknown row or method 'sclp'",
    "--model ViT-Z": "unknown open_clip model 'ViT-Z'",
}


@pytest.mark.parametrize("flags", MISTAKES)
def test_a_mistake_is_answered(tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: str) -> None:
    model, config = _small(tmp_path)
    try:
        code = main(["speed", "--model", str(model), "--config", str(config), "--repeats", "1", *flags.split()])
    except SystemExit as stopped:  # argparse's own
        code = int(stopped.code or 0)
    assert code == 2
    assert MISTAKES[flags] in capsys.readouterr().err


def test_help_needs_no_torch() -> None:
    """What makes `--help` quick, without measuring it."""
    script = (
        "import sys; from bench.cli.app import main\n"
        "try: main(['speed', '--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'cv2', 'open_clip'} & set(sys.modules)\n"
    )
    root = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-c", script], cwd=root, check=True, capture_output=True)
