"""A check's outcome as a text, a CSV table, and a cohort table to fill in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.check.values import CheckSummary, Finding, SlideCheck
from pipeline.cohort.cohort import Cohort
from pipeline.cohort.files import folder_name, slide_stem
from pipeline.output.table import write_table
from stages.amounts import counted, duration
from stages.geometry import Mpp
from stages.place import Place, true_name

WELL = 20
"""Slides without a finding that a text lists; the CSV has all."""
COLUMNS = ("", "slide", "format", "size in px", "µm/px", "levels", "tissue", "MB")
TEMPLATE = ("slide", "slide_id", "patient", "label", "mpp", "split", "fold", "site", "mpp_in_file", "problem")


def render_text(summary: CheckSummary) -> str:
    """For a person: the worst first, what is wrong with each slide below it, then all of them together, and a line."""
    order = ("error", "warning", "ok")
    slides = sorted(summary.slides, key=lambda found: order.index(found.status))
    well = [found for found in slides if found.status == "ok"]
    shown = [found for found in slides if found.status != "ok"] + well[:WELL]
    rows = [COLUMNS, *(_row(found) for found in shown)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
    lines = [_aligned(rows[0], widths)]
    for found, row in zip(shown, rows[1:], strict=True):
        lines.append(_aligned(row, widths))
        lines += [f"         {_mark(finding)}: {plain_line(finding.words)}" for finding in found.findings]
    if len(well) > WELL:
        lines.append(f"... and {len(well) - WELL} more that are well (--csv has all)")
    if summary.findings:
        lines += ["", "the slides together"]
        together = sorted(summary.findings, key=lambda finding: not finding.error)
        lines += [f"  {_mark(finding)}: {plain_line(finding.words)}" for finding in together]
    lines += ["", *_estimate(summary), _summary(summary)]
    return "\n".join(lines)


def write_findings(summary: CheckSummary, path: Path) -> None:
    """A CSV with a row for each slide; what is wrong with several together stands in rows without a slide.

    Raises:
        OSError: it cannot be written.
    """
    rows: list[dict[str, Any]] = [_flat(found) for found in summary.slides]
    rows += [
        {"status": _status(finding), "kind": finding.kind, "problem": finding.words} for finding in summary.findings
    ]
    columns = ["slide_id", "path", "status", "kind", "problem", "vendor", "width", "height", "levels", "mpp_x", "mpp_y"]
    columns += ["mpp_source", "file_bytes", "tissue_mm2", "patient", "label", "split", "fold", "site", "fingerprint"]
    columns += ["bytes_to_read", "patches_to_read"] if summary.estimate else []
    write_table(path, rows, [*columns, "seconds"])


def write_template(summary: CheckSummary, cohort: Cohort, path: Path) -> None:
    """A cohort table of all slides, in which what is known is filled in: patient, label, mpp, split, fold and site as
    the table had them, else to be filled in. ``mpp`` stands for what replaces the file's own, so that the file's own,
    with its doubts, stays in ``mpp_in_file``.

    Raises:
        OSError: it cannot be written.
    """
    rows = []
    seen: set[str] = set()
    taken: set[str] = set()
    for found in summary.slides:
        slide = found.slide
        real = true_name(slide.path)
        if real in seen:  # listed twice
            continue
        seen.add(real)
        own = folder_name(slide_stem(slide.path))
        name = slide.slide_id
        if name.casefold() in taken:
            name = next(n for n in _others(slide.path, name) if n.casefold() not in taken)
        taken.add(name.casefold())
        told = {role: getattr(slide, role) for role in ("label", "split", "fold", "site")}
        rows.append(
            {
                "slide": str(slide.path),
                "slide_id": "" if name == own else name,
                "patient": "" if slide.patient == slide.slide_id and "patient" not in cohort.columns else slide.patient,
                **told,
                "mpp": slide.mpp if slide.mpp is not None else _given(found),
                "mpp_in_file": None if found.mpp is None or found.mpp_source != "file" else str(Mpp(*found.mpp)),
                "problem": "; ".join(plain_line(finding.words) for finding in found.findings),
            }
        )
    write_table(path, rows, TEMPLATE)


def plain_line(text: str) -> str:
    """A text in one line that a terminal can show and does not obey: names of files may hold anything."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode() for char in text
    )


def in_bytes(count: float) -> str:
    """A number of bytes in decimal units."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def _others(path: Place, name: str) -> Iterator[str]:
    """Names for a slide whose own is taken."""
    yield folder_name(f"{path.parent.name}-{name}")
    number = 2
    while True:
        yield f"{name}-{number}"
        number += 1


def _given(found: SlideCheck) -> float | None:
    return found.mpp[0] if found.mpp is not None and found.mpp_source == "override" else None


def _row(found: SlideCheck) -> tuple[str, ...]:
    size = "" if found.size is None else f"{found.size[0]} x {found.size[1]}"
    tissue = "" if found.tissue_mm2 is None else f"{found.tissue_mm2:.3g} mm²"
    return (
        {"error": "ERROR", "warning": "warning", "ok": "ok"}[found.status],
        plain_line(found.slide.slide_id),
        found.vendor or "?",
        size,
        str(Mpp(*found.mpp)) if found.mpp else "?",
        "" if found.levels is None else str(found.levels),
        tissue,
        "" if found.file_bytes is None else f"{found.file_bytes / 1e6:.1f}",
    )


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _mark(finding: Finding) -> str:
    return f"{'ERROR' if finding.error else 'warning'} ({finding.kind})"


def _status(finding: Finding) -> str:
    return "error" if finding.error else "warning"


def _summary(summary: CheckSummary) -> str:
    counts, slides = summary.counts, summary.slides
    size = in_bytes(sum(found.file_bytes or 0 for found in slides))
    together = sum(finding.error for finding in summary.findings)
    more = f", {together} error{'s' if together > 1 else ''} of the slides together" if together else ""
    return (
        f"{len(slides)} slide{'s' if len(slides) > 1 else ''}, {size}: {counts['ok']} ok, {counts['warning']} with "
        f"warnings, {counts['error']} with errors{more}"
    )


def _estimate(summary: CheckSummary) -> list[str]:
    about = summary.estimate
    if about is None:
        return []
    fine, coarse = about.patches
    also = f" and {coarse} at the coarse scale" if coarse else ""
    return [
        f"the model would read about {in_bytes(about.bytes)} and encode {counted(fine, 'patch')}{also}: about "
        f"{duration(about.seconds)}, {in_bytes(about.disk_bytes)} written",
        f"  ({about.how})",
    ]


def _flat(found: SlideCheck) -> dict[str, Any]:
    slide, need = found.slide, found.need
    width, height = found.size or (None, None)
    mpp_x, mpp_y = found.mpp or (None, None)
    told = asdict(slide)
    return {
        **{role: told[role] for role in ("slide_id", "path", "patient", "label", "split", "fold", "site")},
        "status": found.status,
        "kind": "; ".join(dict.fromkeys(finding.kind for finding in found.findings)),
        "problem": "; ".join(plain_line(finding.words) for finding in found.findings),
        "vendor": found.vendor,
        "width": width,
        "height": height,
        "levels": found.levels,
        "mpp_x": mpp_x,
        "mpp_y": mpp_y,
        "mpp_source": found.mpp_source,
        "file_bytes": found.file_bytes,
        "tissue_mm2": found.tissue_mm2,
        "fingerprint": found.fingerprint,
        "seconds": found.seconds,
        **({"bytes_to_read": need.bytes, "patches_to_read": need.patches + need.coarse} if need else {}),
    }
