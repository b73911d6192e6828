"""The cohort at a glance: one HTML file that needs no network and opens from a file:// address."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from pipeline.output.run_record import NOTICE, title_of
from pipeline.report.embedded import previews, smaller
from pipeline.report.figures import moment
from pipeline.report.labels import against_labels
from pipeline.report.learning import learning_of
from pipeline.report.page import write_page
from pipeline.report.slides import by_urgency, slides_table
from pipeline.report.summary import cards, failures, gallery_section, not_tried, origin, seen, trust, unlike
from pipeline.task.build import TASKS
from stages.amounts import counted

SCRIPT = Path(__file__).with_name("report.js").read_text(encoding="utf-8")


def write_report(
    path: Path,
    rows: Sequence[Mapping[str, Any]],
    run: Mapping[str, Any],
    *,
    gallery: str | None = None,
    cuts: Sequence[int] = (),
) -> None:
    """Write the report of a run, to lie beside its ``slides`` folder, with as many of its pictures as make it no larger
    than can be mailed.

    Args:
        path: the HTML file.
        rows: a dict for each slide, keyed as the columns of predictions.csv; one that failed, or was not tried, needs
            only ``slide_id``, ``path``, ``status`` and ``error``; a predicted one has its ``words`` and ``warnings``,
            too, and where it is known its ``label``, with ``not_counted``: why the metrics leave it out. Of a model of
            patients a dict for each of them, with ``patient`` and the names of its slides that have folders,
            ``pictured``.
        run: as in run.json: ``task``, ``classes``, ``times``, ``intervals``, ``command``, ``settings``, ``started``,
            ``written``, ``ended``, ``reused``, ``bytes_read``, ``slide_bytes``, ``metrics`` (name -> ``{"value", "low",
            "high"}``), ``not_counted`` and ``quality``, of the model, None where it is not known; ``cohort`` and
            ``model``, their names; ``effective`` and ``versions``: settings as they came to be, and programs. What is
            missing is left out.
        gallery: the picture of the cohort's strongest patches, beside the report.
        cuts: rows of its pixels before which a printed page may end, see `CohortGallery`.
    """
    times = tuple(run.get("times") or ())
    task = TASKS[run.get("task", "classification")](tuple(run.get("classes") or ()), (), times)
    done = [row for row in rows if row["status"] == "ok"]
    failed = [row for row in rows if row["status"] == "failed"]
    waiting = [row for row in rows if row["status"] not in ("ok", "failed")]
    folder, title = path.parent, title_of(run) or "Report of a run"
    model = (run.get("settings") or {}).get("model")
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="soft">{_when(run)}</p><p class="notice">{escape(NOTICE)}</p>',
        trust(run),
        seen(run),
        unlike(done),
        cards(done, failed, waiting, run),
        failures(failed),
        not_tried(waiting),
        against_labels(done, run.get("metrics") or {}, run.get("not_counted") or {}),
        slides_table(done, task, run.get("intervals"), previews(folder, by_urgency(done))),
        gallery_section(gallery, [] if gallery is None else smaller(folder / gallery, cuts)),
        "" if model is None else learning_of(Path(model)),
        origin(run),
    ]
    write_page(path, f"Saccade: {title}: {counted(len(rows), run.get('unit', 'slide'))}", body, script=SCRIPT)


def _when(run: Mapping[str, Any]) -> str:
    ended, written = moment(run, "ended"), moment(run, "written")
    when = ended or written
    if when is None:
        return ""
    told = f"{when:%Y-%m-%d %H:%M} {when.tzname() or ''}".strip()
    return escape(told if ended else f"as of {told}: the run goes on, or was cut short")
