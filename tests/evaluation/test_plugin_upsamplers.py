"""An upsampler of a user's own, as docs/your-method.md describes it, through `run`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.cli import main
from bench.models.upsamplers import KINDS
from bench.runtime.sources import text_hash
from bench.store.store import Store

DOCS = (Path(__file__).resolve().parents[2] / "docs" / "your-method.md").read_text(encoding="utf-8")
SOURCE = DOCS.split("## Your upsampler")[1].split("```python\n")[1].split("```")[0]
OVERLAY = DOCS.split("## Your upsampler")[1].split("```yaml\n")[1].split("```")[0]


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    yield
    KINDS.pop("mine", None)


def run(folder: Path, source: str, rows: str, *flags: str) -> int:
    (folder / "mine.py").write_text(source)
    (folder / "mine.yaml").write_text(OVERLAY)
    arguments = ["--methods", rows, "--datasets", "whu_aerial", "--results", str(folder / "results")]
    own = ["--plugin", str(folder / "mine.py"), "--config", str(folder / "mine.yaml")]
    return main(["run", "--demo", *arguments, *own, *flags])


def test_the_documented_upsampler_counts_as_the_shipped_one_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, SOURCE, "clip+mine,clip+nearest") == 0, capsys.readouterr().err
    store = Store(tmp_path / "results", demo=True)
    mine, nearest = (store.cell(f"clip+{name}", "whu_aerial") for name in ("mine", "nearest"))
    assert abs(mine.confusion() - nearest.confusion()).sum() <= 20  # pixels of two images; ties fall either way
    assert mine.record.inputs["upsampler"].startswith("mine, ")  # and the hash of its source
    assert nearest.record.inputs["upsampler"] == "nearest"


def test_an_upsampler_is_identified_by_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Comments do not count; cells of versions by which the text was hashed stay valid."""
    with monkeypatch.context() as patch:
        patch.setattr("bench.evaluation.models.source_hash", text_hash)
        assert run(tmp_path, SOURCE, "clip+mine", "--limit", "1") == 0
    state = "clip+mine", "--limit", "1", "--dry-run"
    capsys.readouterr()
    assert run(tmp_path, SOURCE, *state) == 0 and "nothing to do" in capsys.readouterr().out
    assert run(tmp_path, SOURCE.replace("nearest", "bilinear"), *state) == 0
    assert "upsampler changed" in capsys.readouterr().out
    assert run(tmp_path, SOURCE, "clip+mine", "--limit", "1", "--fresh") == 0
    capsys.readouterr()
    assert run(tmp_path, SOURCE + "# again\n", *state) == 0 and "nothing to do" in capsys.readouterr().out
