"""BibTeX of what the cards say is to be cited."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from bench.data.cards import Card

_ROLE = re.compile(r"^[a-z ]+: (?=[A-Z])")  # "validation set: ", before a further paper
_SPECIAL = re.compile("([&%#_])")  # of TeX
_MARKS = {"arXiv:": "eprint", "doi:": "doi"}


def bibtex(cards: Iterable[Card]) -> str:
    """Return an entry for each paper that the cards cite, once; a card without a citation gives its address."""
    entries = {entry: None for card in cards for entry in _entries(card)}
    return "\n".join(entries)


def _entries(card: Card) -> Iterator[str]:
    if card.citation is None:
        address = next(iter(card.sources), "")
        yield _written(card.name, {"title": card.title, "howpublished": f"\\url{{{address}}}" if address else ""})
        return
    for text in card.citation.split("; "):
        yield _entry(card, _ROLE.sub("", text))


def _entry(card: Card, text: str) -> str:
    """Entry of one paper, "Authors, Title, Venue 2021, arXiv:2110.08733"; of any other text a note."""
    parts = text.split(", ")
    known = [(key, part.removeprefix(mark)) for part in parts for mark, key in _MARKS.items() if part.startswith(mark)]
    parts = [part for part in parts if not part.startswith(tuple(_MARKS))]
    names = next((at for at, part in enumerate(parts) if not _is_author(part)), 0)
    venue = ", ".join(parts[names + 1 :])
    year = re.search(r"\b(19|20)\d\d\b", venue)
    if not names or not year:
        return _written(card.name, {"title": card.title, "note": text})
    authors = " and ".join(parts[:names]).replace(" et al.", " and others")
    first = re.sub(r"\W", "", parts[0].removesuffix(" et al.")).lower()
    word = re.findall(r"\w{3,}", parts[names])[0].lower()
    fields = {"author": authors, "title": f"{{{parts[names]}}}", "howpublished": venue, "year": year[0], **dict(known)}
    return _written(f"{first}{year[0]}{word}", fields | ({"archiveprefix": "arXiv"} if "eprint" in fields else {}))


def _is_author(part: str) -> bool:
    """Return whether a part of a citation is a surname, or one and others: titles are longer."""
    return part.endswith(" et al.") or len(part.split()) < 3


def _written(key: str, fields: dict[str, str]) -> str:
    as_it_is = {name for name, value in fields.items() if name == "doi" or "\\url" in value}
    plain = {name: value if name in as_it_is else _SPECIAL.sub(r"\\\1", value) for name, value in fields.items()}
    lines = [f"  {name} = {{{value}}}," for name, value in plain.items() if value]
    return "\n".join([f"@misc{{{key},", *lines, "}"])
