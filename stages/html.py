"""What a notebook shows of our values: small tables in which every name is escaped."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape


def table(rows: Iterable[Sequence[object]], *, header: Sequence[str] = (), caption: str = "") -> str:
    """An HTML table; names of slides and classes are text in it, whatever characters they have.

    Args:
        rows: cells, each shown as `str` gives it.
        header: names of the columns.
        caption: above the table.
    """
    above = f"<caption style='text-align: left'>{_text(caption)}</caption>" if caption else ""
    head = f"<thead><tr>{_cells('th', header)}</tr></thead>" if header else ""
    body = "".join(f"<tr>{_cells('td', row)}</tr>" for row in rows)
    return f"<table>{above}{head}<tbody>{body}</tbody></table>"


def _text(value: object) -> str:
    # file names that are not valid Unicode reach Python as lone surrogates, which no page can hold
    return escape(str(value)).encode("utf-8", "backslashreplace").decode()


def _cells(tag: str, values: Iterable[object]) -> str:
    return "".join(f"<{tag} style='text-align: left'>{_text(value)}</{tag}>" for value in values)


def image(png: bytes, *, description: str) -> str:
    """A picture that travels inside the page."""
    return f"<img alt='{_text(description)}' src='data:image/png;base64,{base64.b64encode(png).decode()}'>"
