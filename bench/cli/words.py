"""Classes that a user gives: words on the command line, or a file of words and colours. Imports no torch."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from PIL import ImageColor

from bench.errors import BenchError, reading
from bench.inference.visualize import Colour
from bench.runtime.yaml_files import read_yaml

_YAML: Final = (".yaml", ".yml", ".json")
_TEXT: Final = (".txt", ".csv")
_COLOURS: Final = ("colour", "color")


class OwnClasses(NamedTuple):
    """Words of classes, as `Vocabulary.parse` reads them, and their colours where a file gives one to each."""

    words: str
    colours: tuple[Colour, ...] | None = None


def read_classes(text: str) -> OwnClasses:
    """Read what --classes says: "background; road; building, house", or the file that it names.

    A text file has a class on each line, synonyms by commas, "#" before comments. A CSV file with a column `words` may
    have a column `colour`. A YAML file is a list, whose entries are words, lists of words, or {words: …, colour: …}.
    BenchError for a file that is none of these, and for a single class.
    """
    classes: list[str] = [part for part in text.split(";") if part.strip()]
    colours: list[Any] = []
    ending = Path(text).suffix.lower()
    if ending in _YAML:
        classes, colours = _of_yaml(Path(text))
    elif ending in _TEXT or text.endswith("/"):
        with reading(f"--classes {text}", "give a text, CSV or YAML file, or words as in 'background; road'"):
            lines = [line for line in Path(text).read_text(encoding="utf-8-sig").splitlines() if line.strip()]
        columns = lines[0].casefold() if lines and ending == ".csv" else ""
        separator = next((sign for sign in ",;\t" if sign in columns), ",")  # that of the office program's language
        if "words" in next(csv.reader([columns], delimiter=separator), ()):
            rows = list(csv.DictReader([columns, *lines[1:]], delimiter=separator))
            classes, colours = [row["words"] or "" for row in rows], [_colour(row) for row in rows]
        else:
            classes = [line for line in (line.partition("#")[0].strip() for line in lines) if line]
    if len(classes) < 2:
        raise BenchError(
            f"--classes '{text}': one class, which every pixel would get; separate classes by semicolons, synonyms "
            "by commas, as in 'background; road; building, house'"
        )
    words = text if ending not in (*_YAML, *_TEXT) else ";".join(classes)
    return OwnClasses(words, _colours(colours, len(classes), text))


def _of_yaml(file: Path) -> tuple[list[str], list[Any]]:
    entries = read_yaml(file, "a text, CSV or YAML file of classes, or words as in 'background; road'")
    if not isinstance(entries, list):
        raise BenchError(f"--classes {file}: not a list of classes; write one class after each dash")
    words = [one.get("words") if isinstance(one, dict) else one for one in entries]
    found: list[list[Any]] = [one if isinstance(one, list) else [one] for one in words]
    for one in (one for some in found for one in some if not isinstance(one, str)):
        raise BenchError(f"--classes {file}: '{one}' is no word; write road, [road, street] or {{words: road}}")
    return [", ".join(some) for some in found], [_colour(one) if isinstance(one, dict) else None for one in entries]


def _colour(entry: dict[str, Any]) -> Any:
    return next((entry[name] for name in _COLOURS if entry.get(name)), None)


def _colours(given: Sequence[Any], count: int, text: str) -> tuple[Colour, ...] | None:
    """Read colours such as #ff0000 or red; None where no class has one."""
    if not any(given):
        return None
    if len(given) != count or not all(given):
        raise BenchError(f"--classes {text}: some classes have a colour and some have none; give one to each")
    found: list[Colour] = []
    for colour in given:
        try:
            red, green, blue = ImageColor.getrgb(str(colour))[:3]
        except ValueError:
            raise BenchError(f"--classes {text}: '{colour}' is no colour; write #ff0000 or red") from None
        found.append((red, green, blue))
    return tuple(found)
