"""The folder of one format: ours by its mark, a slide's files each written in one step, and the table of its slides."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from glob import escape
from pathlib import Path, PurePosixPath

from pipeline.errors import UsageError
from pipeline.export.formats import Format, Row, names
from pipeline.export.kept import RECORDS, Kept, Source
from pipeline.export.slide_result import SlideResult
from pipeline.output.folder import prepare_output
from pipeline.output.table import write_table
from stages.disk import PREFIX, new_file, new_folder, remove_unfinished
from stages.lease import HeldError, lease


class FormatFolder:
    """Where a format's files go.

    Args:
        path: the folder.
        format: the format.
        claimed: what in it is ours, from the folder on.
        kept: what it holds already.
    """

    def __init__(self, path: Path, format: Format, claimed: Sequence[str], kept: Kept) -> None:
        self._path, self._format, self._claimed, self._kept = path, format, set(claimed), kept
        self._rows: dict[str, Row | None] = {}

    @classmethod
    @contextmanager
    def held(cls, path: Path, format: Format, slides: Mapping[str, Source | None]) -> Iterator[FormatFolder]:
        """The folder, made ready for the files of these slides, and no other export's for as long as the block lasts;
        what a killed one left unfinished goes first.

        Raises:
            UsageError: it holds something that Saccade did not write where they go, or slides of another run, or cannot
                be written, or another export is at work.
        """
        kept = Kept(path)
        kept.refuse_others(slides)
        fixed = [file.rstrip("/") for file in format.files if file.count("{") == file.count("{slide}")]
        files = [file.format(slide=slide) for slide in slides for file in fixed]
        prepare_output(path, names=[*files, RECORDS, *([format.table] if format.table else [])])
        try:
            with lease(path / f"{PREFIX}export"):
                anything = [file.format(slide="*", patches="*", encoder="*") for file in format.files]
                above = {PurePosixPath(file).parent.as_posix() for file in (*anything, f"{RECORDS}/*")} - {"."}
                for folder in (path, *(folder for pattern in above for folder in path.glob(pattern))):
                    remove_unfinished(folder)
                yield cls(path, format, files, kept)
        except HeldError:
            raise UsageError(f"another export works into {path}: wait for its end, or give another --out") from None

    def keeps(self, slide: str, source: Source | None) -> bool:
        """Whether a slide's files are there as an earlier export wrote them, of the same: it need not be written."""
        if source is None or not self._kept.has(slide, source):
            return False
        self._rows[slide] = self._kept.row(slide)
        return True

    def write(self, found: SlideResult, source: Source | None) -> None:
        """Write the files of a slide, and what they are made of.

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
        row = self._rows[found.slide_id] = self._format.row(found)
        if source is not None:
            self._kept.write(found.slide_id, source, files, row)

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
