"""Where in a plug-in's file something went wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.registry import load_methods
from bench.runtime.sources import described

SOURCE = """from bench.api import method


@method("blamed")
def blamed(trunk, way: str = "raise"):
    if way == "raise":
        raise ValueError("here")
    return trunk


@method("blamed-class")
class Blamed:
    def __call__(self, trunk):
        return [][1]
"""


@pytest.mark.parametrize(("name", "line"), [("blamed", 7), ("blamed-class", 14)])
def test_the_line_that_raised(name: str, line: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.registry._registry", {})
    file = tmp_path / "blamed.py"
    file.write_text(SOURCE)
    method = load_methods([file])[name].build({})
    with pytest.raises((ValueError, IndexError)) as raised:
        method(None)
    assert described(raised.value, method).endswith(f" (blamed.py, line {line})")


def test_a_refused_result_names_its_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.registry._registry", {})
    (tmp_path / "blamed.py").write_text(SOURCE)
    method = load_methods([tmp_path / "blamed.py"])["blamed"].build({"way": "return"})
    assert described(ValueError("of another shape"), method) == "ValueError: of another shape (blamed.py, line 4)"


def test_without_a_file_there_is_no_place() -> None:
    scope: dict[str, object] = {}
    exec("def made(trunk): ...", scope)  # as in a notebook cell that is gone
    assert described(ValueError("no"), scope["made"]) == "ValueError: no"
