"""Amounts as people read them."""

from __future__ import annotations

import re


def counted(count: int, noun: str) -> str:
    """So many of something: "1 slide", "2 slides", "3 patches"."""
    return f"{count:,} {noun}{'' if count == 1 else 'es' if noun.endswith('ch') else 's'}"


def apart(name: str) -> str:
    """A name as it stands beside a number: one that may be taken for a part of it, such as a class 1, is quoted."""
    return name if name[:1].isalpha() else repr(name)


def as_given(value: float) -> str:
    """A number that somebody gave, in the fewest digits that are it: "0.5", "0.9999999999", "1e-300"."""
    return repr(float(value)).removesuffix(".0")


_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_UNITS |= {f"{unit}i": 1024**power for power, unit in enumerate("kmgt", 1)}


def amount(text: str) -> int:
    """Bytes that a size stands for: "4GB", "512 MB", "1.5GiB", "100000".

    Raises:
        ValueError: it is no size.
    """
    found = re.fullmatch(r"\s*(\d+\.?\d*(?:e\d+)?)\s*([kmgt]?i?)b?\s*", text.lower())
    if found is None or found[2] not in _UNITS or not float(found[1]) > 0:
        raise ValueError(f"expected a size, such as 4GB or 500MB, found {text!r}")
    return round(float(found[1]) * _UNITS[found[2]])


def size(count: float) -> str:
    """Bytes in the unit that shows three digits: "512 B", "48.3 kB", "1.21 GB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.0f} B" if unit == "B" else f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} TB"


def duration(seconds: float) -> str:
    """About how long: "1 s", "12 minutes", "2.5 hours"."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
