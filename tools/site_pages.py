"""Pages of docs/ that mkdocs makes while it builds the site: from cards, parsers of commands, and heads of plug-ins."""

from __future__ import annotations

import ast
import io
import re
from collections.abc import Iterator
from contextlib import redirect_stdout, suppress
from typing import Any

from bench.cli.app import COMMANDS, parser_of
from bench.config import load_config
from bench.data.cards import Card, card_names, load_card
from bench.data.patterns import expand, fields_of, fill
from bench.data.schema import Layout
from bench.paths import shipped
from bench.report.published import method_facts
from bench.runtime.room import size_text

_DATASETS = """# Datasets

Made from the cards in `datasets/`.
What no readable source confirms is listed under "Unverified".

A dataset is in a folder below the data root (`--data-root`, else `$OVSS_BENCH_DATA`, else `./data`).
The folder is called as its section says or like the dataset itself; upper and lower case do not matter.
The first layout that is found is used, and named in the results.
Zip and tar archives count as unpacked where they are.
In the patterns below, `{n}` is whatever the files are called; of spellings `<a|b>` the first that exists is taken.

`python -m bench datasets` shows which of them are found, `python -m bench datasets check NAME` looks into one.
[Your data](adding-a-dataset.md) shows how to add one.
"""
_COMMANDS = """# Commands

Each section is the output of `python -m bench COMMAND -h`.
[How to …](how-to.md) starts from what you want to do.
"""
_METHODS = """# Methods

Each section is the head of a file in `methods/`: the rule, and what the authors' code does otherwise.
`python -m bench methods` lists options, second models, upsamplers, modifiers and licences.
[Which method](which-method.md) compares them.

A row is a method with its settings; modifiers follow a `+`.
`sclip+ours` has SimFeatUp and λ = 0.3, `naclip+pamr` refined scores (`+pamr-original`: at the original size).
`pearl+tlp` has PEARL's propagation.

`--methods all` stands for the ten rows of the paper, `newer` for the newer methods, `clip-only` for both.
`second-model` and `upsamplers` are the rows of the tables of that name, `everything` is all of them.

All rows share one protocol by default, so that methods are compared and not their settings.
Rows that end in `-authors` have the input of the authors' code on natural images: short side 336, scores × 40.
"""


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages to the files of the site, as a hook of mkdocs."""
    from mkdocs.structure.files import File

    for name, page in PAGES.items():
        files.append(File.generated(config, name, content=page()))
    return files


def commands() -> str:
    """Return the help of all commands, as Markdown."""
    return "\n".join([_COMMANDS, *(f"## {name}\n\n```text\n{_help(name)}```\n" for name in COMMANDS)])


def methods() -> str:
    """Return what the heads of all plug-ins say, as Markdown."""
    known, sections = method_facts(), []
    for file in sorted(shipped("methods").glob("*.py")):
        source = file.read_text(encoding="utf-8")
        name = re.findall(r'^@(?:method|refinement)\(\s*"([\w-]+)"', source, re.MULTILINE)[0]
        agrees = f"Agrees with its authors' code: {known[name]['agrees']}.\n\n" if name in known else ""
        sections.append(f"## {name}\n\n{agrees}```text\n{ast.get_docstring(ast.parse(source))}\n```\n")
    return "\n".join([_METHODS, *sections])


def _help(command: str) -> str:
    with redirect_stdout(io.StringIO()) as shown, suppress(SystemExit):
        parser_of([command]).parse_args([command, "-h"])
    return shown.getvalue()


def catalogue() -> str:
    """Return a table of all shipped cards and a section for each, as Markdown."""
    cards = sorted((load_card(name) for name in card_names()), key=lambda card: (_group(card), card.name))
    return "\n".join([_DATASETS, *_overview(cards), *(line for card in cards for line in _section(card))])


def _group(card: Card) -> int:
    """Tables 1 and 2 of the paper, then the natural images of Table 6, then what later papers evaluate on."""
    papers = 2 if card.geometry else int(card.task != "semantic")
    return papers if card.geometry or card.name in load_config().default_datasets else 3


def _cited(card: Card) -> str:
    """Return the paper to cite and the size of the archives, as far as they are known."""
    needed = [item for item in card.downloads if item.needed]
    sizes = [item.bytes for item in needed if item.bytes]
    size = f" Archives: {size_text(sum(sizes))}." if sizes and len(sizes) == len(needed) else ""
    return (f" Cite: {card.citation}." if card.citation else "") + size


def _overview(cards: list[Card]) -> Iterator[str]:
    yield "| name | dataset | task | classes | images | threshold | metric | access |"
    yield "|---|---|---|---|---|---|---|---|"
    for card in cards:
        count = f"{card.expected_count:,}" if card.expected_count else "?"
        link = f"[{card.name}](#{card.name})"
        metric = f"IoU of {card.classes[1]}" if card.metric == "foreground_iou" else "mIoU"
        cells = [link, card.title, card.task, len(card.classes), count, card.threshold, metric, card.access]
        yield f"| {' | '.join(map(str, cells))} |"
    yield ""


def _section(card: Card) -> Iterator[str]:
    yield f"## {card.name}\n"
    yield f"{card.title}: {card.modality}. Licence: {card.licence}.{_cited(card)}\n"
    yield f"{card.obtain} Sources: {', '.join(card.sources)}.\n"
    names = [f"`{name}`" for name in card.folders]
    yield f"Folder: {' or '.join(names)}. Evaluated: {card.split_note}{_count(card)}.{_tiles(card)}\n"
    for name, rows in card.vocabularies.items():
        yield f"Prompt words of vocabulary `{name}`: {' · '.join(', '.join(words) or '–' for words in rows)}.\n"
    if card.uncounted:
        yield f"Prompted but not counted: {', '.join(card.uncounted)}.\n"
    yield f"{_postprocessing(card)}\n"
    for name, layout in card.layouts.items():
        yield from _layout(card, name, layout)
    if card.downloads:
        yield "\nArchives:\n"
        yield from (_download(card, at) for at in range(len(card.downloads)))
    for title, statements in (("Notes", card.notes), ("Leaks", card.leaks), ("Unverified", card.unverified)):
        if statements:
            yield f"\n{title}:\n"
            yield from (f"- {statement}" for statement in statements)
    yield ""


def _count(card: Card) -> str:
    if card.expected_count is None:
        return ""
    return f"; {card.expected_count:,} {'tiles' if card.tiling else 'images'}"


def _tiles(card: Card) -> str:
    if card.tiling is None:
        return ""
    tiling = card.tiling
    overlap = f", neighbours share {tiling.overlap} pixels" if tiling.overlap else ""
    padded = ", smaller scenes are padded" if tiling.pad else ", the last ones are filled up" if tiling.fill else ""
    return f" Scenes are cut to {tiling.width}x{tiling.height} pixels{overlap}{padded}."


def _postprocessing(card: Card) -> str:
    text = f"Pixels whose best probability is below {card.threshold} become {card.classes[card.background]}."
    if not card.threshold:
        text = "No threshold."
    if card.debias is not None:
        text += f" λ is {card.debias:g} in every row that subtracts at all."
    if card.geometry:
        resize, window, stride = card.geometry.resize, card.geometry.window, card.geometry.stride
        text += f" Input: {resize}, windows of {window} pixels every {stride}."
    return text


def _layout(card: Card, name: str, layout: Layout) -> Iterator[str]:
    marks = [" (only on request)"] * layout.on_request + [" (not comparable)"] * (not layout.comparable)
    yield f"- **{name}**{''.join(marks)}: {layout.about}."
    yield f"  - images `{layout.image}`"
    yield f"  - labels `{layout.label}`, {_rule(layout)}"
    example = _example(card, layout)
    if example:
        yield f"  - for example `{card.folders[0]}/{example}`"
    if layout.cut:
        yield "  - whole scenes, cut while they are read"


def _rule(layout: Layout) -> str:
    rule = layout.labels
    if rule.rule == "palette":
        return "coloured as the classes are displayed"
    if rule.rule == "lines":
        return f"GeoJSON lines, drawn {rule.width_m:g} m wide"
    if rule.rule == "threshold":
        text = f"grey values from {rule.at} are foreground"
        return (
            text if rule.jpeg_quality is None else f"{text}, with the faults of a JPEG of quality {rule.jpeg_quality}"
        )
    if rule.reduce_zero:
        return "class numbers from 1, 0 is ignored"
    return "raw ids" if rule.raw_ids else "class numbers"


def _example(card: Card, layout: Layout) -> str | None:
    """Path of the card's example in this layout, where its fields give one."""
    fields = layout.example or card.example
    if card.tiling and not layout.cut:
        tile = {"x0": 0, "y0": 0, "x1": card.tiling.width, "y1": card.tiling.height}
        fields = {**fields, **{axis: str(value) for axis, value in tile.items()}}
    spelling = expand(layout.image)[0]
    return fill(spelling, fields) if fields_of(spelling).keys() <= fields.keys() else None


def _download(card: Card, at: int) -> str:
    archive = card.downloads[at]
    name = f"[{archive.file}]({archive.url})" if archive.url else archive.file
    md5 = f", md5 `{archive.md5}`" if archive.md5 else ""
    return f"- {name}{md5}{'' if archive.needed else ' (not needed)'}"


PAGES = {"datasets.md": catalogue, "commands.md": commands, "methods.md": methods}
