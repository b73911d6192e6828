"""One slide of a check: opened, sampled, looked at; what is wrong with it. The one place where its exceptions end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pipeline.check.sample import find_cut, sample_levels
from pipeline.check.values import Finding, Kind, Need, SlideCheck
from pipeline.cohort.cohort import CohortSlide
from pipeline.errors import UsageError, reason_of
from pipeline.info import slow_or_partial
from stages.bags.bag_slide import BagSlide
from stages.geometry import ResolutionError
from stages.pyramid.open import open_pyramid
from stages.slide.facts import SlideError
from stages.slide.protocol import Slide
from stages.slide.resolution import check_mpp
from stages.tissue.mask import NoTissueError, find_tissue
from stages.tissue.quality import tissue_warnings
from stages.tissue.thumbnail import read_thumbnail

if TYPE_CHECKING:
    from pipeline.check.need import Geometry

TISSUE_MPP = 8.0
"""µm/px at which tissue is looked for where no model says."""


@dataclass(frozen=True, slots=True)
class CheckSettings:
    """How slides are checked.

    Attributes:
        mpp: µm per level-0 pixel for every slide that the cohort table gives none for.
        strict: whether a resolution that something else in the file contradicts is an error.
        model: where and how a model reads, without its weights; None: no model is meant.
    """

    mpp: float | None = None
    strict: bool = False
    model: Geometry | None = None


def check_slide(slide: CohortSlide, settings: CheckSettings) -> dict[str, Any]:
    """Open and sample a slide.

    Returns:
        ``check``: a `SlideCheck`; its findings say also what no reader foresaw.
    """
    started = time.perf_counter()
    found = SlideCheck(slide)
    try:
        found = _checked(slide, settings)
    except Exception as exc:  # of files there is nothing that cannot be
        found = replace(found, findings=(Finding("file", reason_of(exc)),))
    return {"check": replace(found, seconds=time.perf_counter() - started)}


def failed_check(slide: CohortSlide, why: str) -> SlideCheck:
    """Of a slide whose process crashed or was ended."""
    return SlideCheck(slide, (Finding("file", why),))


def _checked(slide: CohortSlide, settings: CheckSettings) -> SlideCheck:
    if slide.problem:
        return SlideCheck(slide, (Finding("file", slide.problem),))
    mpp = slide.mpp if slide.mpp is not None else settings.mpp
    try:
        opened = open_pyramid(slide.path, mpp=mpp)
    except SlideError as exc:
        return SlideCheck(slide, (Finding("file", str(exc)),))
    facts = opened.facts
    findings = [*_of_facts(opened, settings)]
    if not isinstance(opened, BagSlide):
        findings += [*find_cut(opened), *sample_levels(opened)]
        findings += [Finding("encoding", words, error=False) for words in slow_or_partial(opened)]
    found = SlideCheck(
        slide,
        vendor=facts.vendor,
        size=(facts.levels[0].width, facts.levels[0].height),
        levels=len(facts.levels),
        mpp=(facts.mpp.x, facts.mpp.y) if facts.mpp else None,
        mpp_source=facts.mpp_source,
        file_bytes=facts.file_bytes,
        fingerprint=facts.fingerprint,
    )
    area, need = None, None
    if facts.mpp is not None:
        with _telling(findings):
            area, need = _looked_at(opened, settings, findings)
    return replace(found, findings=tuple(_once(findings)), tissue_mm2=area, need=need)


def _of_facts(slide: Slide, settings: CheckSettings) -> Iterator[Finding]:
    facts = slide.facts
    if facts.mpp is None:
        yield Finding("resolution", facts.mpp_problem or "its resolution is unknown")
    if facts.mpp_doubt is not None:
        yield Finding("resolution", facts.mpp_doubt, error=settings.strict)
    if settings.model is None and facts.mpp is not None and min(facts.mpp.x, facts.mpp.y) > TISSUE_MPP:
        words = (
            f"its finest level has {facts.mpp} µm/px, at which no cell is seen: it may be a thumbnail or an overview, "
            "then give the slide itself; or the file's resolution is wrong, then give the true one by --mpp"
        )
        yield Finding("resolution", words, error=False)
    for words in facts.warnings:
        kind: Kind = "levels" if words.startswith("level ") else "encoding"
        yield Finding("resolution" if "µm" in words else kind, words, error=False)


def _looked_at(slide: Slide, settings: CheckSettings, findings: list[Finding]) -> tuple[float, Need | None]:
    """Area of the tissue in mm², and what the model needs of it."""
    if settings.model is not None:
        from pipeline.check.need import need_of  # it computes with torch

        look, need = need_of(slide, settings.model)
        # what facts say was said
        findings += [
            Finding("tissue", words, error=False) for words in look.warnings if words not in slide.facts.doubts
        ]
        return float(look.mask.sum()) * look.thumbnail.mpp**2 / 1e6, need
    if isinstance(slide, BagSlide):
        mpp, (across, down) = slide.facts.require_mpp(), slide.side
        return len(slide.corners) * across * mpp.x * down * mpp.y / 1e6, None
    thumbnail = read_thumbnail(slide, _scale(slide))
    tissue = find_tissue(thumbnail)
    findings += [Finding("tissue", words, error=False) for words in tissue_warnings(tissue, thumbnail.mpp)]
    return float(tissue.mask.sum()) * thumbnail.mpp**2 / 1e6, None


def _scale(slide: Slide) -> float:
    """µm/px to look for tissue at: a slide that is coarser shows it at its own."""
    mpp = slide.facts.require_mpp()
    return max(TISSUE_MPP, mpp.x, mpp.y)


@contextmanager
def _telling(findings: list[Finding]) -> Iterator[None]:
    """What looking at a slide raises, as findings."""
    try:
        yield
    except NoTissueError as exc:
        findings.append(Finding("tissue", str(exc)))
    except ResolutionError as exc:
        findings.append(Finding("scale", str(exc)))
    except SlideError as exc:
        coarse = isinstance(exc.__cause__, ResolutionError)
        findings.append(Finding("scale" if coarse else "tiles", str(exc)))
    except ValueError as exc:
        findings.append(Finding("tissue", reason_of(exc)))


def _once(findings: list[Finding]) -> list[Finding]:
    """Errors first, each said once: damage that the samples found is met again by who looks at the slide."""
    known = any(finding.kind in ("tiles", "truncated") for finding in findings[:-1])
    told = findings[:-1] if known and findings[-1].kind == "tiles" else findings
    return sorted(dict.fromkeys(told), key=lambda finding: not finding.error)


def refuse_mpp(mpp: float | None) -> None:
    """Refuse a resolution for all slides that cannot be.

    Raises:
        UsageError: so it is.
    """
    problem = None if mpp is None else check_mpp(mpp, mpp)
    if problem:
        raise UsageError(f"mpp: {problem}")
