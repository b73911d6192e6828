"""Splits that somebody made elsewhere: a row a slide, or CLAM's files, each with a column for train, val and test."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from pipeline.cohort.columns import NAMES, SLIDE_NAMES, Rows, round_columns
from pipeline.cohort.rows import fold_of, read_rows, split_of
from pipeline.cohort.spelling import column_key, is_missing
from pipeline.errors import UsageError

Part = int | str | None
"""The fold that tests on a slide; or train, val or test; None: neither."""
PARTS = ("train", "val", "test")
_FORMS = (
    "expected a row a slide with slide_id and fold, split, or fold_0, fold_1 ... of several repeats; or, as in CLAM's "
    "splits_0.csv, columns train, val and test with slides below"
)


def read_splits(path: Path) -> dict[str, tuple[Part, ...]]:
    """What each slide is in each of the given splits, by the name that it has there.

    Args:
        path: a table; or a folder of CLAM's ``splits_0.csv``, ``splits_1.csv`` ..., each of which is one split.

    Raises:
        UsageError: it is neither, names a slide twice, or has another word than train, val and test.
    """
    if not path.exists():
        raise UsageError(f"training.splits: no file or folder {path}; correct the path")
    if not path.is_dir():
        return _read(path)
    numbered = {
        int(found[1]): file for file in path.iterdir() if (found := re.fullmatch(r"splits_(\d+)\.csv", file.name))
    }
    if not numbered:
        raise UsageError(f"{path}: no splits_0.csv, splits_1.csv ... in this folder: correct training.splits")
    each = [_read(file) for _, file in sorted(numbered.items())]
    if any(len(parts) != 1 or isinstance(parts[0], int) for one in each for parts in one.values()):
        raise UsageError(f"{path}: each splits_*.csv in it must be one split; {_FORMS}")
    names = dict.fromkeys(name for one in each for name in one)
    return {name: tuple(one.get(name, (None,))[0] for one in each) for name in names}


def _read(path: Path) -> dict[str, tuple[Part, ...]]:
    header, rows, _ = read_rows(path)
    at = {column_key(name): i for i, name in enumerate(header)}
    found: dict[str, tuple[Part, ...]] = {}

    def add(name: str, parts: tuple[Part, ...], where: str) -> None:
        name = re.sub(r"^(\d+)\.0$", r"\1", name)  # what pandas makes of whole numbers beside empty cells
        if name in found:
            raise UsageError(f"{path}, {where}: slide {name!r} is there twice; remove one")
        found[name] = parts

    if "train" in at and not {"split", "fold"} & at.keys():
        columns = [(name, at[name]) for name in PARTS if name in at]
        cells = {row[i] for _, row in rows for _, i in columns}
        if cells and cells <= {"True", "False"}:
            for number, row in rows:
                mine = [name for name, i in columns if row[i] == "True"]
                if len(mine) > 1:
                    raise UsageError(f"{path}, row {number}: slide {row[0]!r} is in {' and '.join(mine)}; correct it")
                add(row[0], (mine[0] if mine else None,), f"row {number}")
            return found
        for name, i in columns:
            for number, row in rows:
                if not is_missing(row[i]):
                    add(row[i], (name,), f"row {number}, column {name}")
        return found
    named = next((at[key] for name in (*SLIDE_NAMES, *NAMES["slide"]) if (key := column_key(name)) in at), None)
    several = _columns(header, rows, at, path)
    if named is None or not several:
        raise UsageError(f"{path}: {_FORMS}; found {', '.join(header)}")
    for number, row in rows:
        parts = tuple(part_of(row[i], header[i], f"{path}, row {number}") for i in several)
        add(row[named], parts, f"row {number}")
    return found


def part_of(cell: str, column: str, where: str) -> Part:
    """What a slide is by the cell of a column fold or split, or of one of fold_0, fold_1 ..., in which some write train
    and test.

    Raises:
        UsageError: see `fold_of` and `split_of`.
    """
    is_number = column.casefold().startswith("fold") and not cell[:1].isalpha()
    return fold_of(cell, where) if is_number else split_of(cell, where)


def _columns(header: Sequence[str], rows: Rows, at: dict[str, int], path: Path) -> list[int]:
    single = [at[name] for name in ("fold", "split") if name in at]
    several = round_columns(header, path)
    if len(single) + bool(several) > 1:
        names = ", ".join(header[i] for i in (*single, *several))
        raise UsageError(f"{path}: which of the columns {names} is the split? Delete the others")
    return single or several
