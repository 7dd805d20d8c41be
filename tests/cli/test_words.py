"""Classes from the command line and from files."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.cli.words import read_classes
from bench.errors import BenchError
from bench.models.text import Vocabulary

RED_AND_BLUE = ((255, 0, 0), (0, 0, 255))
FILES = {
    "words.txt": ("road, street\n# a comment\n\nwater  # and another\n", None),
    "plain.csv": ("road, street\nwater\n", None),
    "table.csv": ('words,colour\n"road, street",#ff0000\nwater,blue\n', RED_AND_BLUE),
    "office.csv": ("Words;Colour\nroad, street;#ff0000\nwater;blue\n", RED_AND_BLUE),
    "list.yaml": ("- road, street\n- water\n", None),
    "lists.yml": ("- [road, street]\n- [water]\n", None),
    "colours.yaml": (
        "- {words: [road, street], colour: red}\n- {words: water, color: '#0000ff'}\n",
        RED_AND_BLUE,
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_files(name: str, tmp_path: Path) -> None:
    text, colours = FILES[name]
    (tmp_path / name).write_text(text)
    found = read_classes(str(tmp_path / name))
    assert Vocabulary.parse(found.words).words == [["road", "street"], ["water"]] and found.colours == colours


MISTAKES = {
    "one.yaml": ("- road, street\n", "one class, which every pixel would get"),
    "map.yaml": ("road: street\n", "not a list of classes"),
    "number.yaml": ("- 1\n- water\n", "'1' is no word"),
    "nothing.yaml": ("- {word: road}\n- water\n", "'None' is no word"),
    "broken.yaml": ("- [road\n", "broken.yaml"),
    "some.csv": ("words,colour\nroad,red\nwater,\n", "some classes have a colour and some have none"),
    "odd.csv": ("words,colour\nroad,red\nwater,reddish\n", "'reddish' is no colour"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(name: str, tmp_path: Path) -> None:
    text, message = MISTAKES[name]
    (tmp_path / name).write_text(text)
    with pytest.raises(BenchError, match=message) as raised:
        read_classes(str(tmp_path / name))
    assert "\n" not in str(raised.value)
