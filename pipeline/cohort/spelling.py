"""What people write for one thing: names of columns, missing values, and texts that differ by what nobody sees."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

_MISSING = frozenset(
    (
        *(
            "",
            "-",
            "--",
            "---",
            "'--",
            ".",
            "..",
            "?",
            "n/a",
            "na",
            "n.a.",
            "#n/a",
            "#na",
            "<na>",
            "nan",
            "none",
            "null",
        ),
        *("nil", "missing", "unknown", "[unknown]", "not available", "[not available]", "not reported"),
        *("not applicable", "[not applicable]", "#value!", "#ref!"),
    )
)
_DASHES = dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63\uff0d_"), "-")
_CYRILLIC = str.maketrans("авекмнорстухі", "abekmhopctyxi")  # letters that look like Latin ones
_TCGA = re.compile(r"TCGA-[A-Z0-9]{2}-[A-Z0-9]{4}(?![A-Z0-9])", re.IGNORECASE)


def is_missing(text: str) -> bool:
    """Whether a cell says that there is no value: empty, NA, N/A, nan, None, null, unknown, -, ? and the like."""
    return unicodedata.normalize("NFKC", _visible(text)).translate(_DASHES).strip().casefold() in _MISSING


def column_key(name: str) -> str:
    """A column's name for comparison: `Patient ID`, `patient_id` and `PatientID` are one."""
    return re.sub(r"[\s_\-.]+", "", unicodedata.normalize("NFKC", _visible(name)).translate(_DASHES).casefold())


def near_equal(texts: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs of different texts that are likely meant to be one.

    Such differ only by case, spaces, invisible characters, Unicode's normal forms, kinds of dash, Cyrillic letters that
    look Latin, leading zeros or a trailing ".0" (007 and 7, P01 and P1, 1 and 1.0).
    """
    seen: dict[str, str] = {}
    pairs = ((seen.setdefault(_same(text), text), text) for text in sorted(set(texts)))
    return [(first, text) for first, text in pairs if first != text]


def is_number(text: str) -> bool:
    """Whether a text is a number as people write it."""
    return re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", text) is not None


def are_amounts(texts: Iterable[str]) -> bool:
    """Whether texts are numbers that count or name nothing: some are no whole ones, and there are more than two."""
    given = set(texts)
    return len(given) > 2 and all(map(is_number, given)) and any(not float(one).is_integer() for one in given)


def have_commas(texts: Iterable[str]) -> bool:
    """Whether texts are more than two numbers, some of them with a decimal comma."""
    given = set(texts)
    commas = {text for text in given if re.fullmatch(r"[+-]?[0-9]+,[0-9]+", text)}
    return len(given) > 2 and bool(commas) and all(map(is_number, given - commas))


def tcga_patient(name: str) -> str | None:
    """The patient of a TCGA barcode, its first twelve characters (TCGA-A1-A0SB of TCGA-A1-A0SB-01Z-00-DX1), or None.

    The two characters after the project are the tissue source site.
    """
    found = _TCGA.match(name)
    return found.group().upper() if found else None


def _visible(text: str) -> str:
    """Without characters that show nothing: zero-width ones, marks of order, byte order marks."""
    return "".join(char for char in text if unicodedata.category(char) not in ("Cf", "Cc") or char.isspace())


def _same(text: str) -> str:
    plain = unicodedata.normalize("NFKC", _visible(text)).translate(_DASHES).casefold().translate(_CYRILLIC)
    plain = re.sub(r"[\s-]*-[\s-]*|\s+", "-", plain.strip())
    number = re.fullmatch(r"(\D*?)0*([0-9]+)(\.0+)?", plain)
    return number[1] + number[2] if number else plain
