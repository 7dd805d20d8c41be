from __future__ import annotations

from pathlib import Path

import pytest

from bench.errors import BenchError
from bench.runtime.yaml_files import read_yaml, yaml_value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "'a' stands twice, line 3"),
        ("rows:\n  clip: {debias: 0, debias: 1}\n", "'debias' stands twice, line 2"),
        ("[" * 5000, "not valid YAML"),
        ("{=]", "not valid YAML"),
        ("!!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ("day: 2020-13-45", "month must be in"),
    ],
)
def test_mistakes_are_one_line(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(BenchError, match=rf"own\.yaml: not valid YAML: .*{message}|own\.yaml: {message}") as error:
        read_yaml(tmp_path / "own.yaml", "another file")
    assert "\n" not in str(error.value)


def test_a_merged_key_may_be_replaced() -> None:
    text = "a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\n1: one\n'1': text\n"
    assert yaml_value(text, "here") == {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}, 1: "one", "1": "text"}
