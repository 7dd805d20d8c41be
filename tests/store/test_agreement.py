"""Two runs of one cell held against each other: `bench verify A B`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from store_helpers import INPUTS, certain, names, opened, spec, stored

from bench.cli import main
from bench.paths import EARLIER_HASHES, shipped
from bench.runtime.sources import shipped_codes
from bench.store.agreement import Agreement, agreements
from bench.store.record import ResultSpec
from bench.store.store import Store

ONE, OTHER = [[40_000, 0], [0, 40_000]], [[40_000, 0], [1, 39_999]]


def between(tmp_path: Path) -> Agreement:
    (found,) = agreements(*(Store(tmp_path / name).cells() for name in ("a", "b")))
    return found


def test_equal_runs(tmp_path: Path) -> None:
    for name in ("a", "b"):
        stored(tmp_path / name, "clip", "loveda", [ONE, OTHER])
    found = between(tmp_path)
    assert (found.words, found.points, found.images, found.alone) == ("equal counts", 0, 2, 0)


def test_pixels_that_moved_in_several_images_do_not_cancel_out(tmp_path: Path) -> None:
    stored(tmp_path / "a", "clip", "loveda", [ONE, OTHER])
    stored(tmp_path / "b", "clip", "loveda", [OTHER, ONE])
    found = between(tmp_path)
    assert found.classes == found.bins == pytest.approx(2 / 160_000 * 1e6)
    assert found.first == found.second and found.good and "12.5 pixels in a million" in found.words


def test_code_under_its_earlier_hash_is_the_same_code(tmp_path: Path) -> None:
    earlier, code = next(iter(shipped_codes(shipped(EARLIER_HASHES)).items()))
    for name, found, weights in (("a", earlier, "w"), ("b", code, "w"), ("c", code, "v")):
        upsampler = f"weights of {weights}, {found}"
        inputs = {**INPUTS, "plug-in": found, "upsampler": upsampler}
        stored(tmp_path / name, "clip", "loveda", [ONE], inputs=inputs)
    assert between(tmp_path).words == "equal counts" and not between(tmp_path).changed
    (other,) = agreements(*(Store(tmp_path / name).cells() for name in ("a", "c")))
    assert other.changed == ("upsampler changed",)


def test_only_bins_moved(tmp_path: Path) -> None:
    keys, counts = certain(ONE)
    for name, shift in (("a", 0), ("b", 1)):
        writer = opened(Store(tmp_path / name), 1, classes=("x", "y"))
        writer.add(0, keys - np.int32(shift), counts)
        writer.finish()
    found = between(tmp_path)
    assert (found.bins, found.classes, found.points, found.good) == (1e6, 0, 0, False)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"images": [[[39_990, 10], [0, 40_000]]]},
            "125.0 in another hundredth, more than ties move",
        ),
        ({"images": [[[39_999, 0], [0, 40_001]]]}, "other labels in 1 of 1 images"),
        ({"inputs": {**INPUTS, "plug-in": "dd"}}, "not the same thing: plug-in changed"),
        ({"changes": {"threshold": 0.5}}, "not the same thing: threshold 0.0 -> 0.5"),
    ],
)
def test_what_keeps_two_runs_apart(changes: dict, words: str, tmp_path: Path) -> None:
    stored(tmp_path / "a", "clip", "loveda", [ONE])
    stored(tmp_path / "b", "clip", "loveda", **{"images": [ONE], **changes})
    found = between(tmp_path)
    assert found.words.endswith(words) and found.good == words.startswith("not the same")


def test_little_is_said_of_ties_where_less_than_float32_was_used(tmp_path: Path) -> None:
    for moved, good in ((1_000, True), (5_000, False)):
        for name, image in (("a", ONE), ("b", [[40_000 - moved, moved], [0, 40_000]])):
            stored(tmp_path / name, "clip", "loveda", [image], inputs={**INPUTS, "dtype": "bf16"}, fresh=True)
        found = between(tmp_path)
        assert found.good == good
        assert found.words.endswith("in another hundredth, " + ("rounded" if good else "more than rounding moves"))


def test_images_that_one_run_lacks_are_left_out(tmp_path: Path) -> None:
    stored(tmp_path / "a", "clip", "loveda", [ONE, OTHER])
    stored(tmp_path / "b", "clip", "loveda", [ONE], total=2)
    found = between(tmp_path)
    assert (found.images, found.alone, found.words) == (1, 1, "equal counts")
    for name, number in (("c", 0), ("d", 1)):
        writer = opened(Store(tmp_path / name), 2, classes=("class0", "class1"))
        writer.add(number, *certain(ONE))
        writer.finish()
    (found,) = agreements(*(Store(tmp_path / name).cells() for name in ("c", "d")))
    assert (found.words, found.good) == ("no image that both counted", False)


def test_other_classes_and_images_without_pixels(tmp_path: Path) -> None:
    stored(tmp_path / "a", "clip", "loveda", [ONE])
    stored(tmp_path / "b", "clip", "loveda", [[[1, 0, 0], [0, 1, 0], [0, 0, 1]]])
    assert between(tmp_path).words == "not the same thing: classes changed"
    one = ResultSpec(**{**vars(spec(1)), "images": names(1)})
    for name in ("c", "d"):
        writer = Store(tmp_path / name).open(one)
        writer.add(0, np.zeros(0, np.int32), np.zeros(0, np.int64))
        writer.finish()
    (found,) = agreements(*(Store(tmp_path / name).cells() for name in ("c", "d")))
    assert (found.words, found.bins) == ("equal counts", 0)


def test_verify_of_two_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    for name, image in ((a, ONE), (b, OTHER)):
        stored(Path(name), "clip", "loveda", [image])
        stored(Path(name), "clip", "loveda", [ONE], limit=1)
    stored(tmp_path / "b", "sclip", "vdd", [ONE])
    assert main(["verify", a, b, "--json", str(tmp_path / "found.json")]) == 0
    told = capsys.readouterr().out
    assert "2 cells are in both; 0 are further apart than machines are" in told and "equal counts" in told
    assert [one["good"] for one in json.loads((tmp_path / "found.json").read_text())] == [True, True]
    stored(tmp_path / "b", "clip", "loveda", [[[20_000, 20_000], [0, 40_000]]], fresh=True)
    assert main(["verify", a, b]) == 1
    assert "more than ties move" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["goldns"], "'goldns' is nothing to verify, or half of A B; did you mean goldens?"),
        (["a", "nowhere"], "nowhere: no such folder; give two result folders"),
        (["a", "empty"], "no row on a dataset is in both"),
        (["a", "b", "c"], "verify a b c: give one thing"),
    ],
)
def test_mistakes_are_one_line(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    stored(tmp_path / "a", "clip", "loveda", [ONE])
    (tmp_path / "empty").mkdir()
    assert main(["verify", *words]) == 2
    told = capsys.readouterr().err
    assert message in told and told.count("\n") == 1
