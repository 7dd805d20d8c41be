"""The one exception that a user is meant to see."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BenchError(Exception):
    """A condition that the user can mend.

    The message is one line: what is wrong, where (file, key, value), and what to do next. The command line
    prints it without a traceback and exits with code 2.
    """


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The tail of an "unknown name" message: the closest names first, else all of them."""
    names = sorted(set(known))
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if close:
        return f"did you mean {', '.join(close)}?"
    return f"known: {', '.join(names) or 'none'}"
