from __future__ import annotations

import hashlib
import linecache
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from reference import tiny_backbone

from bench.errors import BenchError
from bench.paths import shipped
from bench.registry import _registry, declared_methods, earlier_hashes, find_method, load_methods
from bench.report.published import method_facts
from bench.runtime.sources import source_hash, text_hash

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = {"clip", "maskclip", "sclip", "gem", "clearclip", "segearth-ov", "naclip"}


@pytest.fixture(autouse=True)
def _restored_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in load_methods():
        monkeypatch.setitem(_registry, name, _registry[name])


@pytest.fixture
def _forget():
    before = dict(_registry)
    yield
    _registry.clear()
    _registry.update(before)


def test_shipped_plug_ins_are_found_by_name() -> None:
    assert set(load_methods()) >= SHIPPED


def test_every_shipped_plug_in_gives_patches_and_cls_of_the_joint_space() -> None:
    backbone = tiny_backbone()
    with torch.inference_mode():
        trunk = backbone.trunk(torch.randn(2, 3, 64, 48))
        text = F.normalize(torch.randn(5, 24), dim=-1)
        for method in load_methods().values():
            if method.makes_scores or trunk.depth < 6:
                continue
            built = method.build({})
            patches, cls = built(trunk, text=text) if method.takes_text else built(trunk)
            assert patches.shape == (2, 12, 24), method.name
            assert cls.shape == (2, 24)
            assert patches.isfinite().all()


@pytest.mark.slow
def test_plug_ins_are_importable_as_bench_methods_from_anywhere(tmp_path: Path) -> None:
    code = (
        "import bench.methods.sclip, pickle; f = bench.methods.sclip.sclip; assert pickle.loads(pickle.dumps(f)) is f"
    )
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)


@pytest.mark.usefixtures("_forget")
def test_the_plug_in_of_the_readme_works_from_a_file_and_a_folder(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text()
    source = text.split("```python\n")[1].split("```")[0]
    file = tmp_path / "mine.py"
    file.write_text(source)
    by_file = load_methods([file])["mine"]
    by_folder = load_methods([tmp_path])["mine"]
    assert by_file.label == by_folder.label
    with torch.inference_mode():
        features = by_file.build({})(tiny_backbone().trunk(torch.zeros(1, 3, 48, 48)))
    assert features.patches.shape == (1, 9, 24)


def test_unknown_method_is_answered_with_the_closest() -> None:
    with pytest.raises(BenchError, match=r"unknown method 'clearcilp'; did you mean clearclip"):
        find_method("clearcilp", load_methods())


def test_options_are_checked_against_the_signature() -> None:
    methods = load_methods()
    assert methods["gem"].check({"residual": "keep"}) == {"residual": "keep", "blocks": 6}
    with pytest.raises(BenchError, match=r"method 'gem' has no option 'residul'; did you mean residual"):
        methods["gem"].build({"residul": "keep"})
    with pytest.raises(BenchError, match=r"method 'gem', option 'residual': .*'keep' or 'drop' \(value 'kept'\)"):
        methods["gem"].build({"residual": "kept"})
    with pytest.raises(BenchError, match=r"method 'segearth-ov3', option 'confidence': .*less than or equal to 1"):
        methods["segearth-ov3"].build({"confidence": 7})


@pytest.mark.usefixtures("_forget")
def test_two_plug_ins_of_one_name_are_an_error(tmp_path: Path) -> None:
    file = tmp_path / "again.py"
    file.write_text("from bench.api import method\n@method('sclip')\ndef again(trunk): ...\n")
    with pytest.raises(BenchError, match=r"two plug-ins are called 'sclip': .*sclip\.py and .*again\.py; rename one"):
        load_methods([file])


@pytest.mark.usefixtures("_forget")
def test_a_plug_in_that_cannot_be_imported_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "broken.py"
    file.write_text("import no_such_module_anywhere")
    with pytest.raises(BenchError, match=r"plug-in .*broken\.py cannot be imported: ModuleNotFoundError"):
        load_methods([file])


@pytest.mark.usefixtures("_forget")
def test_installed_packages_offer_methods_through_entry_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere.py").write_text(
        "from bench.api import last_block, method\n"
        "@method('elsewhere')\n"
        "def elsewhere(trunk):\n    return last_block(trunk, lambda q, k, v: v, residual=False, ffn=False)\n"
    )
    info = tmp_path / "elsewhere-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[ovss_bench.methods]\nelsewhere = elsewhere:elsewhere\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert "elsewhere" in load_methods()


def test_a_class_with_its_own_text_is_a_plug_in_too(tmp_path: Path) -> None:
    from bench.models.clip_weights import Backbone
    from bench.models.text import Vocabulary
    from bench.registry import method

    @method("own-text-test")
    class OwnText:
        def __init__(self, flip: bool = False) -> None:
            self.flip = flip

        def encode_text(self, backbone: Backbone, vocabulary: Vocabulary) -> torch.Tensor:
            return torch.eye(backbone.dim)[: len(vocabulary.queries)] * (-1 if self.flip else 1)

        def __call__(self, trunk):  # pragma: no cover
            raise AssertionError

    built: Any = load_methods()["own-text-test"].build({"flip": True})
    assert built.flip
    text = built.encode_text(tiny_backbone(), Vocabulary.of([["a"], ["b", "c"]]))
    assert text.shape == (3, 24)
    del _registry["own-text-test"]


@pytest.mark.usefixtures("_forget")
def test_plug_ins_of_a_folder_import_each_other_and_share_an_identity(tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text("FACTOR = 1.0\n")
    for name, line in {"dotted": "from .helper import FACTOR", "again": "from .dotted import FACTOR"}.items():
        (tmp_path / f"{name}.py").write_text(
            f"from bench.api import attention, last_block, method\n{line}\n"
            f"@method('{name}')\n"
            f"def {name}(trunk):\n"
            "    return last_block(trunk, lambda q, k, v: attention(FACTOR * k, k) @ v, residual=False, ffn=False)\n"
        )
    methods = load_methods([tmp_path])
    before = {name: methods[name].source_hash for name in ("dotted", "again")}
    (tmp_path / "helper.py").write_text("FACTOR = 2.0\n")
    after = {name: methods[name].source_hash for name in ("dotted", "again")}
    assert all(before[name] != after[name] for name in before)
    assert (
        text_hash(ROOT / "methods" / "clip.py") == hashlib.sha256((ROOT / "methods/clip.py").read_bytes()).hexdigest()
    )
    assert text_hash(ROOT / "methods" / "sfp.py") != hashlib.sha256((ROOT / "methods/sfp.py").read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ('"""Another title."""\n\nX = 1\n\n\ndef f(a):\n    """Do."""\n    return a + X  # sum\n', True),
        ("X = 1\ndef f(a):\n    return (a +\n            X)\n", True),
        ("X = 2\ndef f(a):\n    return a + X\n", False),
        ("X = True\ndef f(a):\n    return a + X\n", False),
        ("X = 1\ndef f(a):\n    return a + 'X'\n", False),
        ("X = 1\ndef f(b):\n    return b + X\n", False),
    ],
)
def test_only_code_is_a_plug_ins_identity(tmp_path: Path, text: str, same: bool) -> None:
    first, second = tmp_path / "first.py", tmp_path / "second.py"
    first.write_text('"""A title."""\nX = 1\ndef f(a):\n    return a + X\n')
    second.write_text(text)
    assert (source_hash(first) == source_hash(second)) is same


@pytest.mark.parametrize("name", ["pamr", "res_clip", "itaclip", "segearth_ov3"])
def test_results_of_code_that_computed_the_same_stay_valid(name: str) -> None:
    """Since then PAMR says how far it reaches, RES-CLIP imports it, and options of the others have a range."""
    before = {
        "pamr": "e8e483b74231ae5b",
        "res_clip": "2629bf8fc8b80296",
        "itaclip": "e79c129a2d40a90b",
        "segearth_ov3": "d38d5ed27303d48b",
    }
    assert any(one.startswith(before[name]) for one in earlier_hashes(shipped(f"methods/{name}.py")))


def test_the_hash_of_code_is_one_in_all_versions_of_python(tmp_path: Path) -> None:
    file = tmp_path / "one.py"
    text = "class A:\n    x: int = None\n\n    def f(self, *a, k=1.5):\n        return [f'{i!r:>{k}}' for i in a]\n"
    file.write_text(text)
    assert source_hash(file) == "ae5cd68ee23644c5daa56d5758164aaeb1287ed86d03ab7c8fcc9c9a8e74a4a9"


@pytest.mark.usefixtures("_forget")
def test_a_file_option_is_part_of_the_identity_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "filed.py").write_text(
        "from pathlib import Path\nfrom bench.api import method\n"
        "@method('filed')\ndef filed(trunk, words: Path | None = None):\n    return trunk.project(trunk.input(-1))\n"
    )
    method = load_methods([tmp_path / "filed.py"])["filed"]
    with pytest.raises(BenchError, match=r"option 'words': .*absent\.txt does not exist"):
        method.files({"words": str(tmp_path / "absent.txt")})
    (tmp_path / "words.txt").write_text("a")
    assert method.files({"words": str(tmp_path / "words.txt")}) == {"words": tmp_path / "words.txt"}
    assert method.files({}) == {}


def test_names_are_read_from_source_without_importing_it(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text("raise SystemExit\n@method('one', label='One')\ndef f(trunk): ...\n")
    assert declared_methods([tmp_path]) == {*load_methods(), "one"}
    (tmp_path / "two.py").write_text("@method(NAME)\ndef f(trunk): ...\n")
    assert declared_methods([tmp_path]) is None


def test_something_is_known_of_every_shipped_method() -> None:
    shipped = {name for name, method in load_methods().items() if method.file.resolve().parent == ROOT / "methods"}
    known = method_facts()
    assert set(known) == shipped
    required, places = {"family", "passes", "agrees"}, {"paper", "code"}
    assert all(required <= set(one) <= required | places for one in known.values())
    addresses = [one[place] for one in known.values() for place in places & set(one)]
    assert all(re.fullmatch(r"https://\S+", address) for address in addresses)


PLAIN = "from bench.api import method\n{0}\n@method('plain-{1}')\ndef f(trunk):\n    return {2}\n"


@pytest.mark.usefixtures("_forget")
@pytest.mark.parametrize(
    ("line", "edited"),
    [
        ("from helper_{0} import SHARP", "helper_{0}.py"),
        ("from .helper_{0} import SHARP", "helper_{0}/__init__.py"),
        ("from .helper_{0} import SHARP", "helper_{0}/core.py"),
        ("from .helper_{0}.core import SHARP", "helper_{0}/core.py"),
        ("import sys; sys.path.insert(0, FOLDER + '/far'); from helper_{0} import SHARP", "far/helper_{0}.py"),
        (
            "import importlib.util as u; s = u.spec_from_file_location('x', FOLDER + '/far/helper_{0}.py'); "
            "m = u.module_from_spec(s); s.loader.exec_module(m); SHARP = m.SHARP; del m",
            "far/helper_{0}.py",
        ),
    ],
)
def test_whatever_an_import_loaded_below_the_folder_is_part_of_the_identity(
    tmp_path: Path, line: str, edited: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    name = tmp_path.name.replace("-", "_")
    file = tmp_path / edited.format(name)
    file.parent.mkdir(exist_ok=True)
    if file.name == "core.py":
        (file.parent / "__init__.py").write_text("from .core import SHARP\n")
    file.write_text("SHARP = 1\n")
    before = f"FOLDER = {str(tmp_path)!r}\n{line.format(name)}"
    (tmp_path / f"p{name}.py").write_text(PLAIN.format(before, name, "SHARP"))
    found = load_methods([tmp_path / f"p{name}.py"])[f"plain-{name}"]
    hashed = found.source_hash
    file.write_text("SHARP = 22\n")
    assert found.source_hash != hashed


@pytest.mark.usefixtures("_forget")
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("raise SystemExit(0)", "cannot be imported: it raised SystemExit: 0"),
        (
            "import argparse; p = argparse.ArgumentParser(); p.add_argument('x'); p.parse_args()",
            "it raised SystemExit: 2",
        ),
        ("raise GeneratorExit", "cannot be imported: it raised GeneratorExit"),
        ("import torch; torch.set_autocast_enabled('cpu', True)", "it changed autocast on cpu for the whole process"),
        ("@method('twice')\ndef g(trunk): ...\n@method('twice')\ndef h(trunk): ...", "two methods are called 'twice'"),
        ("@method('x', threshold=0.123)\ndef g(trunk): ...", "threshold: counts are kept in steps of 0.01"),
    ],
)
def test_an_import_that_does_more_than_it_should_is_one_line(
    tmp_path: Path, line: str, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "wild.py").write_text(PLAIN.format(line, "wild", "trunk"))
    with pytest.raises(BenchError, match=message) as error:
        load_methods([tmp_path / "wild.py"])
    assert "wild.py" in str(error.value) and "\n" not in str(error.value)
    assert capfd.readouterr().err == "" and not torch.is_autocast_enabled("cpu")


@pytest.mark.usefixtures("_forget")
def test_a_constructor_that_fails_and_an_unreadable_annotation_name_their_method(tmp_path: Path) -> None:
    (tmp_path / "made.py").write_text(
        "from bench.api import method\n"
        "@method('made')\nclass Made:\n    def __init__(self, x: float = 1.0) -> None:\n        raise SystemExit(0)\n"
        "    def __call__(self, trunk): ...\n"
        "@method('odd')\ndef odd(trunk, x: 'Unknown' = 1): ...\n"
    )
    methods = load_methods([tmp_path / "made.py"])
    with pytest.raises(BenchError, match=r"method 'made' \(made\.py\) cannot be made: it raised SystemExit: 0"):
        methods["made"].build({})
    with pytest.raises(BenchError, match=r"method 'odd' \(made\.py\): an option's annotation cannot be read"):
        methods["odd"].build({})
    with pytest.raises(BenchError, match="finite"):
        methods["made"].build({"x": float("nan")})


def _cell(number: int, text: str) -> None:
    """Run the text as a notebook does: the text is kept by linecache, under the name of a file that is not there."""
    name = f"/nowhere/cell-{number}.py"
    linecache.cache[name] = (len(text), None, text.splitlines(True), name)
    exec(compile(text, name, "exec"), {"__name__": "cells"})


CELL = """from bench.api import method

@method("of-a-cell")
def of_a_cell(trunk): ...
"""


def test_a_method_may_be_defined_in_a_notebook_cell(_forget: None) -> None:
    _cell(1, CELL)
    first = _registry["of-a-cell"].source_hash
    assert "of-a-cell" in (declared_methods() or ())
    _cell(2, CELL + "# commented\n")
    assert _registry["of-a-cell"].source_hash == first
    _cell(2, CELL + "SHARPNESS = 2\n")
    assert _registry["of-a-cell"].source_hash != first


def test_a_class_of_a_notebook_cell_is_found_by_its_functions(_forget: None) -> None:
    _cell(3, CELL.replace("def of_a_cell(trunk): ...", "class OfACell:\n    def __call__(self, trunk): ..."))
    assert _registry["of-a-cell"].file == Path("/nowhere/cell-3.py")


def test_a_method_without_source_is_refused(_forget: None) -> None:
    with pytest.raises(BenchError, match="'of_a_cell': <string> keeps no source; write it to a file"):
        exec(CELL, {"__name__": "cells"})


def test_a_cell_cannot_replace_a_shipped_method(_forget: None) -> None:
    load_methods()
    with pytest.raises(BenchError, match=r"two plug-ins are called 'sclip': .*sclip.py and /nowhere/cell-4.py"):
        _cell(4, CELL.replace("of-a-cell", "sclip"))
