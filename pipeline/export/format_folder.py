"""The folder of one format: ours by its mark, a slide's files each written in one step, and the table of its slides."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from contextlib import ExitStack
from glob import escape
from pathlib import Path

from pipeline.export.formats import Format, Row, names
from pipeline.export.slide_result import SlideResult
from pipeline.output.folder import prepare_output
from pipeline.output.table import write_table
from stages.disk import new_file, new_folder


class FormatFolder:
    """Where a format's files go.

    Args:
        path: the folder.
        format: the format.
        claimed: what in it is ours, from the folder on.
    """

    def __init__(self, path: Path, format: Format, claimed: Sequence[str]) -> None:
        self._path, self._format, self._claimed = path, format, set(claimed)
        self._rows: dict[str, Row | None] = {}

    @classmethod
    def of(cls, path: Path, format: Format, slides: Sequence[str]) -> FormatFolder:
        """The folder, made ready for the files of these slides.

        Raises:
            UsageError: it holds something that Saccade did not write where they go, or cannot be written.
        """
        fixed = [file.rstrip("/") for file in format.files if file.count("{") == file.count("{slide}")]
        files = [file.format(slide=slide) for slide in slides for file in fixed]
        prepare_output(path, names=[*files, *([format.table] if format.table else [])])
        return cls(path, format, files)

    def write(self, found: SlideResult) -> None:
        """Write the files of a slide.

        Raises:
            UsageError, ValueError, OSError: they cannot be written.
        """
        files = [file.format(**names(found)) for file in self._format.files]
        for file in files:
            self._claim(file)
        if self._format.labelled and found.label_number is None:
            for file in files[-self._format.labelled :]:
                (self._path / file).unlink(missing_ok=True)  # of what it was called before
            files = files[: -self._format.labelled]
        with ExitStack() as unfinished:
            places = []
            for file in files:
                place = self._path / file
                place.parent.mkdir(parents=True, exist_ok=True)
                new = new_folder(place, ours=lambda path: True) if file.endswith("/") else new_file(place)
                places.append(unfinished.enter_context(new))
            self._format.write(found, places)
        self._rows[found.slide_id] = self._format.row(found)

    def _claim(self, file: str) -> None:
        """Make sure that a file's place is ours; a folder whose name tells what is in it is so as a whole."""
        if file.rstrip("/") in self._claimed:
            return
        first = file.partition("/")[0]
        if first not in self._claimed:
            prepare_output(self._path, names=[first])
            self._claimed.add(first)

    def write_table(self) -> None:
        """Write the table of the slides: those of this export, and of earlier ones into this folder. A slide that was
        none for it this time, as it has lost its label, has no row any more."""
        if self._format.table is None or not self._rows:
            return
        path = self._path / self._format.table
        rows: dict[str, Row | None] = {}
        columns: Sequence[str] | None = None
        if path.is_file():
            with path.open(newline="", encoding="utf-8") as file:
                reader = csv.DictReader(file)
                rows = {row["slide_id"]: row for row in reader if row.get("slide_id")}
                columns = reader.fieldnames
        rows |= self._rows
        kept = [row for row in rows.values() if row is not None]
        if kept or columns is not None:
            write_table(path, kept, None if kept else columns)

    def holds(self, slide: str) -> bool:
        """Whether an earlier export wrote something of a slide."""
        anything = {"slide": escape(slide), "patches": "*", "encoder": "*"}
        return any(True for file in self._format.files for _ in self._path.glob(file.format(**anything).rstrip("/")))
