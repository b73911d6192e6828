"""What a check finds: of each slide, of the cohort, and what a model will cost on it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from pipeline.cohort.cohort import CohortSlide
from stages.html import table
from stages.place import Place

Kind = Literal[
    "file",
    "resolution",
    "truncated",
    "tiles",
    "levels",
    "encoding",
    "tissue",
    "scale",
    "content",
    "label",
    "site",
    "split",
    "table",
    "folder",
    "training",
]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong, or doubtful.

    Attributes:
        kind: what it is about.
        words: what was found, and the remedy, in one line.
        error: whether a slide would fail or a result be wrong; else it is a warning.
    """

    kind: Kind
    words: str
    error: bool = True


@dataclass(frozen=True, slots=True)
class Need:
    """What a model will read of a slide.

    Attributes:
        bytes: compressed, of the tiles that its looks and so many patches spread over the tissue touch.
        cells: cells with tissue.
        patches: that it reads.
        coarse: patches that it reads at its coarse scale.
        look_seconds: that the thumbnail and the tissue mask took.
        thumbnail_pixels: of it.
    """

    bytes: int
    cells: int
    patches: int
    coarse: int
    look_seconds: float
    thumbnail_pixels: int


@dataclass(frozen=True, slots=True)
class SlideCheck:
    """A slide as it was found.

    Attributes:
        slide: which, and what the table says of it.
        findings: what is wrong with it; none where all is well.
        vendor: format name; None, as all below, where it cannot be opened.
        size: (width, height) of level 0 in pixels.
        levels: how many.
        mpp: µm per level-0 pixel along x and y; None where it is unknown.
        mpp_source: "file", "override" or "none".
        file_bytes: on disk.
        fingerprint: of its content.
        tissue_mm2: area of what counts as tissue.
        seconds: that all this took.
        need: what the model will read of it, where there is one.
    """

    slide: CohortSlide
    findings: tuple[Finding, ...] = ()
    vendor: str | None = None
    size: tuple[int, int] | None = None
    levels: int | None = None
    mpp: tuple[float, float] | None = None
    mpp_source: str | None = None
    file_bytes: int | None = None
    fingerprint: str | None = None
    tissue_mm2: float | None = None
    seconds: float | None = None
    need: Need | None = None

    @property
    def status(self) -> Literal["error", "warning", "ok"]:
        """The worst that was found."""
        if any(finding.error for finding in self.findings):
            return "error"
        return "warning" if self.findings else "ok"


@dataclass(frozen=True, slots=True)
class Estimate:
    """About what a model will cost on the slides that can be read.

    Attributes:
        bytes: read of the slides.
        patches: read and encoded, at the fine and at the coarse scale.
        seconds: on this machine.
        disk_bytes: written: features that are kept, pictures, tables.
        how: how all this was estimated.
    """

    bytes: int
    patches: tuple[int, int]
    seconds: float
    disk_bytes: int
    how: str


@dataclass(frozen=True, slots=True)
class CheckSummary:
    """What a check found; a notebook shows it as a table.

    Attributes:
        source: the slide, folder or table.
        slides: each as it was found, in the cohort's order.
        findings: what is wrong with them together: duplicates, leaks, labels.
        estimate: what the model will cost; None without one.
    """

    source: Place
    slides: tuple[SlideCheck, ...]
    findings: tuple[Finding, ...] = ()
    estimate: Estimate | None = None

    @property
    def counts(self) -> dict[str, int]:
        """Slides of each status."""
        told = [slide.status for slide in self.slides]
        return {status: told.count(status) for status in ("ok", "warning", "error")}

    @property
    def failed(self) -> bool:
        """Whether there is an error, of a slide or of all of them together."""
        return self.counts["error"] > 0 or any(finding.error for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """As plain values, for `pipeline.output.documents.plain`."""
        slides = [{"status": slide.status, **asdict(slide)} for slide in self.slides]
        return {
            "source": self.source,
            "counts": self.counts,
            "findings": [asdict(finding) for finding in self.findings],
            "slides": [{**slide.pop("slide"), **slide} for slide in slides],
            "estimate": None if self.estimate is None else asdict(self.estimate),
        }

    def _repr_html_(self) -> str:
        rows: list[tuple[str, str]] = [("cohort", finding.words) for finding in self.findings]
        rows += [(c.slide.slide_id, finding.words) for c in self.slides for finding in c.findings]
        counted = ", ".join(f"{count} {status}" for status, count in self.counts.items())
        return table(rows, header=("slide", "found") if rows else (), caption=f"{self.source}: {counted}")
