"""Which rooms of bench/ may import which: docs/architecture.md says why, this keeps it true."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LOOSE = {"api", "config", "errors", "figures", "notebook", "paths", "registry", "settings", "spec"}
BASE = {"errors", "paths", "runtime"}  # what everything may import
ALLOWED = {
    "paths": {"errors"},
    "runtime": {"errors"},
    "metrics": {"errors", "settings"},
    "config": BASE | {"settings"},
    "settings": BASE,
    "registry": BASE | {"config", "settings", "methods"},
    "methods": {"paths"},
    "models": BASE | {"config", "settings"},
    "data": BASE | {"config", "settings"},
    "inference": BASE | {"config", "settings", "models", "metrics", "data"},
    "maps": BASE | {"config", "settings", "spec", "models", "data", "inference", "evaluation"},
    "training": BASE | {"config", "settings", "spec", "models", "data"},
    "store": BASE | {"config", "settings", "metrics"},
    "report": BASE | {"config", "settings", "store", "metrics", "data"},
    "spec": BASE | {"config", "settings", "data", "demo", "registry"},
    "evaluation": BASE
    | {"config", "settings", "spec", "demo", "inference", "store", "data", "metrics", "models", "registry"},
    "demo": BASE | {"config", "settings", "models", "data"},
    "verify": BASE
    | {"config", "settings", "demo", "evaluation", "inference", "models", "data", "metrics", "registry", "store"}
    | {"report", "spec"},
    "api": {"models", "registry"},
}
ALLOWED["notebook"] = BASE | set(ALLOWED) - {"api", "verify", "training"}
ALLOWED["figures"] = ALLOWED["notebook"] | {"notebook"}
ALLOWED["cli"] = BASE | set(ALLOWED) - {"cli", "api"}


def imports() -> dict[str, dict[str, list[str]]]:
    """Room -> room that it imports -> the lines that do, also those in functions and under TYPE_CHECKING."""
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for file in sorted((ROOT / "bench").rglob("*.py")):
        parts = file.relative_to(ROOT / "bench").with_suffix("").parts
        room = parts[0]
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Import | ast.ImportFrom):
                continue
            names: list[str] = []
            if isinstance(node, ast.ImportFrom) and node.module == "bench":
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("bench."):
                names = [node.module.split(".")[1]]
            elif isinstance(node, ast.Import):
                names = [alias.name.split(".")[1] for alias in node.names if alias.name.startswith("bench.")]
            for name in names:
                if name != room and not name.startswith("__"):
                    found[room][name].append(f"{file.relative_to(ROOT)}:{node.lineno}")
    return found


FOUND = imports()


@pytest.mark.parametrize("room", ALLOWED)
def test_a_room_imports_only_what_it_may(room: str) -> None:
    wrong = {name: places for name, places in FOUND[room].items() if name not in ALLOWED[room]}
    assert not wrong


def test_every_room_has_its_rule() -> None:
    rooms = {room for room in FOUND if not room.startswith("__")}
    assert rooms <= set(ALLOWED)
    assert {"models", "evaluation"} <= rooms  # the walk found something


def test_no_circle() -> None:
    left = {room: set(names) for room, names in FOUND.items()}
    while left:
        free = [room for room, names in left.items() if not names & set(left)]
        assert free, f"a circle among {sorted(left)}"
        for room in free:
            del left[room]


def test_few_modules_lie_loose() -> None:
    loose = {file.stem for file in (ROOT / "bench").glob("*.py")} - {"__init__", "__main__"}
    assert loose <= LOOSE and len(loose) <= 9


def test_no_public_class_is_spelled_in_two_rooms() -> None:
    """One meaning per name, so that a name alone says what is meant."""
    rooms: dict[str, set[str]] = defaultdict(set)
    for file in (ROOT / "bench").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                rooms[node.name].add(file.relative_to(ROOT / "bench").with_suffix("").parts[0])
    assert "Settings" in rooms
    assert not {name: places for name, places in rooms.items() if len(places) > 1}
