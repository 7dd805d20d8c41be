"""Path patterns."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.data.patterns import expand, fields_of, fill, find, parse


class Shelf:
    """A tree of files that holds what a set of paths says."""

    def __init__(self, *paths: str) -> None:
        self.folders: dict[str, dict[str, str | None]] = {"": {}}
        for path in paths:
            *folders, name = path.split("/")
            for depth, folder in enumerate(folders):
                self.folders.setdefault("/".join(folders[:depth]), {})[folder] = None
            self.folders.setdefault("/".join(folders), {})[name] = path

    def list(self, folder: str) -> dict[str, str | None]:
        return self.folders.get(folder, {})


def test_expand_gives_all_spellings_the_first_choices_first():
    assert expand("<a/|>img_{n}.<JPG|jpg>") == [
        "a/img_{n}.JPG",
        "a/img_{n}.jpg",
        "img_{n}.JPG",
        "img_{n}.jpg",
    ]
    assert expand("plain.png") == ["plain.png"]


def test_fields_come_in_order_and_once():
    assert list(fields_of("{region}/images/{region}_{n}.tif")) == ["region", "n"]


def test_find_reads_fields_off_the_path():
    shelf = Shelf(
        "koeln/images/koeln_1.tif",
        "koeln/labels/koeln_1.tif",
        "bonn/images/koeln_2.tif",
        "bonn/images/bonn_x.tif",
    )
    found = list(find(shelf, "{region}/images/{region}_{n}.tif", {"n": r"\d+"}))
    assert found == [({"region": "koeln", "n": "1"}, "koeln/images/koeln_1.tif")]


def test_a_field_that_occurs_twice_in_a_name_repeats_its_value():
    shelf = Shelf("a-a.png", "a-b.png")
    assert list(find(shelf, "{x}-{x}.png", {})) == [({"x": "a"}, "a-a.png")]


def test_folders_are_no_files_and_files_no_folders():
    shelf = Shelf("1.png/inside.txt", "images")
    assert list(find(shelf, "{n}.png", {})) == []
    assert list(find(shelf, "images/{n}.png", {})) == []


def test_signs_of_regular_expressions_are_plain_text():
    shelf = Shelf("1. The (cropped)/x.tif", "1x The (cropped)/y.tif")
    assert [path for _, path in find(shelf, "1. The (cropped)/{n}.tif", {})] == ["1. The (cropped)/x.tif"]


@pytest.mark.parametrize("spelled", [f"Dataset {sign} (Asia)" for sign in ("Ⅱ", "II", "ó≥", "\udca2\udcf2")])
def test_signs_beyond_ascii_are_spelled_in_many_ways(spelled):
    found = find(Shelf(f"{spelled}/test/x.TIFF", "Dataset I/test/y.tif"), "Dataset Ⅱ (Asia)/test/{n}.tif", {})
    assert [fields for fields, _ in found] == [{"n": "x"}]


def test_parse_is_the_inverse_of_fill():
    pattern = "{tile}_{x0}_{y0}"
    values = {"tile": "2_13", "x0": "-512", "y0": "0"}
    assert parse(pattern, fill(pattern, values), {"tile": r"\d+_\d+"}) == values
    assert parse(pattern, "2_13_a_0", {"tile": r"\d+_\d+"}) is None


@given(st.dictionaries(st.sampled_from("abc"), st.text("xyz.+(", min_size=1, max_size=4), min_size=3))
def test_what_was_filled_in_is_found(values):
    path = fill("{a}/{b}-{c}.png", values)
    assert ({**values}, path) in [(fields, file) for fields, file in find(Shelf(path), "{a}/{b}-{c}.png", {})]


@pytest.mark.parametrize("pattern", ["{x0}.png", "{y1}.png"])
def test_coordinates_are_whole_numbers(pattern):
    assert not list(find(Shelf("a.png"), pattern, {}))
    assert list(find(Shelf("-96.png"), pattern, {}))
