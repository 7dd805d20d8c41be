"""Are the results right that others submit to a board? Their source is read, and never imported or run."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

from bench import __version__
from bench.config import Config, base_name, load_config
from bench.data.cards import Card
from bench.errors import BenchError, one_line
from bench.paths import shipped
from bench.registry import Method, earlier_hashes, find_refinement, load_methods, source_hash
from bench.report.verdict import AS_CONFIGURED, Facts, card_of, columns, facts, verdict
from bench.settings import EXTERNAL
from bench.store.agreement import agreement
from bench.store.record import RECORD
from bench.store.result import StoredResult, cell_folder
from bench.store.submission import (
    SUBMISSIONS,
    accepted_cells,
    carried_code,
    codes,
    read_cells,
    shown,
    submissions,
)

_LONGEST: Final = 500  # characters of a text that tables show
Claims: TypeAlias = dict[tuple[str, ...], dict[str, str]]
"""What submissions say of names that do not ship: of what -> what it is -> who said so first."""


@dataclass(frozen=True)
class Board:
    """A board's folder, or a clone of it.

    demo: it holds results of the demo, and no others.
    replaced: name -> a folder that stands for the one of that name, such as one that is still to be submitted.
    """

    folder: Path
    demo: bool = False
    replaced: Mapping[str, Path] = field(default_factory=dict)

    @cached_property
    def submissions(self) -> dict[str, Path]:
        """Folder of each submission."""
        return dict(sorted({**submissions(self.folder), **self.replaced}.items()))

    @property
    def overlay(self) -> Path | None:
        """The board's own file over benchmark.yaml, which names rows and tables beyond the shipped ones."""
        return found if (found := self.folder / "benchmark.yaml").is_file() else None

    @cached_property
    def config(self) -> Config:
        """What its rows are held against."""
        return load_config(self.overlay)

    @cached_property
    def methods(self) -> dict[str, Method]:
        """Methods that are installed here; what is submitted is none of them."""
        return load_methods()

    @property
    def cards(self) -> list[Path]:
        """Folder of the cards of its further datasets, if it has any."""
        return [found] if (found := self.folder / "datasets").is_dir() else []


class Checked(NamedTuple):
    """What a check found.

    faults: what is wrong, a line each that begins with the place.
    cells: of each submission that was checked, those that are sound in themselves.
    """

    faults: list[str]
    cells: Mapping[str, Sequence[StoredResult]]


def check(board: Board, only: Collection[str] | None = None) -> Checked:
    """Check submissions: files, schema, hashes, source, verdict, and one against another.

    only: names of those that are checked, beside the others; None for all.
    """
    names = [name for name in board.submissions if only is None or name in only]
    read = {name: read_cells(name, board.submissions[name], board.demo) for name in names}
    cells = {name: found for name, (found, _) in read.items()}
    stored = cells | {name: accepted_cells(place) for name, place in board.submissions.items() if name not in read}
    claims: Claims = {}
    for whose, cell in [(name, cell) for name, found in stored.items() for cell in found]:
        for claim, thing in _claims(cell, board):
            claims.setdefault(claim, {}).setdefault(thing, whose)
    cards = {cell.dataset: card_of(cell.dataset, board.cards) for found in cells.values() for cell in found}
    known = {  # replace(cell): so that the counts which it reads are freed with it
        name: [
            (cell, facts(replace(cell), board.config, cards[cell.dataset]))
            for cell in found
            if cell.dataset in cards and not cell.damage
        ]
        for name, found in stored.items()
    }
    judged = columns([pair for pairs in known.values() for pair in pairs], board.config, cards)
    faults = []
    for name in names:
        faults += [*read[name][1], *_unused(name, board.submissions[name], cells[name])]
        others = {other: pairs for other, pairs in known.items() if other != name}
        of_others = columns([pair for pairs in others.values() for pair in pairs], board.config, cards)
        for cell, of_cell in known[name]:
            column = judged[cell.dataset, board.demo]
            usual = of_others.get((cell.dataset, board.demo), column)  # nobody outvotes the others
            configured = usual.usual and replace(usual.usual, backbone=AS_CONFIGURED)
            found = verdict(cell, replace(column, usual=configured, weights=usual.weights), of_cell)
            wrong = [
                *([] if found.ranked else [found.words]),
                *_against_card(name, replace(cell), cards[cell.dataset]),
                *_against_texts(cell, board),
                *_against_source(cell, board, board.submissions[name]),
                *_against_others(cell, others),
                *_against_claims(name, cell, board, claims),
            ]
            faults += [f"{SUBMISSIONS}/{name}: {cell.row} on {cell.dataset}: {one_line(one)}" for one in wrong]
    return Checked(faults, {name: cells[name] for name in names})


def _unused(name: str, folder: Path, cells: Sequence[StoredResult]) -> Iterator[str]:
    used = {cell_folder(one, "methods").name for cell in cells for one in codes(cell)}
    for place in sorted(folder.glob("methods/*")):
        if place.name not in used:
            yield f"{SUBMISSIONS}/{name}/methods/{shown(place.name)}: no sound cell was counted by it; remove it"


def _against_card(name: str, cell: StoredResult, card: Card | None) -> Iterator[str]:
    if card is None:
        file = f"{SUBMISSIONS}/{name}/datasets/{cell.dataset}.yaml"
        yield f"the board has no such dataset; who keeps it copies {file} into its datasets/, if it is wanted"
        return
    if cell.classes != card.classes:
        yield f"its classes are not the {len(card.classes)} of the dataset's card"
    if cell.metric != card.metric:
        yield f"it is scored by {cell.metric}, the dataset's card says {card.metric}"
    if cell.scenes != [card.scene_of(name) for name in cell.ids]:
        yield "its scenes are not those of the dataset's card"
    if cell.info.layout not in card.layouts:
        yield f"layout '{cell.info.layout}' is none of the dataset's card"


def _against_texts(cell: StoredResult, board: Board) -> Iterator[str]:
    """Say what is wrong with the texts that tables show of it, such as the name of another row of benchmark.yaml."""
    for key, text in cell.info.model_dump().items():
        if len(str(text)) > _LONGEST:
            yield f"info.{key} has {len(str(text)):,} characters, at most {_LONGEST:,} are taken"
    rows = [(name, row, board.methods.get(row.method)) for name, row in board.config.rows.items()]
    titles = {name: row.title(method.label) for name, row, method in rows if method}
    label = one_line(cell.info.label or cell.row)  # as tables print it
    same = [name for name, title in titles.items() if title == label]
    if titles.get(cell.row, label) != label:
        yield f"is called '{label}' in tables, and the row {cell.row} is called '{titles[cell.row]}'"
    elif same and cell.row not in same:
        yield f"is called '{label}' in tables, as the row {same[0]} is; give it another label"
    elif cell.settings.method == EXTERNAL and base_name(cell.row) in {*board.config.rows, *board.methods}:
        yield f"another program made its label maps; score them under a --row that is not called {base_name(cell.row)}"


def _against_source(cell: StoredResult, board: Board, folder: Path) -> Iterator[str]:
    """Say whether the code that counted it is not the one that ships, or that is carried."""
    for name, code in codes(cell).items():
        ships, carried = shipped_hashes(name, board.methods), carried_code(folder, name)
        if ships:
            method, stated = board.methods.get(name), cell.info.method_defaults
            if code not in ships:
                yield f"was not counted by the '{name}' of ovss-bench {__version__}; count it again with this version"
            elif method and stated != method.stated_defaults:
                yield f"states other defaults of '{name}' than it has in ovss-bench {__version__}"
            elif carried is not None:
                yield f"methods/{name}/ is not needed, for '{name}' ships; remove it"
        elif carried is None:
            yield f"the source of '{name}' is missing; `bench submit … --plugin FILE` adds it"
        elif carried != code:
            yield f"methods/{name}/ is not the source that counted it; submit that one, or count again"


def _against_others(cell: StoredResult, others: Mapping[str, Sequence[tuple[StoredResult, Facts]]]) -> Iterator[str]:
    """Hold it against the runs of the same cell by others."""
    own = (cell.pieces[0].folder / RECORD).read_bytes()
    for name, known in others.items():
        for other, _ in known:
            if (other.row, other.dataset) != (cell.row, cell.dataset):
                continue
            found = agreement(replace(other), replace(cell))
            if (other.pieces[0].folder / RECORD).read_bytes() == own:
                yield f"its {RECORD} is a copy of {name}'s, and no second run"
            elif found.changed:
                yield f"{name} has another cell of this name ({', '.join(found.changed)}); give the row another name"
            elif not found.good:
                yield f"{found.points:.2f} points from {name}'s run, {found.words}; one of the two is wrong"


def _claims(cell: StoredResult, board: Board) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield what a cell says of names that do not ship: what of which name, and what that is."""
    label, method = one_line(cell.info.label or cell.row), cell.settings.method
    own = {name: code for name, code in codes(cell).items() if not shipped_hashes(name, board.methods)}
    if own or method == EXTERNAL:
        yield ("row called", label), cell.row
    if method in own:
        yield ("set of defaults of", method, own[method]), json.dumps(cell.info.method_defaults, sort_keys=True)
    for name, code in own.items():
        yield ("source of", name), code


def _against_claims(name: str, cell: StoredResult, board: Board, claims: Claims) -> Iterator[str]:
    """Hold what it says of names against all that the board has, so that each name stands for one thing."""
    for claim, thing in _claims(cell, board):
        for other, whose in claims[claim].items():
            if other != thing and (whose != name or len(claim) > 2):  # `_against_source` knows its own
                yield f"{whose} has another {claim[0]} '{claim[1]}'; give yours another name"


def shipped_hashes(name: str, methods: Mapping[str, Method]) -> set[str]:
    """Return the hashes by which results know a shipped method or refinement; none for what does not ship."""
    file = file_of(name, methods)
    ships = file is not None and file.resolve().is_relative_to(shipped("methods").resolve())
    return {source_hash(file), *earlier_hashes(file)} if file and ships else set()


def file_of(name: str, methods: Mapping[str, Method]) -> Path | None:
    """Return the file of a method or refinement; None where there is no such."""
    if name in methods:
        return methods[name].file
    with contextlib.suppress(BenchError):
        return find_refinement(name).file
    return None
