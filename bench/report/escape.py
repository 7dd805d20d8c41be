"""Text of other people (labels, names, notes, reasons) as each format needs it, so that it stays text."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from bench.errors import one_line

if TYPE_CHECKING:
    import pandas as pd

_FORMULA = tuple("=+-@")  # at the start of a cell, by which spreadsheets know a formula
_MARKDOWN = re.compile(r"[\\`*|<]|(?<=\])\(")
_TEX = {
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "λ": r"$\lambda$",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}


def markdown_text(text: str) -> str:
    """Escape text for a paragraph or a table cell of Markdown: it yields no columns, lines, marks, links or elements.

    >>> print(markdown_text("SCLIP | <b>*best*</b>"))
    SCLIP \\| \\<b>\\*best\\*\\</b>
    """
    return _MARKDOWN.sub(r"\\\g<0>", one_line(text))


def tex_text(text: str) -> str:
    """Escape text for LaTeX: it yields no commands, groups or mathematics.

    >>> print(tex_text("50 % of \\\\input{x}"))
    50 \\% of \\textbackslash{}input\\{x\\}
    """
    return "".join(_TEX.get(sign, sign) for sign in one_line(text))


def csv_value(value: Any) -> Any:
    """Return the value for a cell of a CSV file: text that a spreadsheet would compute gets an apostrophe before it.

    >>> csv_value("=1+1"), csv_value("sclip+ours"), csv_value(-1.5)
    ("'=1+1", 'sclip+ours', -1.5)
    """
    if not isinstance(value, str):
        return value
    text = one_line(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def csv_text(frame: pd.DataFrame) -> str:
    """Return the frame as CSV without its index."""
    import pandas as pd

    numbers = set(frame.select_dtypes("number"))
    safe = {
        name: column if name in numbers else pd.Series([csv_value(value) for value in column], frame.index, object)
        for name, column in frame.items()
    }
    text: str = pd.DataFrame(safe, frame.index, frame.columns).to_csv(index=False)
    return text
