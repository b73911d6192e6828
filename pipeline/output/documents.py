"""JSON documents: written in one step, read only where they are whole."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stages.disk import SpecialFileError, new_file, read_regular
from stages.place import Url


def write_json(path: Path, value: Any) -> None:
    """Write JSON (UTF-8): numpy values as plain numbers, paths as text, NaN and infinity as null."""
    _write(path, json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False))


def write_compact_json(path: Path, value: Any) -> None:
    """Write JSON (UTF-8) for programs, in one line without spaces.

    Raises:
        ValueError: a number is NaN or infinite.
        TypeError: a value has no JSON form.
    """
    _write(path, json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False))


def _write(path: Path, text: str) -> None:
    with new_file(path) as temporary:
        # backslashreplace: a file name that is not Unicode becomes the JSON escape of its surrogates
        temporary.write_bytes(f"{text}\n".encode("utf-8", "backslashreplace"))


def read_json(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file, or None where there is no file, or one that is cut off, damaged or not an object."""
    try:
        value = json.loads(read_regular(path))
    except (FileNotFoundError, NotADirectoryError, SpecialFileError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def plain(value: Any) -> Any:
    """A value as JSON has it: numpy values as plain numbers, paths as text, NaN and infinity as None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, Path | Url) else value
