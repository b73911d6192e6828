"""Which slides failed in an output folder when they were last tried: a note each, which goes once they do not."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterable, Mapping
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
        """Why a slide failed when it was last tried, as this file or another of its name; None where it did not."""
        return reason_among(self.every(slide_id), str(path))

    def every(self, slide_id: str | None = None) -> list[dict[str, Any]]:
        """All notes, or those of one name, by the slides' names."""
        told = (read_json(file) for file in self._files(slide_id))
        found = [one for one in told if one is not None and {"slide_id", "path", "error"} <= one.keys()]
        return [one for one in found if slide_id in (None, one["slide_id"])]

    def _drop(self, slide_id: str, path: Place, *, but: Path | None = None) -> None:
        """Take away the notes of a name that are of this file or of one that is gone, and the folder with its last."""
        for file in self._files(slide_id):
            told = read_json(file) or {}
            of_it = told.get("slide_id") == slide_id and (told["path"] == str(path) or gone(told["path"]))
            if file != but and (of_it or file == self._place(slide_id, path)):
                with suppress(OSError):
                    file.unlink()
        with suppress(OSError):
            (self.out / FOLDER).rmdir()

    def _files(self, slide_id: str | None) -> list[Path]:
        start, end = "" if slide_id is None else f"{slide_id}.", f".{self.command}.json"
        try:
            names = os.listdir(self.out / FOLDER)
        except OSError:  # most have none
            return []
        return [self.out / FOLDER / name for name in sorted(names) if name.startswith(start) and name.endswith(end)]

    def _place(self, slide_id: str, path: Place) -> Path:
        which = hashlib.sha256(str(path).encode("utf-8", "surrogateescape")).hexdigest()[:12]
        return self.out / FOLDER / f"{slide_id}.{which}.{self.command}.json"


def reason_among(notes: Iterable[Mapping[str, Any]], path: str) -> str | None:
    """Why a slide failed, of the notes of its name: that of its own file, else of another; None where there is none."""
    why = None
    for note in notes:
        if note["path"] == path:
            return str(note["error"])
        why = f"{note['error']} (as {note['path']})"
    return why


def not_among(notes: Iterable[Mapping[str, Any]], names: Collection[str]) -> str | None:
    """Which slides failed and are not among those that are given, in a line; None where there are none."""
    left = [f"{note['slide_id']} ({note['path']})" for note in notes if note["slide_id"] not in names]
    if not left:
        return None
    more = f" and {len(left) - MOST_NAMED} more" if len(left) > MOST_NAMED else ""
    return f"failed here, and not among these slides: {', '.join(left[:MOST_NAMED])}{more}; give what is to be tried"


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
