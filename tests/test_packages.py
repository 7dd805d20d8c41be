"""The wheel and the source archive, built from the checkout and used in an environment that has no checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("hatchling")
pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The wheel and the source archive."""
    folder = tmp_path_factory.mktemp("packages")
    for kind in ("wheel", "sdist"):
        command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(folder)]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return next(folder.glob("*.whl")), next(folder.glob("*.tar.gz"))


def test_the_wheel_holds_what_a_run_needs(packages: tuple[Path, Path]) -> None:
    names = set(zipfile.ZipFile(packages[0]).namelist())
    shipped = "bench/_shipped/"
    assert {f"{shipped}benchmark.yaml", f"{shipped}methods/sclip.py", f"{shipped}datasets/loveda.yaml"} <= names
    assert f"{shipped}results/published/table1.csv" in names and "bench/demo/weights/tiny-clip.safetensors" in names
    assert not any(name.startswith(("tools/", "tests/")) for name in names)
    (scripts,) = [name for name in names if name.endswith("/entry_points.txt")]
    offered = zipfile.ZipFile(packages[0]).read(scripts).decode()
    assert "\nbench = bench.cli.app:main" in offered and "\novss-bench = bench.cli.app:main" in offered


def test_the_wheel_works_without_a_checkout(packages: tuple[Path, Path], tmp_path: Path) -> None:
    """In an environment of its own, which borrows the installed dependencies."""
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    site = Path(sysconfig.get_path("purelib", vars={"base": str(tmp_path / "venv")}))
    zipfile.ZipFile(packages[0]).extractall(site)
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")

    bare = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(*arguments: str) -> str:
        done = subprocess.run([str(python), *arguments], cwd=tmp_path, env=bare, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert Path(run("-c", "import bench; print(bench.__file__)").strip()).is_relative_to(tmp_path)
    assert "sclip" in run("-m", "bench", "methods")
    flags = ["--demo", "--methods", "clip", "--datasets", "whu_aerial", "--device", "cpu"]
    assert "tables in results/demo-run/tables" in run("-m", "bench", "run", *flags)


def test_the_source_archive_holds_what_the_checks_need(packages: tuple[Path, Path]) -> None:
    with tarfile.open(packages[1]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for needed in ("pyproject.toml", "README.md", "LICENSE", "benchmark.yaml", "methods/sclip.py", "docs/demo.png",
                   "tests/golden/released.npz", "results/demo/scores.csv", "mkdocs.yml", ".ci/run",
                   "tools/demo/train_clip.py"):  # fmt: skip
        assert needed in names, needed
    assert not any(name.startswith(("results/demo-run", ".venv")) for name in names)
