"""Which slides failed in an output folder when they were last tried: a note each, which goes once they do not."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.output.documents import read_json, write_json
from stages.disk import PREFIX
from stages.place import Place, Url, place

FOLDER = f"{PREFIX}failed"
TRIES = 3
"""To write a note: another process may take the folder away with its last one."""
NOTHING_FAILED = "none of these slides failed here when it was last tried: there is nothing to try again"
MOST_NAMED = 5
"""Slides that are named in a line."""


@dataclass(frozen=True, slots=True)
class Failures:
    """Notes of what failed.

    A note decides nothing but what `--retry-failed` does and what is said: a slide that failed has no result, and every
    run tries it again, whatever the reason was. Slides of one name have a note for each of their files; that of a file
    which is gone goes with whatever becomes of another of its name, where it was moved to.

    Attributes:
        out: the output folder.
        command: whose failures; a folder may hold those of several.
    """

    out: Path
    command: Literal["run", "cache"]

    def note(self, slide_id: str, path: Place, error: str, **more: Any) -> None:
        """A slide failed."""
        where = self._place(slide_id, path)
        told = {"slide_id": slide_id, "path": str(path), "error": error, **more}
        for _ in range(TRIES):
            with suppress(OSError):  # who cannot write this cannot write the rest, and says so there
                where.parent.mkdir(exist_ok=True)
                write_json(where, told)
                break
        self._drop(slide_id, path, but=where)

    def forget(self, slide_id: str, path: Place) -> None:
        """A slide did not fail, or is worked on anew."""
        self._drop(slide_id, path)

    def of(self, slide_id: str, path: Place) -> str | None:
        """See `Notes.of`."""
        return Notes([note for file in self._files(slide_id, path) if (note := _read(file)) is not None]).of(
            slide_id, path
        )

    def read(self) -> Notes:
        """All notes, by the slides' names."""
        end = f".{self.command}.json"
        return Notes([note for file in self._all() if file.name.endswith(end) and (note := _read(file)) is not None])

    def _drop(self, slide_id: str, path: Place, *, but: Path | None = None) -> None:
        """Take away the notes of this file, and those of its name of files that are gone; the folder with its last."""
        for file in self._files(slide_id, path):
            told = _read(file) or {"slide_id": "", "path": ""}
            of_it = told["path"] == str(path) or (told["slide_id"] == slide_id and gone(told["path"]))
            if file != but and (of_it or file == self._place(slide_id, path)):
                with suppress(OSError):
                    file.unlink()
        with suppress(OSError):
            (self.out / FOLDER).rmdir()

    def _files(self, slide_id: str, path: Place) -> list[Path]:
        """Of the notes that may be of this name, or are of this file."""
        start, end = f"{slide_id}.", f".{self.command}.json"
        own = f".{_which(path)}{end}"
        return [
            file
            for file in self._all()
            if file.name.endswith(end) and (file.name.startswith(start) or file.name.endswith(own))
        ]

    def _all(self) -> list[Path]:
        try:
            return [self.out / FOLDER / name for name in sorted(os.listdir(self.out / FOLDER))]
        except OSError:  # most have none
            return []

    def _place(self, slide_id: str, path: Place) -> Path:
        return self.out / FOLDER / f"{slide_id}.{_which(path)}.{self.command}.json"


class Notes:
    """What failed when it was last tried, by name and by file.

    Attributes:
        every: the notes, each with ``slide_id``, ``path`` and ``error``.
    """

    def __init__(self, every: Sequence[Mapping[str, Any]] = ()) -> None:
        self.every = every
        self._by: dict[str, list[Mapping[str, Any]]] = {}
        for note in every:
            for name in (note["slide_id"], note["path"]):
                self._by.setdefault(name, []).append(note)

    def of(self, slide_id: str, path: Place) -> str | None:
        """Why a slide failed: this file, by whatever name, else another of its name; None where none did."""
        found = [*self._by.get(str(path), ()), *self._by.get(slide_id, ())]
        if not found:
            return None
        told = found[0]
        return str(told["error"]) if told["path"] == str(path) else f"{told['error']} (as {told['path']})"

    def others(self, slides: Iterable[tuple[str, Place]]) -> str | None:
        """Which slides failed and are not among these, in a line; None where there are none."""
        given = {text for slide_id, path in slides for text in (slide_id, str(path))}
        left = [f"{n['slide_id']} ({n['path']})" for n in self.every if not given & {n["slide_id"], n["path"]}]
        if not left:
            return None
        more = f" and {len(left) - MOST_NAMED} more" if len(left) > MOST_NAMED else ""
        return (
            f"failed here, and not among these slides: {', '.join(left[:MOST_NAMED])}{more}; give what is to be tried"
        )


def _read(file: Path) -> dict[str, Any] | None:
    told = read_json(file)
    return told if told is not None and {"slide_id", "path", "error"} <= told.keys() else None


def _which(path: Place) -> str:
    return hashlib.sha256(str(path).encode("utf-8", "surrogateescape")).hexdigest()[:12]


def gone(path: str) -> bool:
    """Whether a slide's file is no longer there; one in a store counts as there, as does one that cannot be asked."""
    where = place(path)
    try:
        if not isinstance(where, Url):
            os.lstat(where)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError):
        pass
    return False
