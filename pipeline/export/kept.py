"""What was exported of a slide and of what: so that the same is not written twice, nor another run's beside it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import UsageError
from pipeline.output.documents import plain, read_json, write_json
from pipeline.output.slide_folder import THUMBNAIL, read_commit
from pipeline.version import code_digest
from pipeline.view.run_folder import RunFolder, SlideRow

RECORDS = ".exported"
"""Folder of a format's folder with a record of each slide."""
_READ = ("attention.zarr", "evidence.zarr", "samples.h5", "overlay.geojson", THUMBNAIL)
"""What of a slide's results exports are made of, beside its commit mark."""

State = dict[str, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Source:
    """What the files of a slide are made of.

    Attributes:
        made_of: SHA-256 over all of it: the results and their times, what the run's tables say, the code that writes.
        run: which model and settings predicted it; of versions that did not say, which folder it is in.
        folder: of the run.
        fingerprint: of the slide.
    """

    made_of: str
    run: str
    folder: str
    fingerprint: str

    @classmethod
    def of(cls, run: RunFolder, slide: SlideRow) -> Source | None:
        """That of a slide with results; None where they are not whole."""
        assert slide.folder is not None, "a slide without results has nothing to export"
        commit, folder = read_commit(slide.folder), str(run.folder.resolve())
        if commit is None:
            return None
        said = [run.task.kind, run.task.names, slide.row, slide.label, slide.patient, commit]
        text = json.dumps(plain([code_digest(), *said, state_of(slide.folder, _READ)]), sort_keys=True)
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        return cls(digest, str(commit.get("run") or folder), folder, str(commit.get("fingerprint")))


def state_of(folder: Path, names: Iterable[str]) -> State:
    """Size in bytes and time of modification in ns of each file of these names, or below folders of them, that is in a
    folder, by its path from there."""
    found = (file for name in names for file in (folder / name, *sorted((folder / name).rglob("*"))))
    stats = {file.relative_to(folder).as_posix(): file.stat() for file in found if file.is_file()}
    return {name: (stat.st_size, stat.st_mtime_ns) for name, stat in stats.items()}


class Kept:
    """The records of a format's folder.

    Args:
        folder: of the format.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        found = {path.stem: read_json(path) for path in (folder / RECORDS).glob("*.json")}
        self._records = {name: record for name, record in found.items() if record is not None}

    def refuse_others(self, sources: Mapping[str, Source | None]) -> None:
        """Refuse slides of another run, which would lie among these or be replaced by them.

        Slides of several runs of one model and the same settings may lie together. A run that was made anew with others
        replaces its own.

        Raises:
            UsageError: there are such.
        """
        runs = {source.run for source in sources.values() if source is not None}
        for name, record in self._records.items():
            own = sources.get(name)
            if own is not None and record.get("folder") == own.folder:
                continue
            if runs and record.get("run") not in runs:
                why = "which another model or other settings predicted"
            elif own is not None and record.get("fingerprint") != own.fingerprint:
                why = "which is another slide of that name"
            else:
                continue
            raise UsageError(
                f"{self._folder} has {name!r} of the run {record.get('folder')}, {why}: the two would mix; give "
                f"another --out, or remove {self._folder}"
            )

    def has(self, slide: str, source: Source) -> bool:
        """Whether all files of a slide are as they were written, of the same."""
        record = self._records.get(slide, {})
        if record.get("made_of") != source.made_of:
            return False
        there = state_of(self._folder, record["of"])
        return there == {name: tuple(state) for name, state in record["files"].items()}

    def row(self, slide: str) -> Mapping[str, Any] | None:
        """What a slide has in the format's table."""
        row: Mapping[str, Any] | None = self._records[slide]["row"]
        return row

    def write(self, slide: str, source: Source, files: Iterable[str], row: Mapping[str, Any] | None) -> None:
        """Record a slide whose files, from the format's folder on, were written."""
        names = sorted(file.rstrip("/") for file in files)
        record = {**asdict(source), "of": names, "files": state_of(self._folder, names), "row": row}
        (self._folder / RECORDS).mkdir(exist_ok=True)
        write_json(self._folder / RECORDS / f"{slide}.json", record)
