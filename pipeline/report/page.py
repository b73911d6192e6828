"""A page of ours: sections with one style, which needs no network and opens from a file:// address."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from html import escape
from pathlib import Path

from pipeline.output.run_record import NOTICE
from stages.place import tellable

STYLE = Path(__file__).with_name("report.css").read_text(encoding="utf-8")


def write_page(path: Path, title: str, body: Sequence[str], *, script: str = "", upright: bool = False) -> None:
    """Write sections as an HTML file that needs no network; empty ones are left out.

    Args:
        path: the file.
        title: as text.
        body: the sections, as HTML.
        script: that runs in the page; empty: none may.
        upright: whether paper is; it lies, as wide tables ask for, without.
    """
    kind = ' class="upright"' if upright else ""
    scripts = _digest(script) if script else "'none'"
    policy = (
        "default-src 'none'; img-src 'self' file: data:; base-uri 'none'; form-action 'none'; "
        f"style-src {_digest(STYLE)}; script-src {scripts}"
    )
    page = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body{kind}>\n"
        + "\n".join(part for part in body if part)
        + f'\n<footer class="soft">{escape(NOTICE)}</footer>\n'
        + (f"<script>{script}</script>\n" if script else "")
        + "</body>\n</html>\n"
    )
    # names that are not valid UTF-8 reach Python as lone surrogates
    path.write_text(tellable(page), encoding="utf-8", newline="\n")


def _digest(text: str) -> str:
    """What lets exactly this inline style or script through the page's content policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
