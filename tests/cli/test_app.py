from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from bench import __version__
from bench.cli import main
from bench.cli.app import COMMANDS
from bench.errors import BenchError, did_you_mean

ROOT = Path(__file__).resolve().parents[2]


def _python(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


HELP = """
import sys
from bench.cli.app import COMMANDS, main
for command in ([], *([name] for name in COMMANDS)):
    try:
        main([*command, "--help"])
    except SystemExit:
        print("TORCH", *command, "torch" in sys.modules)
"""


def test_help_lists_every_command_and_imports_no_torch() -> None:
    """All in one interpreter, so that a command may be named whose help is innocent: the first is the one."""
    shown = _python("-c", HELP).stdout
    assert all(f"    {name}" in shown.partition("TORCH")[0] for name in COMMANDS)
    assert all(f"usage: python -m bench {name}" in shown for name in COMMANDS)
    assert re.findall("TORCH.*", shown) == [
        " ".join(["TORCH", *name, "False"]) for name in ([], *([name] for name in COMMANDS))
    ]


def test_version_and_module(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert __version__ in capsys.readouterr().out
    assert _python("-m", "bench", "--version").stdout.strip() == f"ovss-bench {__version__}"


def test_hugging_faces_datasets_wins_in_the_checkout() -> None:
    assert _python("-c", "import datasets; print(datasets.load_dataset.__module__)").stdout.startswith("datasets.")


def test_a_shell_completes_commands_and_flags(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bash"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in COMMANDS) and "--save-predictions" in shown and "ovss-bench" in shown


@pytest.mark.parametrize(
    ("raised", "code", "message"),
    [
        (BenchError("here is\n what to do"), 2, "bench: here is what to do\n"),
        (KeyboardInterrupt(), 130, "bench: interrupted; nothing of what it was doing is kept"),
        (OSError(errno.ENOSPC, "No space", "cell.json"), 2, "bench: cell.json: no space left on device; free some"),
        (PermissionError(errno.EACCES, "No", "cells"), 2, "bench: cells: permission denied; correct the permissions"),
        (NotADirectoryError(errno.ENOTDIR, "No", "cache"), 2, "bench: cache: not a directory; correct"),
        (OSError(errno.ENAMETOOLONG, "No", "lll"), 2, "bench: lll: file name too long; correct"),
    ],
)
def test_what_a_command_raises_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], raised: BaseException, code: int, message: str
) -> None:
    def fail(_: object) -> int:
        raise raised

    monkeypatch.setattr("bench.cli.methods.main", fail)
    assert main(["methods"]) == code
    assert capsys.readouterr().err.startswith(message)


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.cli.methods.main", lambda _: dict[str, int]()["a bug"])
    with pytest.raises(KeyError):
        main(["methods"])


def test_warnings_are_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("bench.cli.methods.main", lambda _: warnings.warn("mind\nthe gap", stacklevel=1) or 0)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert main(["methods"]) == 0
    assert "bench: warning: mind the gap\n" in capsys.readouterr().err


def test_methods_lists_plug_ins_modifiers_and_rows(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods"]) == 0
    shown = capsys.readouterr().out
    for word in ("segearth_ov.py", "+ours", "clearclip+ours *", "residual=drop", "ECCV'24"):
        assert word in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("rnu", "unknown command 'rnu'; did you mean run?"),
        ("xyzzy", "unknown command 'xyzzy'; `python -m bench -h` shows what it takes"),
        ("run --mehtods clip", "unknown flag --mehtods; did you mean --methods?"),
        ("run --method=clip", "unknown flag --method; did you mean --methods?"),
        ("--xyzzy run", "unknown flag --xyzzy; `python -m bench -h` shows what it takes"),
        ("tables 1", "unexpected argument '1'; `python -m bench tables -h` shows what it takes"),
        ("datasets loveda", "datasets: unknown action 'loveda'; did you mean `datasets check loveda`?"),
        ("datasets chekc x", "datasets: unknown action 'chekc'; did you mean check?"),
        (
            "speed --demo",
            "speed has no --demo; `run --demo` brings its own data and weights, its results are in results/",
        ),
        ("run --methods xyzzy", "--methods: unknown row or method 'xyzzy'; `python -m bench methods` lists them"),
    ],
)
def test_a_mistyped_command_line_is_answered_in_one_line(
    capsys: pytest.CaptureFixture[str], arguments: str, message: str
) -> None:
    try:
        code = main(arguments.split())
    except SystemExit as stopped:  # argparse's own
        code = int(stopped.code or 0)
    shown = capsys.readouterr()
    assert code == 2 and shown.err.startswith(f"bench: {message}") and shown.err.count("\n") == 1 and not shown.out


def test_of_many_known_names_an_error_shows_the_first() -> None:
    assert did_you_mean("x", "edcba") == "known: a, b, c, d, e"
    assert did_you_mean("z", "abcdefghijkl") == "known: a, b, c, d, e, f, g, h and 4 more"
    assert did_you_mean("clop", ["clip", "clap", "chop", "slop"]).endswith("p?")


@pytest.mark.slow
def test_wheel_holds_everything_and_stays_out_of_hugging_faces_package(tmp_path: Path) -> None:
    from hatchling.builders.wheel import WheelBuilder

    (name,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    target = tmp_path / "site"
    subprocess.run([sys.executable, "-m", "zipfile", "-e", name, str(target)], check=True)
    assert not (target / "datasets").exists()
    assert not (target / "methods").exists()
    code = (
        "from bench.config import load_config; from bench.data.cards import card_names\n"
        "from bench.registry import load_methods\n"
        "from bench.report.published import load_published\n"
        "load_published(load_config().tables['1'].published)\n"
        "from bench.verify import demo, goldens, recipe\n"
        "assert goldens.stored('rows') and goldens.stored('released') and recipe.config_file().exists()\n"
        "from bench.paths import shipped; assert (shipped('results/demo') / demo.CONFUSIONS).exists()\n"
        "print(len(load_config().default_rows), 'loveda' in card_names(), 'sclip' in load_methods())"
    )
    environment = {**os.environ, "PYTHONPATH": str(target)}
    shown = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert shown.stdout.strip() == "10 True True", shown.stderr


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_signs_that_a_terminal_lacks_are_spelled(encoding: str) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "bench", "run", "--help"]
    done = subprocess.run(command, capture_output=True, env=environment, check=False)
    assert done.returncode == 0 and not done.stderr and b"..." in done.stdout
