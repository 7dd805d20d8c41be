from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from data_helpers import pack, scene
from PIL import Image

from bench.cli import main
from bench.data.cards import Card, card_schema, load_card
from bench.data.check import Problem, Report, check
from bench.data.inventory import look
from bench.data.prepare import prepare
from bench.data.schema import Tiling
from bench.demo.writers import write_dataset


def small(name: str, count: int, **change: object) -> Card:
    return load_card(name).model_copy(update={"expected_count": count, "unverified": (), **change})


def write(card: Card, root: Path, scenes: int, layout: str = "original") -> Path:
    return write_dataset(card, root, [scene(card, 66, 78, seed) for seed in range(scenes)], layout)


def problems(report: Report, severity: str) -> list[Problem]:
    return [problem for problem in report.problems if problem.severity == severity]


def test_a_right_dataset_is_described(tmp_path: Path) -> None:
    card = small("loveda", 3)
    folder = write(card, tmp_path, 3)
    report = check(card, tmp_path)
    assert report.healthy and report.problems == []
    assert (report.layout, report.folder, report.prepared) == ("original", str(folder), False)
    assert (report.images, report.checked, report.expected) == (3, 3, 3)
    assert report.sizes == {"78x66": 3}
    labels = [scene(card, 66, 78, seed)[1] for seed in range(3)]
    for value, name in enumerate(card.classes):
        assert report.pixels[name] == sum(int((label == value).sum()) for label in labels)
        assert report.present[name] == sum((label == value).any() for label in labels)
    assert (report.ignored, report.beyond) == (0, {})


def test_sizes_and_ignored_pixels_are_counted(tmp_path: Path) -> None:
    card = small("loveda", 3)
    scenes = [scene(card, 66, 78), scene(card, 50, 60), scene(card, 50, 60, 1)]
    scenes[1][1][:10, :10] = 255
    write_dataset(card, tmp_path, scenes)
    report = check(card, tmp_path)
    assert report.sizes == {"60x50": 2, "78x66": 1}
    assert report.ignored == 100


def test_fingerprints_follow_names_and_labels(tmp_path: Path) -> None:
    card = small("loveda", 3)
    folder = write(card, tmp_path, 3)
    first = check(card, tmp_path, all_labels=True)
    assert check(card, tmp_path, all_labels=True) == first
    label = sorted(folder.rglob("masks_png/*.png"))[0]
    values = np.asarray(Image.open(label)).copy()
    values[0, 0] = values[0, 0] % 7 + 1
    Image.fromarray(values).save(label)
    assert check(card, tmp_path, all_labels=True).labels != first.labels
    next(folder.rglob("images_png/*.png")).with_name("99999.png").write_bytes(label.read_bytes())
    label.with_name("99999.png").write_bytes(label.read_bytes())
    assert check(card, tmp_path, all_labels=True).files != first.files


@pytest.mark.parametrize("name", ["potsdam", "isaid", "whu_aerial", "xbd_pre"])
def test_labels_have_one_fingerprint_in_every_layout_and_in_shards(name: str, tmp_path: Path) -> None:
    card = small(name, 8 if load_card(name).tiling else 2)
    if card.tiling:
        card = card.model_copy(update={"tiling": Tiling(width=48, height=40)})
    for layout in ("original", "prepared"):
        write(card, tmp_path / layout, 2, layout)
    prepare(card, None, tmp_path / "prepared")
    reports = [check(card, tmp_path / layout, all_labels=True) for layout in ("original", "prepared")]
    assert [report.healthy for report in reports] == [True, True]
    assert reports[0].labels == reports[1].labels
    assert [report.prepared for report in reports] == [False, True]


def test_workers_see_the_same(tmp_path: Path) -> None:
    card = small("loveda", 5)
    write(card, tmp_path, 5)
    assert check(card, tmp_path, workers=2) == check(card, tmp_path)


def test_a_missing_dataset(tmp_path: Path) -> None:
    report = check(load_card("loveda"), tmp_path)
    assert not report.healthy and report.layout is None
    assert "Val.zip" in report.problems[0].what and "bench download loveda" in report.problems[0].advice


def test_too_few_images_are_incomplete_here_and_in_the_inventory(tmp_path: Path) -> None:
    card = small("loveda", 1669)
    write(card, tmp_path, 2)
    (error,) = problems(check(card, tmp_path), "error")
    assert error.what == "incomplete: 2 of 1,669 images" and card.split_note in error.advice
    assert (look(card, tmp_path).state, look(card, tmp_path).problem) == ("incomplete", "2 of 1,669 images")
    doubtful = card.model_copy(update={"unverified": ("the count, 1,669",)})
    assert problems(check(doubtful, tmp_path), "error")[0].what.endswith("images (a number that is not verified)")
    (error,) = problems(check(small("loveda", 1), tmp_path), "error")
    assert error.what == "incomplete: 2 images, 1 expected"
    many = look(small("loveda", 1), tmp_path)
    assert (many.state, many.problem) == ("incomplete", "2 images, 1 expected")


def test_an_image_without_a_label_is_an_error(tmp_path: Path) -> None:
    card = small("loveda", 3)
    folder = write(card, tmp_path, 3)
    lost = sorted(folder.rglob("masks_png/*.png"))[1]
    lost.unlink()
    (error,) = problems(check(card, tmp_path), "error")
    assert lost.name in error.what


def test_a_label_without_an_image_is_a_warning(tmp_path: Path) -> None:
    card = small("loveda", 2)
    folder = write(card, tmp_path, 3)
    sorted(folder.rglob("images_png/*.png"))[1].unlink()
    report = check(card, tmp_path)
    assert report.healthy
    assert "labels have no image" in problems(report, "warning")[0].what


def test_unreadable_files_are_all_named_and_counted_by_their_samples(tmp_path: Path) -> None:
    card = small("potsdam", 12, tiling=Tiling(width=39, height=33))
    folder = write(card, tmp_path, 3)
    broken = sorted(folder.rglob("*_RGB.tif"))[1]
    broken.write_bytes(broken.read_bytes()[:-3000])
    report = check(card, tmp_path)
    (error,) = problems(report, "error")
    assert str(broken) in error.what and error.advice == "4 images cannot be evaluated"
    assert (report.images, report.checked) == (12, 8)


def test_values_that_are_no_class_are_an_error(tmp_path: Path) -> None:
    card = small("loveda", 3)
    folder = write(card, tmp_path, 3)
    label = next(folder.rglob("masks_png/*.png"))
    Image.fromarray(np.full((66, 78), 9, np.uint8)).save(label)
    report = check(card, tmp_path)
    (error,) = problems(report, "error")
    assert label.stem in error.what and f"holds 8 (one less than the file stores) on {66 * 78:,} pixels" in error.what
    assert (report.images, report.checked) == (3, 2)


def test_stray_values_that_a_preparation_is_known_for_are_a_note(tmp_path: Path) -> None:
    card = small("wbs_si", 3)
    write(card, tmp_path, 3)
    assert check(card, tmp_path).beyond == {}
    report = check(card, tmp_path, layout="reference-jpeg")
    assert report.beyond[2] > 0 and report.healthy
    assert "value 2" in problems(report, "note")[0].what


def test_classes_that_never_occur(tmp_path: Path) -> None:
    card = small("loveda", 30)
    scenes = [scene(card, 66, 78, seed) for seed in range(30)]
    for _, label in scenes:
        label[label == 4] = 0
    write_dataset(card, tmp_path, scenes)
    sample = check(card, tmp_path)
    assert sample.checked < 30
    assert "barren" in problems(sample, "note")[0].what and "--all" in problems(sample, "note")[0].advice
    assert problems(check(card, tmp_path, all_labels=True), "warning")[0].what == "in no label: barren"


def test_labels_that_pillow_spoilt_are_refused(tmp_path: Path) -> None:
    """Classes that all became 1, in eight bits: nothing in the file tells, only what it lacks."""
    card = small("uavid", 24, tiling=Tiling(width=39, height=33))
    folder = write(card, tmp_path, 6, "prepared")
    for label in (folder / "ann_dir").rglob("*.png"):
        values = np.asarray(Image.open(label))
        Image.fromarray((values > 0).astype(np.uint8)).save(label)
    assert any("Pillow 10.1" in problem.what for problem in problems(check(card, tmp_path), "error"))


def test_the_inventory_reads_names_only(tmp_path: Path) -> None:
    card = small("potsdam", 56)
    folder = write_dataset(card, tmp_path, [scene(card, 512, 512, seed) for seed in range(2)])
    for file in folder.rglob("*.tif"):
        file.write_bytes(b"")
    entry = look(card, tmp_path)
    assert (entry.state, entry.layout, entry.images, entry.whole_scenes) == (
        "incomplete",
        "original",
        2,
        True,
    )
    assert entry.problem == "12 names of the split have no file, e.g. 3_13"


def test_the_inventory_tells_found_incomplete_and_missing(tmp_path: Path) -> None:
    card = small("loveda", 3)
    assert look(card, tmp_path).state == "missing"
    folder = write(card, tmp_path, 2)
    assert (look(card, tmp_path).state, look(card, tmp_path).problem) == ("incomplete", "2 of 3 images")
    write(card, tmp_path, 3)
    assert (look(card, tmp_path).state, look(card, tmp_path).problem) == ("found", None)
    prepare(card, None, tmp_path)
    shutil.rmtree(folder)
    assert look(card, tmp_path).prepared and look(card, tmp_path).state == "found"
    write(card, tmp_path / "other", 3)
    labels = list((tmp_path / "other").rglob("masks_png/*.png"))
    labels[0].unlink()
    assert look(card, tmp_path / "other").state == "incomplete"
    assert "has no label" in str(look(card, tmp_path / "other").problem)
    labels[1].unlink()
    labels[2].unlink()
    assert look(card, tmp_path / "other").state == "incomplete"
    assert "has no layout of the card" in str(look(card, tmp_path / "other").problem)


def test_the_inventory_knows_archives(tmp_path: Path) -> None:
    card = small("loveda", 3)
    folder = write(card, tmp_path, 3)
    pack(folder, folder / "Val.zip")
    assert (look(card, tmp_path).state, look(card, tmp_path).images) == ("found", 3)


def test_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(load_card("loveda"), tmp_path, 2)
    assert main(["datasets", "--data-root", str(tmp_path)]) == 1
    table = capsys.readouterr().out
    rows = {line.split()[0]: line for line in table.splitlines() if line and line[0].isalpha()}
    assert "incomplete" in rows["loveda"] and "2 of 1,669" in rows["loveda"]
    assert "missing" in rows["potsdam"] and "request" in rows["potsdam"]
    assert "bench download openearthmap" in rows["openearthmap"]
    assert main(["datasets", "--json", "--data-root", str(tmp_path)]) == 1
    entries = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert len(entries) >= 17 and entries["loveda"]["images"] == 2 and entries["vdd"]["state"] == "missing"


def test_the_check_command_and_its_exit_codes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(load_card("loveda"), tmp_path, 3)
    assert main(["datasets", "check", "loveda", "--data-root", str(tmp_path)]) == 1
    assert "error: " in (shown := capsys.readouterr().out) and "incomplete: 3 of 1,669 images" in shown
    monkeypatch.setattr("bench.data.check.miscount", lambda *_: None)
    assert main(["datasets", "check", "loveda", "--data-root", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "loveda: fine" in shown and "agricultural" in shown and "3 images, 3 looked at" in shown
    write(load_card("whu_aerial"), tmp_path, 2)
    next((tmp_path / "WHU-BD").rglob("label/*")).unlink()
    arguments = ["--data-root", str(tmp_path), "--json", "--all"]
    assert main(["datasets", "check", "all", *arguments]) == 1
    reports = {report["name"]: report for report in json.loads(capsys.readouterr().out)}
    assert {name: report["healthy"] for name, report in reports.items()} == {
        "loveda": True,
        "whu_aerial": False,
    }
    assert reports["whu_aerial"]["problems"][0]["severity"] == "error"
    assert main(["datasets", "check", "loveda", "potsdam", "--data-root", str(tmp_path)]) == 1
    assert "potsdam: something is wrong" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check"], "name the datasets to check"),
        (["check", "all"], "give the folder with --data-root"),
        (["check", "lovda"], "did you mean loveda"),
    ],
)
def test_mistakes(arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["datasets", *arguments, "--data-root", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err


def test_the_schema_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["datasets", "schema"]) == 0
    assert json.loads(capsys.readouterr().out) == card_schema()


def test_cards_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from bench.paths import shipped

    cards = tmp_path / "cards"
    cards.mkdir()
    text = (shipped("datasets") / "loveda.yaml").read_text().replace("name: loveda\n", "name: mine\n")
    (cards / "mine.yaml").write_text(
        text.replace("folders: [LoveDA]", "folders: [Mine]").replace("count: 1669", "count: 2")
    )
    write(load_card("mine", [cards]), tmp_path, 2)
    assert main(["datasets", "check", "mine", "--cards", str(cards), "--data-root", str(tmp_path)]) == 0
    assert "mine: fine" in capsys.readouterr().out


def test_all_leaves_out_cards_that_read_a_whole_folder_in_another_way(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.data.inventory.miscount", lambda images, expected: None if expected == 450 else "wrong")
    write(load_card("floodnet"), tmp_path, 2)
    main(["datasets", "check", "all", "--data-root", str(tmp_path), "--json"])
    assert [report["name"] for report in json.loads(capsys.readouterr().out)] == ["floodnet"]
