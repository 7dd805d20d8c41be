"""The one exception that a user is meant to see, and functions that turn other ones into it."""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pydantic import ValidationError


INTERRUPTED: Final = 130
"""Exit code after Ctrl-C or SIGTERM, as shells report it."""


SAID: Final = "OVSS_BENCH_SAID"
"""Environment variable of processes that another one has started: a folder with a file for each message that one of
them has printed."""


SHOWN: Final = 8
"""Names or values that an error lists at most."""


class BenchError(Exception):
    """A condition that the user can correct.

    The message is one line: what is wrong, where (file, key, value), and what to do next. The command line
    prints it without a traceback and exits with code 2.
    """


class SharedStateLost(BenchError):
    """Something that all rows share was changed and cannot be put back: the run ends."""


@contextlib.contextmanager
def reading(what: object, instead: str = "") -> Iterator[None]:
    """Answer what goes wrong when a file is read in one line, a BenchError.

    what: the file, with the flag or key that names it
    instead: what to do next
    """
    try:
        yield
    except OSError as error:
        raise BenchError(_line(what, f"cannot be read ({error.strerror or error})", instead)) from None
    except UnicodeDecodeError:
        raise BenchError(_line(what, "not a text file", instead)) from None


@contextlib.contextmanager
def writing(what: object, instead: str = "give another place") -> Iterator[None]:
    """Answer what goes wrong when a file is written in one line, a BenchError; see `reading`."""
    try:
        yield
    except OSError as error:
        # rasterio's own words name no reason
        raise BenchError(
            _line(what, f"cannot be written ({error.strerror or error.__cause__ or error})", instead)
        ) from None


def _line(what: object, wrong: str, instead: str) -> str:
    return f"{what}: {wrong}" + (f"; {instead}" if instead else "")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Write the tail of an "unknown name" message: the closest name, else those known, of many the first few.

    >>> did_you_mean("segearth", ["clip", "segearth-ov"])
    'did you mean segearth-ov?'
    """
    names = sorted(set(known))
    if close := difflib.get_close_matches(name, names, n=1, cutoff=0.5):
        return f"did you mean {close[0]}?"
    return f"known: {few(names) or 'none'}"


def few(names: Sequence[str]) -> str:
    """Join names by commas, of many the first few.

    >>> few([str(number) for number in range(255)])
    '0, 1, 2, 3, 4, 5, 6, 7 and 247 more'
    """
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN + 1 else ""
    return f"{', '.join(names[:SHOWN] if more else names)}{more}"


def check_known(name: str, known: Iterable[str], wrong: str) -> None:
    """Raise BenchError, with what is `wrong` and the closest names, for a name that is not among those known."""
    if name not in (names := list(known)):
        raise BenchError(f"{wrong}; {did_you_mean(name, names)}")


def listed(names: str | Sequence[object] | None, where: str) -> list[str] | None:
    """Split "a,b" or a list into names; None for None. BenchError for a text without any, such as an unset variable.

    >>> listed("clip, sclip[debias=0,scale=40]", "--methods")
    ['clip', 'sclip[debias=0,scale=40]']
    """
    if names is None:
        return None
    parts = re.split(r",(?![^\[]*\])", names) if isinstance(names, str) else map(str, names)  # not inside of brackets
    found = [part.strip() for part in parts if part.strip()]
    if not found and isinstance(names, str):
        raise BenchError(f"{where} '{names}': names nothing; give names, or leave it out")
    return found


def one_line(text: str) -> str:
    """Strip line breaks and control characters; each run of these and of spaces becomes one space.

    >>> one_line("a\\n\\tb\\x1b[31m")
    'a b [31m'
    """
    if not text.isprintable():
        text = "".join(sign if sign.isprintable() else " " for sign in text)
    return " ".join(text.split())


def validation_message(file: Path, error: ValidationError) -> str:
    """One line for what pydantic found wrong in a file: file, key, value, reason.

    Unknown keys come first, then all keys that are missing.
    """
    order = {"extra_forbidden": 0, "unknown_key": 0, "missing": 1}
    found = sorted(error.errors(), key=lambda one: order.get(one["type"], 2))
    first = found[0]
    key = ".".join(str(part) for part in first["loc"]) or "top level"
    if first["type"] == "missing":
        missing = [".".join(map(str, one["loc"])) for one in found if one["type"] == "missing"]
        return f"{file}: lacks {', '.join(missing)}"
    if first["type"] == "extra_forbidden":
        return f"{file}: unknown key '{key}'; remove or correct it"
    value = "" if isinstance(first["input"], dict) else f" (value {first['input']!r})"
    return f"{file}: {key}: {first['msg'].removeprefix('Value error, ')}{value}"
