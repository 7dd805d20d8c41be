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
_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]+")
_SAME_ENDINGS = {"jpeg": "jpg", "tiff": "tif"}
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
        name = same_name(fill(first, known), listing)
        matches = [(name, dict[str, str]())] if name is not None else []
    else:
        expression = re.compile(_regex(first, regexes, known))
        _, dot, ending = first.rpartition(".")
        spelled = ((name, _with_ending(name, ending) if dot else name) for name in sorted(listing))
        matches = [(name, m.groupdict()) for name, plain in spelled if (m := expression.fullmatch(plain))]
    for name, values in matches:
        file = listing[name]
        path = f"{folder}/{name}" if folder else name
        if rest and file is None:
            yield from find(tree, rest, regexes, path, {**known, **values})
        elif not rest and file is not None:
            yield {**known, **values}, file


def same_name(name: str, listing: Mapping[str, object]) -> str | None:
    """Return how a folder spells a name; None where it does not hold it.

    A file may have another ending of the same kind; a folder other letter case, and other signs for those beyond
    ASCII, which programs spell in many ways.

    >>> same_name("a.tif", {"A.tif": 0, "a.TIFF": 0}), same_name("Val", {"VAL": None})
    ('a.TIFF', 'VAL')
    """
    if name in listing:
        return name
    stem, _, ending = name.rpartition(".")
    known = (ending.lower(), *_SAME_ENDINGS, *_SAME_ENDINGS.values())
    kinds = dict.fromkeys(kind for kind in known if stem and _kind(kind) == _kind(ending))
    for spelling in (f"{stem}.{case}" for kind in kinds for case in (kind, kind.upper())):
        if spelling in listing:
            return spelling
    like = re.compile(".+".join(map(re.escape, _BEYOND_ASCII.split(name))), re.IGNORECASE)
    return next((other for other in listing if listing[other] is None and like.fullmatch(other)), None)


def _with_ending(name: str, wanted: str) -> str:
    """Return the name with the wanted ending where its own is of the same kind: D1.JPG, D2.jpg and D3.jpeg."""
    stem, _, ending = name.rpartition(".")
    return f"{stem}.{wanted}" if ending != wanted and _kind(ending) == _kind(wanted) else name


def _kind(ending: str) -> str:
    return _SAME_ENDINGS.get(ending.lower(), ending.lower())


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
