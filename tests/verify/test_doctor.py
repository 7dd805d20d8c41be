"""`bench doctor`: what is there and what is missing, before anything was downloaded and after."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from data_helpers import scene

import bench
from bench.cli import main
from bench.config import load_config
from bench.data.cards import load_card
from bench.data.schema import Download
from bench.demo.writers import write_dataset
from bench.models.weights import look_for_weights
from bench.paths import weights_dir
from bench.registry import load_methods
from bench.verify.doctor import datasets_table, doctor, needed_weights


@pytest.fixture(autouse=True)
def empty_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVSS_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # where nothing answers
    monkeypatch.delenv("http_proxy", raising=False)


def put_weights(*names: str) -> None:
    """Files in the places of weights, whose content nobody reads here."""
    weights_dir().mkdir(parents=True, exist_ok=True)
    for name in names:
        (weights_dir() / name).write_bytes(b"weights")


def test_an_empty_home_lacks_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--quick", "--data-root", str(tmp_path), "--device", "cpu"]) == 1
    said = capsys.readouterr().out
    assert f"{tmp_path} (" in said and f"{tmp_path / 'cache'} (not there yet, " in said
    assert "http://127.0.0.1:9 does not answer" in said
    assert "table 1 lacks 10:" in said and "  weights simfeatup" in said and "  dataset udd5 (missing)" in said
    assert "next: get https://openaipublic.azureedge.net/" in said and said.endswith(f"put it into {weights_dir()}\n")
    assert main(["doctor", "--quick", "--json", "--table", "2", "--data-root", str(tmp_path), "--device", "cpu"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["table"] == "2" and len(found["missing"]) == 11


@pytest.mark.usefixtures("any_count")
def test_each_step_leads_to_the_next(tmp_path: Path) -> None:
    config = tmp_path / "benchmark.yaml"
    config.write_text("tables: {mine: {title: T, columns: [loveda, whu_aerial], rows: [clip, segearth-ov]}}")
    asked = {"table": "mine", "device": "cpu", "config": config, "measure": False}
    put_weights("ViT-B-16.pt", "xclip_jbu_one_million_aid.ckpt")
    found = bench.doctor(tmp_path, **asked)
    assert found.next == f"python -m bench download loveda whu_aerial --data-root {tmp_path}"
    for name in ("loveda", "whu_aerial"):
        card = load_card(name)
        write_dataset(card, tmp_path, [scene(card, 40, 40)])
    found = bench.doctor(tmp_path, **asked)
    assert found.ready and found.next == f"python -m bench reproduce --table mine --data-root {tmp_path}"
    assert "table mine can be run" in repr(found)
    assert {one.name: one.there for one in found.weights}["clip-vit-b16"]
    assert [(one.here, one.datasets) for one in found.tables] == [
        (1, 8),
        (1, 9),
        (1, 8),
        (1, 3),
        (0, 3),
        (0, 3),
        (2, 2),
    ]


@pytest.mark.slow  # it times a ViT-B/16
def test_the_demo_lacks_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.undo()  # the session's cache, which holds the demo's data
    small = "{title: small, columns: [whu_aerial], rows: [clip]}"  # of all tables but one, whose rows take a minute
    (tmp_path / "small.yaml").write_text(
        "tables:\n" + "".join(f'  "{number}": {small}\n' for number in (1, 2, 3, 5, 6))
    )
    found = doctor(demo=True, device="cpu", table="4", config=tmp_path / "small.yaml")
    assert found.ready and found.next == "python -m bench reproduce --table 4 --demo"
    assert all(one.seconds_here is not None and 0 < one.seconds_here < 3600 for one in found.tables if one.name == "4")


def test_a_mistyped_table_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--table", "7"]) == 2
    assert "benchmark.yaml has no such table" in capsys.readouterr().err


def test_the_bytes_to_fetch_are_those_that_are_not_there_yet(tmp_path: Path) -> None:
    from bench.data.inventory import look

    items = Download(file="a.zip", bytes=5), Download(file="b.zip", bytes=7), Download(file="c.zip", needed=False)
    card = load_card("loveda").model_copy(update={"downloads": items})
    assert look(card, tmp_path).to_fetch == 12
    (tmp_path / "LoveDA").mkdir()
    (tmp_path / "LoveDA" / "a.zip").write_bytes(b"PK")
    assert look(card, tmp_path).to_fetch == 7
    unknown = card.model_copy(update={"downloads": (*items, Download(file="d.zip"))})
    assert look(unknown, tmp_path).to_fetch is None
    line = datasets_table([look(load_card("inria"), tmp_path)]).splitlines()[-1]
    assert line.split()[-2:] == ["registration:", "https://project.inria.fr/aerialimagelabeling/"]


def test_weights_say_where_they_come_from() -> None:
    found = {one.name: one for one in look_for_weights(load_config())}
    assert found["clip-vit-b16"].source == "http://127.0.0.1:9/timm/vit_base_patch16_clip_224.openai"
    assert found["loftup"].source == "http://127.0.0.1:9/haiwen/loftup-clip/resolve/main/pytorch_model.bin"
    assert found["x-jbu-one"].access == "not released" and found["dinov3-vitb16"].access == "gated"
    assert "accept the licence" in found["dinov3-vitb16"].how and "RemoteCLIP" in found["remoteclip-vit-b32"].how


def test_rows_need_what_their_settings_name() -> None:
    config, methods = load_config(), load_methods()
    assert needed_weights(config, methods, ["clip"]) == {"clip-vit-b16"}
    assert needed_weights(config, methods, ["proxyclip+simfeatup"]) == {"clip-vit-b16", "simfeatup", "dino-vitb8"}
