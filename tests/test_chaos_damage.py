"""Small damage in every kind of file that is read back: what the commands show is the original, or the file is named.

One bit, one byte, a zeroed sector or two bytes swapped, 600 times: `python -m pytest -m chaos -k random`, with
`--chaos-seed N` for other damage. One case of 120 runs with the fast tests.
"""

from __future__ import annotations

import csv
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
from chaos import Said, bench, damaged
from project import Project
from store_helpers import edit

from bench.store.count_files import COUNTS, part_file
from bench.store.count_table import encode
from bench.store.record import RECORD
from bench.store.store import Store

pytestmark = [pytest.mark.chaos(one_in=120), pytest.mark.usefixtures("any_count")]
ROWS = ("clip", "maskclip", "sclip")
STORED = ("results", "cache", "data")
BATCHES, TIMES = 15, 5  # of each kind
KINDS: dict[str, tuple[str, tuple[str, ...]]] = {  # files, and flags of the run that reads them
    "counts": (f"results/cells/*/*/{COUNTS}", ()),
    "parts": ("results/cells/*/*/part-*.parquet", ()),
    "records": (f"results/cells/*/*/{RECORD}", ()),
    "label maps": ("results/cells/*/*/predictions/*", ("--save-predictions", "3")),
    "embeddings": ("cache/text/*/*.f32", ("--fresh",)),
    "contents": ("cache/contents/*.json", ()),
    "manifest": ("data/prepared/*/manifest.json", ("--fresh",)),
    "shards": ("data/prepared/*/*.parquet", ("--fresh",)),
}


class Whole(Project):
    """Prepared images, two whole rows with label maps and one that is still in parts; `restore` gives it back."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        assert bench("prepare", "loveda", "--data-root", self.data).code == 0
        shutil.rmtree(self.data / "LoveDA")
        assert self.again("--save-predictions", "3").code == 0
        self.counted, self.maps = self.counts(), self.pictures()
        cell = Store(root / "results").cell("sclip", "loveda")
        assert cell is not None
        folder = cell.pieces[0].folder
        for number in range(cell.counted):
            data = encode(cell.table.slice(number, 1), cell.record.fingerprint)
            part_file(folder, number, data).write_bytes(data)
        (folder / COUNTS).unlink()
        edit(folder / RECORD, status="partial", counts_sha256=None)
        for name in STORED:
            shutil.copytree(root / name, root / "kept" / name)
        self.undamaged, self.undamaged_thumbnails = self.shown(), self.thumbnails()
        self.restore()

    def again(self, *flags: str) -> Said:
        return bench(*self.arguments("--datasets", "loveda", "--methods", ",".join(ROWS), *flags))

    def pictures(self) -> dict[str, bytes]:
        return {str(file): file.read_bytes() for file in sorted((self.root / "results").rglob("predictions/*.png"))}

    def restore(self) -> None:
        for name in STORED:
            shutil.rmtree(self.root / name)
            shutil.copytree(self.root / "kept" / name, self.root / name)

    def shown(self) -> dict[str, tuple[str, str]]:
        """The score that `tables` prints of each row, and all that `show` does."""
        results = ("--results", self.root / "results", "--config", self.config)
        tables = bench("tables", *results, "--table", "1", "--draws", "10", "--format", "csv")
        with (self.root / "results" / "tables" / "table1.csv").open() as file:
            scores = {line["row"]: line["measured"] for line in csv.DictReader(file) if line["dataset"] == "loveda"}
        assert tables.code == 0
        return {row: (scores[row], bench("show", row, "loveda", *results).text) for row in ROWS}

    def thumbnails(self) -> set[str]:
        """The pictures on the page of `report`."""
        page = self.root / "results" / "report.html"
        assert bench("report", "--results", self.root / "results", "--draws", "10").code == 0
        return set(re.findall(r"data:image/png;base64,[\w+/=]+", page.read_text()))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    root = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OVSS_BENCH_CACHE", str(root / "cache"))
        yield Whole(root)


@pytest.mark.parametrize("batch", range(BATCHES))
@pytest.mark.parametrize("kind", KINDS)
def test_random_damage_shows_nothing_else(kind: str, batch: int, whole: Whole, request: pytest.FixtureRequest) -> None:
    random = np.random.default_rng([request.config.getoption("--chaos-seed"), crc32(kind.encode()), batch])
    pattern, flags = KINDS[kind]
    before, pictures = whole.undamaged, whole.undamaged_thumbnails
    for _ in range(TIMES):
        files = sorted(whole.root.glob(pattern))
        file = files[random.integers(len(files))]
        file.write_bytes(damaged(file.read_bytes(), random))
        try:
            for row, (score, text) in (whole.shown() if "results" in pattern else before).items():
                if row not in file.parts or not names(text, file):
                    assert (score, text) == before[row], f"{file}: {score} {text}"
            if kind == "label maps":
                assert whole.thumbnails() <= pictures
            ran = whole.again(*flags)
            if ran.code == 0:
                assert whole.counts() == whole.counted and (kind != "label maps" or whole.pictures() == whole.maps), (
                    f"{file}: {ran.text}"
                )
            else:
                assert names(ran.text, file), f"{file}: {ran.text}"
        finally:
            whole.restore()


def names(text: str, file: Path) -> bool:
    """Whether a text, which may be wrapped in a table, names the file."""
    return file.name in "".join(text.split())
