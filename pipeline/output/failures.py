"""Which slides failed in an output folder when they were last tried: a note each, which goes once they do not."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.output.documents import read_json, write_json
from stages.disk import PREFIX
from stages.place import Place

FOLDER = f"{PREFIX}failed"


@dataclass(frozen=True, slots=True)
class Failures:
    """Notes of what failed.

    A note decides nothing but what `--retry-failed` does and what is said: a slide that failed has no result, and every
    run tries it again, whatever the reason was.

    Attributes:
        out: the output folder.
        command: whose failures; a folder may hold those of several.
    """

    out: Path
    command: Literal["run", "cache"]

    def note(self, slide_id: str, path: Place, error: str, **more: Any) -> None:
        """A slide failed."""
        place = self._place(slide_id)
        told = {"slide_id": slide_id, "path": str(path), "error": error, **more}
        with suppress(OSError):  # who cannot write this cannot write the rest, and says so there
            place.parent.mkdir(exist_ok=True)
            write_json(place, told)

    def forget(self, slide_id: str) -> None:
        """A slide did not fail, or is worked on anew."""
        place = self._place(slide_id)
        with suppress(OSError):  # most have none
            place.unlink()
            place.parent.rmdir()  # of the last one

    def of(self, slide_id: str, path: Place) -> str | None:
        """Why a slide failed when it was last tried; None where it did not, or where it was another file."""
        told = read_json(self._place(slide_id))
        return None if told is None or told.get("path") != str(path) else str(told.get("error"))

    def among(self, slides: Iterable[tuple[str, Place]]) -> frozenset[str]:
        """Names of those that failed when they were last tried."""
        noted = self._noted()
        return frozenset(name for name, path in slides if name in noted and self.of(name, path) is not None)

    def every(self) -> list[dict[str, Any]]:
        """All notes, by the slides' names."""
        told = (read_json(self._place(slide_id)) for slide_id in sorted(self._noted()))
        return [one for one in told if one is not None and {"slide_id", "path", "error"} <= one.keys()]

    def _noted(self) -> set[str]:
        end = f".{self.command}.json"
        try:
            return {name.removesuffix(end) for name in os.listdir(self.out / FOLDER) if name.endswith(end)}
        except OSError:
            return set()

    def _place(self, slide_id: str) -> Path:
        return self.out / FOLDER / f"{slide_id}.{self.command}.json"
