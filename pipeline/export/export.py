"""Write a run's slides in the formats of other programs, a slide after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from pipeline.errors import UsageError, reason_of
from pipeline.export.format_folder import FormatFolder
from pipeline.export.formats import Format, chosen_formats
from pipeline.export.kept import Source
from pipeline.export.slide_result import read_result
from pipeline.view.run_folder import AGAIN, RunFolder, SlideRow, open_run
from stages.amounts import counted
from stages.disk import FULL
from stages.install import from_folder

FOLDER = "export"
"""Of a run: where exports go by default."""

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True)
class ExportSummary:
    """What was exported.

    Attributes:
        out: the folder, which has one for each format.
        formats: their names.
        written: slides that were written, and are there in every format.
        kept: slides that an earlier export wrote of the same in every format, which stayed as they were.
        failed: why others were not, by their names.
        without: slides that the run has no result of, so that there was nothing to export.
    """

    out: Path
    formats: tuple[str, ...]
    written: int
    kept: int
    failed: Mapping[str, str]
    without: tuple[str, ...]

    @property
    def line(self) -> str:
        """It in a line."""
        parts = [f"{counted(self.written, 'slide')} written as {', '.join(self.formats)}"]
        parts += [f"{self.kept} kept, which had been written of the same"] if self.kept else []
        parts += [f"{len(self.failed)} failed"] if self.failed else []
        parts += [f"{len(self.without)} without a result in this run"] if self.without else []
        return ", ".join(parts)


def export_run(
    folder: Path,
    names: Sequence[str],
    *,
    out: Path | None = None,
    only: Sequence[str] = (),
    slides: Sequence[Path] = (),
    progress: Progress = lambda done, total, line: None,
) -> ExportSummary:
    """Write the slides of a run in other programs' formats; what is there already of the same, and whole, is kept.

    Args:
        folder: of the run.
        names: of formats, see `FORMATS`.
        out: where each format gets a folder of its name; default: `FOLDER` in the run.
        only: names of the slides to export; default: all.
        slides: folders that slides lie in by now.
        progress: told after each slide how many of how many are done, and a line about it.

    Raises:
        UsageError: nothing was begun: there is no such run, format or slide, or something else, or of another run, is
            at ``out``.
        ImportError: nothing was begun: a package is missing.
        OSError: the disk is full.
    """
    formats = chosen_formats(names)
    run = open_run(folder)
    wanted = _chosen_slides(run, only)
    for one in slides:
        if not one.is_dir():
            raise UsageError(f"--slides: there is no folder {one}: name one that is there, or leave --slides out")
    for name, format in formats.items():
        _refuse_missing(name, format)
    out = folder / FOLDER if out is None else out
    sources = {slide.name: Source.of(run, slide) for slide in wanted if slide.folder is not None}
    with ExitStack() as held:
        folders = {
            name: held.enter_context(FormatFolder.held(out / name, format, sources)) for name, format in formats.items()
        }
        return _export_slides(run, wanted, sources, folders, slides, out, progress)


def _export_slides(
    run: RunFolder,
    wanted: Sequence[SlideRow],
    sources: Mapping[str, Source | None],
    folders: Mapping[str, FormatFolder],
    slides: Sequence[Path],
    out: Path,
    progress: Progress,
) -> ExportSummary:
    failed: dict[str, str] = {}
    without, kept = [], 0
    for done, slide in enumerate(wanted, 1):
        if slide.folder is None and slide.row.get("status") == "ok":
            failed[slide.name] = f"its folder in {run.folder / 'slides'} is gone: {AGAIN}"
            told = f"FAILED: {failed[slide.name]}"
        elif slide.folder is None:
            without.append(slide.name)
            stale = [name for name, written_to in folders.items() if written_to.holds(slide.name)]
            told = "skipped, the run has no result of it" + (
                f"; what an earlier export wrote of it is still in {', '.join(stale)}" if stale else ""
            )
        else:
            source = sources[slide.name]
            lacking = {name: one for name, one in folders.items() if not one.keeps(slide.name, source)}
            reasons = _export(run, slide, source, lacking, slides) if lacking else ""
            failed |= {slide.name: reasons} if reasons else {}
            kept += not lacking
            told = f"FAILED: {reasons}" if reasons else "written" if lacking else "kept"
        progress(done, len(wanted), f"{slide.name}: {told}")
    for written_to in folders.values():
        written_to.write_table()
    written = len(wanted) - kept - len(failed) - len(without)
    return ExportSummary(out, tuple(folders), written, kept, failed, tuple(without))


def _export(
    run: RunFolder,
    slide: SlideRow,
    source: Source | None,
    folders: Mapping[str, FormatFolder],
    slides: Sequence[Path],
) -> str:
    """Write a slide; why some of it could not be, is returned: the others go on."""
    try:
        found = read_result(run, slide, slides)
    except UsageError as exc:
        return str(exc)
    reasons = []
    for name, folder in folders.items():
        try:
            folder.write(found, source)
        except UsageError as exc:
            reasons.append(f"{name}: {exc}")
        except Exception as exc:
            if isinstance(exc, OSError) and exc.errno in FULL:
                raise
            reasons.append(f"{name}: {reason_of(exc)}")
    return "; ".join(reasons)


def _chosen_slides(run: RunFolder, only: Sequence[str]) -> list[SlideRow]:
    """The slides to export.

    Raises:
        UsageError: the run has none of a name.
    """
    by_name = {slide.name: slide for slide in run.slides}
    for name in only:
        if name not in by_name:
            raise UsageError(f"the run has no slide {name!r}: predictions.csv names those that it has, as slide_id")
    return [by_name[name] for name in dict.fromkeys(only)] if only else list(run.slides)


def _refuse_missing(name: str, format: Format) -> None:
    """Refuse a format whose packages are not there.

    Raises:
        ImportError: so it is.
    """
    for module in format.needs:
        try:
            import_module(module)
        except Exception as exc:  # whatever a broken package raises
            missing = isinstance(exc, ModuleNotFoundError)
            remedy = from_folder(format.extra) if missing else f"pip install --force-reinstall {module.split('.')[0]}"
            raise ImportError(
                f"`--format {name}` needs {module}, which cannot be imported ({' '.join(str(exc).split())}); install it"
                f"{'' if missing else ' again'}: {remedy}"
            ) from exc
