"""Whatever a plug-in is made of is edited, and the same run started again: it counts what a fresh folder gives.

`python -m pytest -m chaos`; the ordinary suite runs a tenth.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import children
import pytest
import torch
from PIL import Image
from project import Project

pytestmark = pytest.mark.chaos
SHARP = "SHARP = 1.0\n"
FILES = {  # of the plug-in, below its folder
    "own.py": """
import importlib.util
import sys
from pathlib import Path

from bench.api import Upsampler, attention, last_block, method, refinement, upsampler

from . import beside
from .package import SHARP
from .package.core import sharper

sys.path.insert(0, str(Path(__file__).parent / "path"))
import found_by_path

spec = importlib.util.spec_from_file_location("loaded_by_hand", Path(__file__).parent / "hand" / "loaded.py")
loaded = importlib.util.module_from_spec(spec)
spec.loader.exec_module(loaded)


@method("own", label="Own")
def own(trunk, sharpness: float = 1.0, table: Path = None):
    \"\"\"Sharpened attention.\"\"\"
    from .inside import SHARP as inner  # when it is called

    factor = sharpness * float(table.read_text()) * inner * SHARP * beside.SHARP * found_by_path.SHARP * loaded.SHARP
    factor = sharper(factor)
    return last_block(trunk, lambda q, k, v: attention(factor * k, k) @ v, residual=False, ffn=False)


@refinement("own-refinement")
def refined(image, scores, text):
    from .refining import SHARP as factor

    return scores * factor


@upsampler("own-upsampler")
class Own(Upsampler):
    weightless = True

    def forward(self, patches, guidance):
        from .upsampling import enlarged

        return enlarged(patches, guidance.shape[2:])
""",
    "beside.py": SHARP,
    "inside.py": SHARP,
    "refining.py": SHARP,
    "package/__init__.py": "from .deep import SHARP as SHARP\n",
    "package/deep.py": SHARP,
    "package/core.py": "def sharper(factor):\n    return 1.0 * factor\n",
    "path/found_by_path.py": SHARP,
    "hand/loaded.py": SHARP,
    "upsampling.py": """
import torch.nn.functional as F


def enlarged(patches, size):
    return F.interpolate(patches, size, mode="nearest")
""",
    "table.txt": "1.0",
}


OVERLAY = """
protocol: {resize: {long_side: 64}, window: 48, stride: 16}
modifiers: {up: {upsampler: own-upsampler}}
upsamplers: {own-upsampler: {kind: own-upsampler}}
templates: {own: ["a photo of {}"]}
vocabularies:
  own: {mine: [[background], [building], [road], [water], [barren], [forest], [agriculture]]}
rows:
  row: {method: own, options: {sharpness: 1.0, table: ROOT/plug-in/table.txt}, refine: own-refinement, vocabulary: own,
    templates: own, scale: 50, debias: 0.0, threshold: 0.0, upsampler: own-upsampler}
"""
Edit = Callable[[Path], object]


def text(file: str, old: str, new: str) -> Edit:
    def edit(root: Path) -> None:
        before = (root / file).read_text()
        assert old in before
        (root / file).write_text(before.replace(old, new))

    return edit


def flipped(pattern: str) -> Edit:
    """The first of these pictures upside down."""

    def edit(root: Path) -> None:
        file = min(root.glob(pattern))
        Image.open(file).transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(file)

    return edit


def reweighted(root: Path) -> None:
    weights = torch.load(root / "tiny.pt", weights_only=True)
    weights["visual.proj"] = weights["visual.proj"].flip(0)
    torch.save(weights, root / "tiny.pt")


OTHER = ("1.0", "9.0")
EDITS: dict[str, Edit] = {  # that move counts
    "plug-in": text("plug-in/own.py", "factor * k, k", "factor * q, k"),
    "default of an option": text("plug-in/own.py", "* inner", "* inner * 9"),
    "module beside it": text("plug-in/beside.py", *OTHER),
    "module that a call imports": text("plug-in/inside.py", *OTHER),
    "module of its refinement": text("plug-in/refining.py", "1.0", "-1.0"),
    "module of its upsampler": text("plug-in/upsampling.py", "nearest", "bilinear"),
    "package": text("plug-in/package/__init__.py", "SHARP as SHARP", "SHARP\nSHARP *= 9"),
    "module that a package imports": text("plug-in/package/deep.py", *OTHER),
    "module of a package": text("plug-in/package/core.py", *OTHER),
    "module on sys.path": text("plug-in/path/found_by_path.py", *OTHER),
    "module loaded by hand": text("plug-in/hand/loaded.py", *OTHER),
    "file of an option": text("plug-in/table.txt", *OTHER),
    "option": text("own.yaml", "sharpness: 1.0", "sharpness: 9.0"),
    "scale": text("own.yaml", "scale: 50", "scale: 3"),
    "λ": text("own.yaml", "debias: 0.0", "debias: 0.9"),
    "window": text("own.yaml", "window: 48", "window: 32"),
    "words": text("own.yaml", "[barren]", "[a green tree]"),
    "templates": text("own.yaml", "a photo of {}", "a painting of many {}"),
    "images of the card": text("cards/mine.yaml", "images_png", "other_png"),
    "image": flipped("data/LoveDA/**/images_png/*.png"),
    "label": flipped("data/LoveDA/**/masks_png/*.png"),
    "weights": reweighted,
}
IDLE: dict[str, Edit] = {  # that move none
    "comment": text("plug-in/beside.py", "1.0", "1.0  # and why"),
    "docstring": text("plug-in/own.py", "Sharpened attention.", "Attention, sharpened."),
    "threshold": text("own.yaml", "threshold: 0.0", "threshold: 0.2"),
    "note of the card": text("cards/mine.yaml", '"notes": [', '"notes": ["another", '),
    "nothing": lambda root: None,
}


class Made(Project):
    """A project with a row of a plug-in that is made of all that a plug-in may be made of, and its result."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        for name, content in FILES.items():
            (root / "plug-in" / name).parent.mkdir(parents=True, exist_ok=True)
            (root / "plug-in" / name).write_text(content)
        self.config = root / "own.yaml"
        self.config.write_text(OVERLAY.replace("ROOT", str(root)))
        self.cards = self.own_card()
        for folder in self.data.glob("LoveDA/*/*/images_png"):
            shutil.copytree(folder, folder.with_name("other_png"))
            for file in folder.with_name("other_png").iterdir():
                Image.open(file).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(file)

    def counted(self, results: str) -> tuple[children.Ended, dict[str, Any], bytes]:
        """What a run says, and metrics and counts of its cell."""
        flags = ("--datasets", "mine", "--methods", "row", "--cards", str(self.cards))
        plugin = ("--plugin", str(self.root / "plug-in" / "own.py"))
        ended = children.run(self.arguments(*flags, *plugin, results=results), self.root)
        cell = self.root / results / "cells" / "mine" / "row"
        assert ended.code == 0, ended.err
        return ended, json.loads((cell / "cell.json").read_text())["metrics"], (cell / "counts.parquet").read_bytes()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    root = tmp_path_factory.mktemp("made") / "project"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OVSS_BENCH_CACHE", str(root / "cache"))
        made = Made(root)
        made.counted("results")
        shutil.copytree(root, root.with_name("kept"))
        yield made


@pytest.mark.parametrize("name", [*EDITS, *IDLE])
def test_a_run_after_an_edit_counts_what_a_fresh_folder_gives(name: str, made: Made) -> None:
    shutil.rmtree(made.root)
    shutil.copytree(made.root.with_name("kept"), made.root)
    before = (made.root / "results/cells/mine/row/counts.parquet").read_bytes()
    (EDITS | IDLE)[name](made.root)
    ended, metrics, counts = made.counted("results")
    _, fresh_metrics, fresh = made.counted("fresh")
    assert counts == fresh and metrics == fresh_metrics, ended.out
    assert (counts != before) == (name in EDITS), ended.out
