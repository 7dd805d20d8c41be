"""Path patterns: where a card's files are, and how one sample's names are spelled.

    <Val|val>/{area}/images_png/{n}.png

`<a|b>` are spellings of literal text, tried in this order; one may be empty, and may hold a slash. `{name}`
is a field: it matches the regular expression that the card gives for it, else any text without a slash.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Protocol, TypeVar

COORDINATES = ("x0", "y0", "x1", "y1")  # fields of a tile: its box in the scene, pixels
_FIELD = re.compile(r"{(\w+)}")
_CHOICE = re.compile(r"<([^<>]*)>")
T_co = TypeVar("T_co", covariant=True)


class Listing(Protocol[T_co]):
    """A tree of files: what is in a folder (name -> file, or None for a folder)."""

    def list(self, folder: str) -> Mapping[str, T_co | None]: ...


def expand(pattern: str) -> list[str]:
    """All spellings of a pattern, the first choices first."""
    parts = _CHOICE.split(pattern)  # literal, choices, literal, choices, …
    options = [part.split("|") if at % 2 else [part] for at, part in enumerate(parts)]
    return ["".join(chosen) for chosen in itertools.product(*options)]


def fields_of(pattern: str) -> dict[str, None]:
    """Names of the fields in a pattern: an ordered set, as they come."""
    return dict.fromkeys(_FIELD.findall(pattern))


def fill(pattern: str, values: Mapping[str, str]) -> str:
    """Return the pattern with its fields filled in."""
    return _FIELD.sub(lambda field: values[field[1]], pattern)


def parse(pattern: str, text: str, regexes: Mapping[str, str]) -> dict[str, str] | None:
    """Return the fields that make the pattern spell `text`; None if none do. The inverse of `fill`."""
    found = re.fullmatch(_regex(pattern, regexes, {}), text)
    return found.groupdict() if found else None


def find(
    tree: Listing[T_co],
    spelling: str,
    regexes: Mapping[str, str],
    folder: str = "",
    known: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[tuple[dict[str, str], T_co]]:
    """Files of the tree whose path one spelling of a pattern matches, with the fields read off the path."""
    first, _, rest = spelling.partition("/")
    listing = tree.list(folder)
    if fields_of(first).keys() <= known.keys():
        name = fill(first, known)
        matches = [(name, dict[str, str]())] if name in listing else []
    else:
        expression = re.compile(_regex(first, regexes, known))
        matches = [
            (name, m.groupdict()) for name in sorted(listing) if (m := expression.fullmatch(_plain(name, first)))
        ]
    for name, values in matches:
        file = listing[name]
        path = f"{folder}/{name}" if folder else name
        if rest and file is None:
            yield from find(tree, rest, regexes, path, {**known, **values})
        elif not rest and file is not None:
            yield {**known, **values}, file


def _plain(name: str, pattern: str) -> str:
    """Return the name with the pattern's letter case in its ending, so that D1.JPG and D2.jpg both match."""
    _, dot, wanted = pattern.rpartition(".")
    stem, _, ending = name.rpartition(".")
    return f"{stem}.{wanted}" if dot and ending.lower() == wanted.lower() else name


def _regex(pattern: str, regexes: Mapping[str, str], known: Mapping[str, str]) -> str:
    """Regular expression of a pattern; a field that is known or occurs twice must repeat its value."""
    parts = _FIELD.split(pattern)  # literal, field, literal, field, …
    seen: set[str] = set()
    expression = ""
    for at, part in enumerate(parts):
        if at % 2 == 0:
            expression += re.escape(part)
        elif part in known:
            expression += re.escape(known[part])
        elif part in seen:
            expression += f"(?P={part})"
        else:
            default = r"-?\d+" if part in COORDINATES else "[^/]+"
            expression += f"(?P<{part}>{regexes.get(part, default)})"
            seen.add(part)
    return expression
