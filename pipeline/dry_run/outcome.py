"""What a dry run finds: how each slide stands, and about what all that is to be done takes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from stages.amounts import counted, duration, size
from stages.html import table

DONE, STALE, EARLIER, TODO = "done", "stale", "failed earlier", "to do"
FAILS, LEFT = "would fail", "left out"
ORDER = (DONE, STALE, EARLIER, TODO, LEFT, FAILS)
"""What is said of slides."""
TO_DO = (STALE, EARLIER, TODO)


@dataclass(frozen=True, slots=True)
class DryRun:
    """What would be done; a notebook shows a row for each slide.

    Attributes:
        rows: of each slide ``slide_id``, ``path``, ``status`` and ``why``. The status is "done", "stale", "failed
            earlier" (it would be tried again), "to do", "left out" (of a run of those that failed earlier) or "would
            fail".
        read_bytes, disk_bytes, seconds: about what all that is to be done would read, write and take; None: unknown.
        how: by what that is judged, or why it is unknown.
        unit: what has a row: "slide", or "patient" with a model of patients.
    """

    rows: list[dict[str, str]] = field(repr=False)
    read_bytes: int | None = None
    disk_bytes: int | None = None
    seconds: float | None = None
    how: str = field(default="", repr=False)
    unit: str = field(default="slide", repr=False)

    @property
    def counts(self) -> dict[str, int]:
        """Slides of each status that occurs."""
        found = Counter(row["status"] for row in self.rows)
        return {status: found[status] for status in ORDER if found[status]}

    @property
    def lines(self) -> list[str]:
        """For a person: a line for each slide, how many there are of each kind, and what all of it takes."""
        told = [
            f"{row['slide_id']}: {row['status']}{': ' if row['why'] else ''}{' '.join(row['why'].split())}"
            for row in self.rows
        ]
        kinds = ", ".join(f"{count} {status}" for status, count in self.counts.items())
        told.append(f"{counted(len(self.rows), self.unit)}: {kinds}")
        to_do = sum(row["status"] in TO_DO for row in self.rows)
        if to_do:
            parts = [
                f"{verb} {'unknown' if value is None else f'about {tell(value)}'}"
                for verb, value, tell in (
                    ("read:", self.read_bytes, size),
                    ("written:", self.disk_bytes, size),
                    ("time:", self.seconds, duration),
                )
            ]
            told.append(f"for {counted(to_do, self.unit)} {', '.join(parts)} ({self.how})")
        return [*told, "nothing was written: this was a dry run"]

    def _repr_html_(self) -> str:
        rows = [(row["slide_id"], row["status"], row["why"]) for row in self.rows]
        return table(rows, header=(self.unit, "status", "why"), caption="; ".join(self.lines[len(rows) : -1]))
