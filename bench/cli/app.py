"""``python -m bench COMMAND …``. Only the chosen command's module is imported, so that ``--help`` is quick."""

from __future__ import annotations

import argparse
import codecs
import contextlib
import errno
import importlib
import io
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from bench import __version__
from bench.errors import INTERRUPTED, SAID, BenchError, did_you_mean
from bench.paths import DEMO_RESULTS
from bench.runtime.memory import keep_freed_memory

COMMANDS = {  # name -> what it does, an example
    "doctor": ("say what is there and what is missing for a table of the paper, and what to do next", "doctor --quick"),
    "reproduce": ("go from nothing to confirmed published numbers, step by step", "reproduce --demo --until kinds"),
    "run": ("evaluate methods on datasets and store every cell", "run --demo --methods clip,sclip --datasets loveda"),
    "tables": ("write the paper's tables from what is stored", "tables --demo --format latex"),
    "compare": ("paired comparison of two stored rows", "compare segearth-ov sclip --demo"),
    "report": ("write one page with everything that is stored", "report --demo"),
    "show": ("print all that is known of one stored result", "show sclip loveda --demo"),
    "score": ("count label maps that another program made", "score maps/ --dataset loveda --row my-model"),
    "export": ("write stored results to one archive", "export sclip.zip --methods sclip"),
    "import": ("take in results that `export` wrote", "import sclip.zip"),
    "push": ("put results into a repository of Hugging Face", "push OWNER/RESULTS --methods sclip"),
    "pull": ("take in results of such a repository", "pull OWNER/RESULTS"),
    "submit": (
        "put results onto a branch of a board, with source and cards",
        "submit BOARD --name ada --methods sclip",
    ),
    "board": ("check what is submitted to a board, and build its page", "board check"),
    "figure": (
        "draw image, ground truth and methods side by side",
        "figure loveda --demo --methods clip,sclip -o f.png",
    ),
    "predict": (
        "make maps of scenes of your own with words of your own",
        "predict a.tif --method sclip --classes 'background; road; water' -o out/",
    ),
    "templates": (
        "rank prompt templates on images without labels",
        "templates a.png --classes words.txt -o ranking.txt",
    ),
    "train": ("train an upsampler for a backbone", "train upsampler --images images/ --out runs/simfeatup"),
    "verify": ("check that this machine computes what the released code computed", "verify --device cuda"),
    "speed": ("measure where the time goes", "speed --sizes 448x448 --row-counts 10"),
    "methods": ("list the methods, rows and modifiers", "methods --plugin mine.py"),
    "datasets": ("list the datasets, or check that one on disk is complete and right", "datasets check loveda"),
    "prepare": ("tile or convert a dataset once", "prepare potsdam --source ~/Downloads/potsdam"),
    "download": ("fetch a dataset, or weights", "download weights simfeatup"),
    "completion": ("print what completes ovss-bench in a shell", "completion bash"),
}

ABOUT_DEMO = f"`run --demo` brings its own data and weights, its results are in {DEMO_RESULTS}"
MODULES = dict.fromkeys(("export", "import", "push", "pull", "submit"), "exchange") | dict.fromkeys(
    ("tables", "report", "show"), "stored"
)
"""Modules of commands that share one; others have one of their name."""
SPELLED = {"−": "-", "–": "-", "—": "-", "“": '"', "”": '"', "’": "'", "…": "...", "×": "x", "λ": "lambda", "±": "+-"}
KEPT = "what was computed is stored, the same command continues from there"
CONTINUES = {  # commands that keep what they have done
    **dict.fromkeys(("reproduce", "run", "predict", "prepare", "download"), KEPT),
    "train": "the last checkpoint is stored, the same command with --resume continues from there",
}
NO_BUGS = (
    errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG,
)  # fmt: skip


class Parser(argparse.ArgumentParser):
    """Parser that takes flags by their whole names only, and answers a mistake in one line."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse what argparse knows, and refuse the rest with the closest flag."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown and unknown[0].startswith("-"):
            name = unknown[0].partition("=")[0]
            if name == "--demo":
                self.error(f"{self.prog.split()[-1]} has no --demo; {ABOUT_DEMO}")
            hint = did_you_mean(name, [flag for flag in self._option_string_actions if flag.startswith("--")])
            self.error(f"unknown flag {name}; {hint}")
        elif unknown:
            self.error(f"unexpected argument '{unknown[0]}'")
        return found, unknown

    def error(self, message: str) -> NoReturn:
        """Complain in one line and exit with code 2."""
        wrong = message.partition("; known: ")[0]
        self.exit(_complain(wrong if wrong.endswith("?") else f"{wrong}; `{self.prog} -h` shows what it takes", 2))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 fine, 1 something is wrong with the data or a cell, 2 a mistake."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="ovss-bench")
    parser = parser_of(arguments)
    args = parser.parse_args(arguments)
    args.arguments = arguments
    warnings.showwarning = _one_line_warning  # type: ignore[assignment]
    keep_freed_memory()
    try:
        with _sigterm_as_interrupt():
            code: int = args.main(args)
    except BenchError as error:
        return _complain(str(error), 2)
    except KeyboardInterrupt:
        if SAID in os.environ:
            return INTERRUPTED  # the process that started this one says so
        lost = "nothing of what it was doing is kept, run the same command again"
        return _complain(f"interrupted; {CONTINUES.get(args.command, lost)}", INTERRUPTED)
    except BrokenPipeError:  # the reader of our output is gone, as in `… | head`
        sys.stderr.close()
        return 0
    except OSError as error:
        if error.errno not in NO_BUGS:
            raise
        advice = "free some" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "correct the permissions or the path"
        reason = os.strerror(error.errno).lower()
        return _complain(f"{error.filename or 'a write'}: {reason}; {advice} and run the same command again", 2)
    return code


@contextlib.contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Let SIGTERM raise KeyboardInterrupt, as Ctrl-C does, in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _spelled(error: UnicodeError) -> tuple[str, int]:
    """Spell signs that the terminal's encoding lacks by some that it has."""
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end]
    return "".join(SPELLED.get(sign, "?") for sign in text), error.end


codecs.register_error("ovss-bench", _spelled)


def parser_of(
    arguments: Sequence[str], prog: str = "python -m bench", everything: bool = False
) -> argparse.ArgumentParser:
    """Parser of a command line, with the flags of the command that it names, or of all."""
    parser = Parser(
        prog=prog,
        description="Reference benchmark for training-free open-vocabulary segmentation of remote sensing images.",
        epilog="python -m bench COMMAND -h shows a command's flags and an example.",
    )
    parser.add_argument("--version", action="version", version=f"ovss-bench {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    chosen = next((word for word in arguments if not word.startswith("-")), None)
    if chosen and chosen not in COMMANDS:
        parser.error(f"unknown command '{chosen}'; {did_you_mean(chosen, COMMANDS)}")
    for name, (summary, example) in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            epilog=f"example:\n  python -m bench {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if everything or name == chosen:
            module: Any = importlib.import_module(f"bench.cli.{MODULES.get(name, name)}")
            of_several = getattr(module, "COMMANDS", {}).get(name)
            add_arguments, run = of_several or (module.add_arguments, module.main)
            add_arguments(command)
            command.set_defaults(main=run)
    return parser


def complain(message: str) -> None:
    """Print what is wrong in one line, once for all processes that were started together."""
    if "WORLD_SIZE" in os.environ:
        from bench.runtime.distributed import said_already

        if said_already(message):
            return
    print(f"bench: {' '.join(message.split())}", file=sys.stderr, flush=True)


def _complain(message: str, code: int) -> int:
    complain(message)
    return code


def _one_line_warning(message: Warning | str, category: type[Warning], *_: object) -> None:
    if issubclass(category, UserWarning):
        complain(f"warning: {message}")
