"""A cell that is counted again keeps its previous score and says what changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from store_helpers import INPUTS, as_before_checksums, certain, edit, opened, settings, spec, the_cell

from bench.cli import main
from bench.metrics import score
from bench.store.history import KEPT, sentence
from bench.store.store import Store

GOOD, FAIR = [[40, 0], [0, 40]], [[20, 20], [0, 40]]


def put(
    folder: Path, confusion: list[list[int]] = GOOD, images: int = 2, upto: int | None = None, **options: Any
) -> None:
    """A cell of equal images; `upto` fewer of them leave it unfinished, as a killed run does."""
    writer = opened(Store(folder), images, classes=("background", "object"), **options)
    for index in range(images if upto is None else upto):
        if index not in writer.done:
            writer.add(index, *certain(confusion, 50))
    if upto is None:
        writer.finish()
    else:
        writer.flush()


def told(folder: Path) -> list[str]:
    """The history in words, without the dates."""
    history = the_cell(Store(folder)).record.history
    assert all(len(one.until) == 25 and one.until >= one.written for one in history)
    return [sentence(one).replace(one.until[:10], "DAY") for one in history]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"inputs": INPUTS | {"vocabulary": "new"}}, "words changed"),
        ({"inputs": INPUTS | {"weights": "new"}}, "weights changed"),
        ({"inputs": INPUTS | {"card": "new"}}, "dataset card changed"),
        ({"inputs": INPUTS | {"harness": "2"}}, "code that counts changed"),
        ({"settings": settings(debias=0.3)}, "debias 0.0 -> 0.3"),
        ({"settings": settings(threshold=0.6)}, "threshold 0.0 -> 0.6"),
        ({"images": 3, "inputs": INPUTS | {"data list": "new"}}, "2 -> 3 images"),
        ({"fresh": True}, "counted again from the start (--fresh)"),
    ],
)
def test_what_changed_is_said(tmp_path: Path, changes: dict[str, Any], text: str) -> None:
    put(tmp_path, FAIR)
    assert told(tmp_path) == []
    put(tmp_path, GOOD, **changes)
    # background 20 of 40, object 40 of 60
    assert told(tmp_path) == [f"was 58.33 until DAY: {text}"]
    (previous,) = the_cell(Store(tmp_path)).record.history
    assert (previous.score, previous.counted, previous.total) == (pytest.approx((1 / 2 + 2 / 3) / 2), 2, 2)


def test_changed_code_names_both_commits(tmp_path: Path) -> None:
    put(tmp_path)
    file = tmp_path / "cells/loveda/sclip/cell.json"
    edit(file, made_with={"commit": "0123456789abcdef"})
    put(tmp_path, inputs=INPUTS | {"plug-in": "new"})
    now = str(the_cell(Store(tmp_path)).record.made_with["commit"])[:9]
    also = f"; commit 012345678 -> {now}" if now else ""
    assert told(tmp_path) == [f"was 100.00 until DAY: code of the method changed{also}"]


def test_changed_labels_are_counted(tmp_path: Path) -> None:
    for contents in (("a", "b"), ("a", "c")):
        writer = Store(tmp_path).open(replace(spec(2, classes=("background", "object")), contents=contents))
        for index in {0, 1} - writer.done:
            writer.add(index, *certain(GOOD), content=contents[index])
        writer.finish()
    assert told(tmp_path) == ["was 100.00 until DAY: images or labels changed (1 of 2)"]


def test_scores_follow_each_other(tmp_path: Path) -> None:
    for weights, confusion in (("a", FAIR), ("b", GOOD), ("a", FAIR)):
        put(tmp_path, confusion, inputs=INPUTS | {"weights": weights})
    assert told(tmp_path) == ["was 58.33 until DAY: weights changed", "was 100.00 until DAY: weights changed"]


def test_going_on_adds_nothing(tmp_path: Path) -> None:
    put(tmp_path)
    put(tmp_path)
    assert told(tmp_path) == []
    new = INPUTS | {"weights": "new"}
    for upto in (1, 2, None):  # killed twice, the second time before its end
        put(tmp_path, FAIR, upto=upto, inputs=new)
        assert told(tmp_path) == ["was 100.00 until DAY: weights changed"]


def test_a_change_of_mind_adds_nothing(tmp_path: Path) -> None:
    put(tmp_path)
    put(tmp_path, upto=0, inputs=INPUTS | {"weights": "new"})
    put(tmp_path)
    assert told(tmp_path) == []


def test_the_same_counts_from_the_start_add_nothing(tmp_path: Path) -> None:
    put(tmp_path)
    put(tmp_path, fresh=True)
    assert told(tmp_path) == []


def test_a_gap_keeps_the_score(tmp_path: Path) -> None:
    put(tmp_path)
    store = Store(tmp_path)
    for reason in ("no checkpoint", "still none"):
        store.record_gap(spec(2), "failed", reason)
    assert told(tmp_path) == ["was 100.00 until DAY: failed: no checkpoint"]
    put(tmp_path, FAIR, inputs=INPUTS | {"weights": "new"})
    assert told(tmp_path) == ["was 100.00 until DAY: weights changed"]


def test_a_gap_that_is_filled_as_before_leaves_no_trace(tmp_path: Path) -> None:
    put(tmp_path)
    Store(tmp_path).record_gap(spec(2), "failed", "no checkpoint")
    put(tmp_path)
    assert told(tmp_path) == []


def test_every_shard_knows_the_score_before(tmp_path: Path) -> None:
    put(tmp_path)
    file = tmp_path / "cells/loveda/sclip/cell.json"
    edit(file, written="2020-01-01T00:00:00+00:00")
    new = INPUTS | {"weights": "new"}
    for number in range(2):
        store = Store(tmp_path, shard=(number, 2))
        writer = opened(store, 2, indices=[number], classes=("background", "object"), inputs=new)
        writer.add(number, *certain(FAIR))
        writer.finish()
        assert told(tmp_path) == ["was 100.00 until DAY: weights changed"]
    put(tmp_path, GOOD, inputs=INPUTS | {"weights": "newer"})  # the score of two shards is that of both
    assert told(tmp_path)[1:] == ["was 58.33 until DAY: weights changed"]


def test_the_oldest_are_dropped(tmp_path: Path) -> None:
    for number in range(KEPT + 3):
        put(tmp_path, inputs=INPUTS | {"weights": str(number)})
    history = the_cell(Store(tmp_path)).record.history
    assert [one.inputs["weights"] for one in history] == [str(number) for number in range(2, KEPT + 2)]


def test_records_without_a_history_are_read(tmp_path: Path) -> None:
    put(tmp_path)
    as_before_checksums(tmp_path / "cells/loveda/sclip/cell.json", without="history")
    cell = the_cell(Store(tmp_path))
    assert cell.record.history == [] and score(cell.areas().total, "miou") == 1.0
    put(tmp_path, FAIR, inputs=INPUTS | {"weights": "new"})
    assert told(tmp_path) == ["was 100.00 until DAY: weights changed"]


def test_an_undefined_score_is_named_so(tmp_path: Path) -> None:
    put(tmp_path, [[0, 0], [0, 0]])
    put(tmp_path, GOOD, inputs=INPUTS | {"weights": "new"})
    assert told(tmp_path) == ["was undefined until DAY: weights changed"]


def test_show_prints_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path, FAIR)
    put(tmp_path, GOOD, inputs=INPUTS | {"vocabulary": "new"})
    assert main(["show", "sclip", "loveda", "--results", str(tmp_path)]) == 0
    assert "58.33 until" in (text := capsys.readouterr().out) and ": words changed" in text
