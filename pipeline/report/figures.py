"""Numbers of a report as text and as small pictures; what is missing reads as missing."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from html import escape
from typing import Any

MISSING = "\N{EN DASH}"


def number(value: Any) -> float | None:
    """A finite number, or None for what is missing, empty or not a number."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def show(value: Any, form: str) -> str:
    """A number in a format, or that it is missing."""
    found = number(value)
    return MISSING if found is None else format(found, form)


def bytes_in_words(value: Any) -> str:
    """A number of bytes with its unit."""
    found = number(value)
    if found is None:
        return MISSING
    for unit in ("B", "kB", "MB", "GB"):
        if found < 1000:
            return f"{found:.0f} B" if unit == "B" else f"{found:.3g} {unit}"
        found /= 1000
    return f"{found:,.3g} TB"


def paragraphs(lines: Sequence[str]) -> str:
    """A paragraph each; what stands between backticks is to be typed."""
    text = "".join(f"<p>{escape(line)}</p>" for line in lines)
    return re.sub("`([^`<]+)`", r"<code>\1</code>", text)


def duration(seconds: float | None) -> str:
    """Seconds for a person."""
    if seconds is None:
        return MISSING
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def moment(run: Mapping[str, Any], key: str) -> datetime | None:
    """When the run says that something was, if it does."""
    try:
        return datetime.fromisoformat(str(run[key]))
    except (KeyError, ValueError):
        return None


def unit_of(row: Mapping[str, Any]) -> str:
    """What a row is of: "patient" with a model of patients, else "slide"."""
    return "patient" if "patient" in row else "slide"


def total(rows: Sequence[Mapping[str, Any]], key: str) -> float:
    """The sum of a column over rows; what is missing counts as 0."""
    return sum(number(row.get(key)) or 0.0 for row in rows)


def bar(value: Any, low: Any, high: Any, words: str) -> str:
    """A value between 0 and 1 with its interval, as an inline picture that ``words`` tell; none of another one."""
    at = number(value)
    if at is None:
        return MISSING
    start, end = number(low), number(high)
    if not all(0 <= one <= 1 for one in (at, start, end) if one is not None):
        return ""
    band = ""
    if start is not None and end is not None:
        width = max(1.0, 126 * (end - start))
        band = f'<rect class="band" x="{2 + 126 * start:.1f}" y="3" width="{width:.1f}" height="10"/>'
    return (
        f'<svg role="img" aria-label="{escape(words)}" width="130" height="16" viewBox="0 0 130 16">'
        f"<title>{escape(words)}</title>"
        '<rect class="track" x="2" y="7" width="126" height="2"/>'
        '<rect class="half" x="64.5" y="4" width="1" height="8"/>'
        f'{band}<rect class="point" x="{0.5 + 126 * at:.1f}" y="1" width="3" height="14" rx="1"/></svg>'
    )


def estimate(value: Any, low: Any, high: Any, name: str) -> str:
    """Cells of a table row: a metric, its interval, and both as a picture."""
    interval = MISSING if number(low) is None else f"{show(low, '.3f')} to {show(high, '.3f')}"
    words = f"{name}: {show(value, '.3f')}, interval {interval}"
    return (
        f'<td class="number">{show(value, ".3f")}</td><td class="number">{interval}</td>'
        f"<td>{bar(value, low, high, words)}</td>"
    )
