"""How often label sets held the label of slides that have one: overall, by class, by site."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.refer.label_set import BETWEEN, REFER, percent
from pipeline.statistics.groups import NO_SITE
from pipeline.statistics.intervals import share_interval
from stages.amounts import apart, counted


def coverage(
    rows: Sequence[dict[str, Any]],
    labels: Sequence[str],
    patients: Sequence[str],
    classes: Sequence[str],
    *,
    sites: Sequence[str | None],
) -> dict[str, Any]:
    """Coverage, shares called and referred, and wrong calls, with 95 % intervals (Wilson) of as many patients.

    A patient counts once, as in the calibration.

    Args:
        rows: of predictions.csv, with the columns of `LabelSet`.
        labels: the true class of each slide, (n,).
        patients: whose slide it is, (n,).
        classes: of the model.
        sites: where each slide is from, (n,), None where nobody says.

    Returns:
        ``{"slides", "patients", "coverage", "referred", "wrong", "error_of_called"}``, of which the last four are
        ``{"value", "low", "high"}``; ``wrong`` is of all slides, ``error_of_called`` of those that were called (absent
        where none was). Under ``"classes"`` and, where any site is given, ``"sites"`` the same for each.
    """
    everyone = np.ones(len(rows), bool)
    kind, place = np.array(labels), np.array([site or NO_SITE for site in sites])
    sets = [set(row["label_set"].split(BETWEEN)) - {""} for row in rows]
    held = np.array([label in found for label, found in zip(labels, sets, strict=True)])
    referred = np.array([row["call"] == REFER for row in rows])
    wrong = ~referred & ~held
    owner = np.unique(np.array(patients), return_inverse=True)[1]

    def told(chosen: Any) -> dict[str, Any]:
        found: dict[str, Any] = {"slides": int(chosen.sum()), "patients": len(np.unique(owner[chosen]))}
        for name, values, of in (
            ("coverage", held, chosen),
            ("referred", referred, chosen),
            ("wrong", wrong, chosen),
            ("error_of_called", wrong, chosen & ~referred),
        ):
            if of.any():
                found[name] = _share(values[of], owner[of])
        return found

    found = told(everyone)
    found["classes"] = {name: told(kind == name) for name in classes if (kind == name).any()}
    if any(sites):
        found["sites"] = {str(name): told(place == name) for name in np.unique(place)}
    return found


def _share(values: Any, owner: Any) -> dict[str, float]:
    count = np.bincount(owner)
    shares = np.bincount(owner, values)[count > 0] / count[count > 0]
    value = float(shares.mean())
    low, high = share_interval(value, len(shares))
    return {"value": value, "low": low, "high": high}


def in_lines(found: dict[str, Any]) -> list[str]:
    """What `coverage` found, a line overall and one for each class and site."""

    def line(name: str, one: Mapping[str, Any]) -> str:
        held = one["coverage"]
        error = one.get("error_of_called")
        of_called = "none called" if error is None else f"{error['value']:.1%} of the called wrong"
        return (
            f"{name}: sets hold the label of {held['value']:.1%} [{held['low']:.1%}, {held['high']:.1%}] of "
            f"{counted(one['patients'], 'patient')}, {one['referred']['value']:.1%} referred, {of_called}"
        )

    return [line("label sets", found), *(line(f"  {apart(name)}", one) for name, one in parts_of(found))]


def parts_of(found: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """What `coverage` found of each class, then of each site."""
    return [part for kind in ("classes", "sites") for part in found.get(kind, {}).items()]


def run_in_lines(told: dict[str, Any], *, held: bool = True) -> list[str]:
    """What a run says of its calls, in lines; ``held``: also how often sets held the label, where that is known."""
    counts = sorted(told["calls"].items(), key=lambda item: (item[0] == REFER, item[0]))
    calls = ", ".join(f"{count} {apart(name)}" for name, count in counts)
    lines = [told["about"], f"Calls: {calls or 'none'}."]
    own = next((row for row in told["abstention"] if row["stated_error"] == told["stated_error"]), None)
    if own is not None:
        lines.append(
            f"Of the calibration's patients, each judged by the others, {percent(own['referred'])} are referred at "
            f"this error and {percent(own['wrong'])} called wrongly; abstention.csv tells it of other errors."
        )
    if held and told.get("found"):
        lines += in_lines(told["found"])
    if told["not_counted"]:
        lines.append(
            f"label sets: not counted, since calls were calibrated on them: {counted(told['not_counted'], 'slide')}"
        )
    if told["too_sure"]:
        slides = counted(told["too_sure"], "slide")
        lines.append(f"No error is stated of {slides} that the model, or its calls, were fitted to.")
    if told["unlike"]:
        looks = f"{counted(told['unlike'], 'slide')} look{'s' if told['unlike'] == 1 else ''}"
        lines.append(
            f"warning: {looks} unlike those that calls were calibrated on: the stated error is not known to hold for "
            f"{'it' if told['unlike'] == 1 else 'them'}"
        )
    return lines
