"""A slide's µm per pixel: what the file says, whether it can be, and what else in the file contradicts it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from stages.geometry import Mpp

PLAUSIBLE_MPP = (0.05, 50.0)
"""µm/px: an oil-immersion scan at its finest, a thumbnail of a whole section at its coarsest."""
MOST_APART = 2.02
"""How many times a resolution may differ from what else says it: 20x is said of 0.25 to 0.5 µm/px."""
OBJECTIVE_UM = 10.0
"""µm/px times the objective's power, by the field's convention: 40x is 0.25 µm/px."""
PRINT_MPP = 20.0
"""µm/px from which a resolution tag is a printer's: 1200 dots an inch are 21."""

MPP_REMEDY = "give the true value with --mpp or in an 'mpp' column of the cohort table"

_NUMBER = r"\s*[=:]?\s*(?:<value[^>]*>)?\s*([0-9]+(?:[.,][0-9]+)?)"
_OBJECTIVE = re.compile(rf"(?:AppMag|openslide\.objective-power</name>|NominalMagnification=\")(?:{_NUMBER})", re.I)
_MPP = re.compile(rf"(?:\bMPP|openslide\.mpp-x</name>)(?:{_NUMBER})", re.I)
"""How Aperio's descriptions, and those that libvips copies from slides into its TIFFs, say it."""


def check_mpp(x: float, y: float) -> str | None:
    """What is wrong with a resolution in µm/px, or None."""
    low, high = PLAUSIBLE_MPP
    if all(math.isfinite(v) and low <= v <= high for v in (x, y)) and 0.5 <= x / y <= 2:
        return None
    return f"implausible resolution {x:.4g} x {y:.4g} µm/px (expected {low} to {high}): {MPP_REMEDY}"


def read_mpp(properties: Mapping[str, str], tag: Mpp | None) -> tuple[Mpp | None, str, str | None]:
    """µm per level-0 pixel by OpenSlide's properties, or None; its source; and what is wrong where it is None.

    Args:
        properties: OpenSlide's.
        tag: by the resolution tags of level 0 itself, where the file is a TIFF.
    """
    if properties.get("openslide.vendor") == "generic-tiff" and tag is not None:
        x, y = tag.x, tag.y  # OpenSlide takes the tags of the file's first picture, whichever level that is
    else:
        try:
            x, y = (float(properties[f"openslide.mpp-{axis}"]) for axis in "xy")
        except (KeyError, ValueError):
            return None, "none", unknown_mpp(description_in(properties), tag)
    problem = check_mpp(x, y)
    return (None if problem else Mpp(x, y)), "file", problem


def unknown_mpp(description: str, tag: Mpp | None) -> str:
    """That a file does not say its resolution, where else it may stand, and the remedy.

    Args:
        description, tag: as in `doubt_mpp`.
    """
    told = _found(_MPP, description)
    hints = [f"its description has {told:g} µm/px"] if told else []
    hints += [f"a TIFF tag has {tag} µm/px"] if tag is not None and tag.x < PRINT_MPP else []
    but = f" ({' and '.join(hints)})" if hints else ""
    return f"the file does not say its resolution{but}: {MPP_REMEDY}"


def doubt_mpp(mpp: Mpp, *, power: str | None, description: str, tag: Mpp | None) -> str | None:
    """What contradicts a resolution by more than `MOST_APART`, and the remedy; None where nothing does.

    Args:
        mpp: µm per level-0 pixel.
        power: the objective's, as the file claims it.
        description: what else the file says, which may name either.
        tag: by level 0's own resolution tags; a printer's, such as 72 dpi, says nothing.
    """
    magnification = _number(power) or _found(_OBJECTIVE, description)
    told = _found(_MPP, description)
    others = []
    if magnification:
        by_power = OBJECTIVE_UM / magnification
        others.append((f"an objective of {magnification:g}x, about {by_power:.3g} µm/px", by_power))
    if told:
        others.append((f"{told:g} µm/px in its description", told))
    if tag is not None and max(tag.x, tag.y) < PRINT_MPP:
        others.append((f"{tag} µm/px in its resolution tag", math.sqrt(tag.x * tag.y)))
    wrong = [words for words, value in others if min(_apart(mpp.x, value), _apart(mpp.y, value)) > MOST_APART]
    if not wrong:
        return None
    return f"its resolution of {mpp} µm/px contradicts {' and '.join(wrong)}: {MPP_REMEDY}"


def description_in(properties: Mapping[str, str]) -> str:
    """What a file's description says, by OpenSlide's properties."""
    return properties.get("tiff.ImageDescription") or properties.get("openslide.comment") or ""


def _apart(one: float, other: float) -> float:
    return max(one / other, other / one)


def _found(pattern: re.Pattern[str], text: str) -> float | None:
    found = pattern.search(text)
    return None if found is None else _number(found[1])


def _number(text: str | None) -> float | None:
    """A positive number, with a point or a comma; None where there is none."""
    try:
        value = float((text or "").replace(",", "."))
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None
