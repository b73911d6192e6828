"""The formats that a run is exported in: what each holds, what opens it, which files it makes of a slide."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.export.slide_result import SlideResult


@dataclass(frozen=True, slots=True)
class Format:
    """A format.

    Attributes:
        holds: what it holds of a slide, a sentence.
        opened_by: what opens it, and how.
        files: of a slide, in the format's folder; {} is the slide's name; one that ends in "/" is a folder.
        write: fills the files of a slide at the places that it is given, in the order of ``files``: they are beside
            what they will be, under other names.
        needs: modules that it cannot do without, of the extra of this name; both empty: none.
    """

    holds: str
    opened_by: str
    files: tuple[str, ...]
    write: Callable[[SlideResult, Sequence[Path]], None]
    needs: tuple[str, ...] = ()
    extra: str = ""


def _qupath(found: SlideResult, places: Sequence[Path]) -> None:
    from stages.exports.qupath import write_qupath

    [place], samples, told = places, found.samples, found.told_classes
    write_qupath(
        place,
        found.attention,
        found.raster,
        samples.boxes,
        attention_at=samples.attention,
        weights=samples.weights,
        patch_cells=found.patch_cells,
        origin=found.origin,
        evidence={} if found.evidence is None else {found.classes[c]: found.evidence[c] for c in told},
        contributions={found.classes[c]: (samples.contributions[:, c], samples.half_widths[:, c]) for c in told},
        cells=found.cells,
        unit=found.unit,
    )


FORMATS = {
    "qupath": Format(
        "Every cell with its attention and evidence, outlines of regions of high attention, the patches read.",
        "QuPath: drag it onto the open slide.",
        ("{}.geojson",),
        _qupath,
    ),
}
"""By the name that users type."""


def chosen_formats(names: Sequence[str]) -> dict[str, Format]:
    """Formats by names, each once, in the order that they are given in.

    Raises:
        UsageError: there is none of a name, or none was given.
    """
    if not names:
        raise UsageError(f"no format was given: give one or more of {', '.join(FORMATS)}")
    for name in names:
        if name not in FORMATS:
            raise UsageError(f"there is no format {name!r}: give one or more of {', '.join(FORMATS)}")
    return {name: FORMATS[name] for name in names}
