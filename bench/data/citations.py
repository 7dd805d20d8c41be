"""BibTeX of what the cards say is to be cited, and of the papers of methods, upsamplers and models."""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from bench.data.cards import Card
from bench.runtime.yaml_files import read_yaml

_FILE = Path(__file__).resolve().parents[1] / "citations.yaml"
_ROLE = re.compile(r"^[a-z ]+: (?=[A-Z])")  # "validation set: ", before a further paper
_SPECIAL = re.compile("([&%#_])")  # of TeX
_MARKS = {"arXiv:": "eprint", "doi:": "doi"}


class _Entry(NamedTuple):
    key: str
    fields: Mapping[str, str]


def bibtex(cards: Iterable[Card], parts: Iterable[str] = ()) -> str:
    """Return an entry for each paper that the cards cite, and for those of some parts of rows, each once.

    parts: names of methods, upsamplers, refinements, backbones and second models; one without a known paper gives none.
    A card without a citation gives its address.
    """
    known = citations()
    entries = [entry for card in cards for entry in _of_card(card)]
    entries += [_paper(*known[part]) for part in parts if part in known]
    written: dict[str, str] = {}  # key -> entry
    for key, fields in entries:
        for letter in ("", *string.ascii_lowercase):  # of two papers of one author, year and first word
            text = _written(f"{key}{letter}", fields)
            if written.setdefault(f"{key}{letter}", text) == text:
                break
    return "\n".join(written.values())


def citations() -> dict[str, list[str]]:
    """Read the papers of the shipped parts of rows by name: authors, title, venue and year, arXiv number if known."""
    found: dict[str, list[str]] = read_yaml(_FILE, "the file of the package")
    return found


def _of_card(card: Card) -> Iterator[_Entry]:
    if card.citation is None:
        address = next(iter(card.sources), "")
        yield _Entry(card.name, {"title": card.title, "howpublished": f"\\url{{{address}}}" if address else ""})
        return
    for text in card.citation.split("; "):
        yield _of_text(card, _ROLE.sub("", text))


def _of_text(card: Card, text: str) -> _Entry:
    """Entry of one paper, "Authors, Title, Venue 2021, arXiv:2110.08733"; of any other text a note."""
    parts = text.split(", ")
    known = {key: part.removeprefix(mark) for part in parts for mark, key in _MARKS.items() if part.startswith(mark)}
    parts = [part for part in parts if not part.startswith(tuple(_MARKS))]
    names = next((at for at, part in enumerate(parts) if not _is_author(part)), 0)
    venue = ", ".join(parts[names + 1 :])
    if not names or not re.search(r"\b(19|20)\d\d\b", venue):
        return _Entry(card.name, {"title": card.title, "note": text})
    return _paper(", ".join(parts[:names]), parts[names], venue, **known)


def _paper(authors: str, title: str, venue: str, eprint: str = "", doi: str = "") -> _Entry:
    """Entry of a paper. authors: surnames, by commas; "" for unknown ones. venue: with the year."""
    year = re.findall(r"\b(?:19|20)\d\d\b", venue)[0]
    first = re.sub(r"\W", "", authors.partition(", ")[0].removesuffix(" et al.")).lower()
    word = re.findall(r"\w{3,}", title)[0].lower()
    names = [name.removesuffix(" et al.") for name in authors.split(", ")]
    author = " and ".join(f"{{{name}}}" if " " in name else name for name in names)
    fields = {"author": author + (" and others" if authors.endswith(" et al.") else ""), "title": f"{{{title}}}"}
    fields |= {"howpublished": venue, "year": year, "eprint": eprint, "doi": doi}
    return _Entry(f"{first}{year}{word}", fields | ({"archiveprefix": "arXiv"} if eprint else {}))


def _is_author(part: str) -> bool:
    """Return whether a part of a citation is a surname, or one and others: titles are longer."""
    return part.endswith(" et al.") or len(part.split()) < 3


def _written(key: str, fields: Mapping[str, str]) -> str:
    as_it_is = {name for name, value in fields.items() if name == "doi" or "\\url" in value}
    fields = fields if fields.get("author") else {"key": key, **fields}  # by which BibTeX sorts
    plain = {name: value if name in as_it_is else _SPECIAL.sub(r"\\\1", value) for name, value in fields.items()}
    lines = [f"  {name} = {{{value}}}," for name, value in plain.items() if value]
    return "\n".join([f"@misc{{{key},", *lines, "}"])
