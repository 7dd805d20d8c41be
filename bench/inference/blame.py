"""Where in a plug-in's file something went wrong."""

from __future__ import annotations

import functools
import inspect
import traceback
from pathlib import Path
from typing import Any


def described(error: Exception, method: object) -> str:
    """Describe a method's error in one line, with file and line of the plug-in.

    The line is that of the frame in the plug-in that was reached last, or of the function whose result was refused.
    """
    place = _place(error, method)
    return f"{type(error).__name__}: {error}" + (f" ({place})" if place else "")


def _place(error: Exception, method: object) -> str | None:
    function: Any = inspect.unwrap(method.func) if isinstance(method, functools.partial) else method
    owner = function if inspect.isroutine(function) else type(function)
    try:
        file = Path(inspect.getfile(owner)).resolve()
        _, first = inspect.getsourcelines(owner)
    except (OSError, TypeError):  # built in a test or a notebook
        return None
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename).resolve() == file and frame.lineno]
    return f"{file.name}, line {lines[-1] if lines else first}"
