"""Whether the tissue that was found is such as a slide can have."""

from __future__ import annotations

from stages.tissue.fill import straight_share
from stages.tissue.mask import Tissue

ALL = 0.97
"""Share of a slide that its tissue does not cover: there is glass around it, or nothing was scanned there."""
LEAST_MM2 = 0.05
"""Less is more likely dirt: a needle's core has several square millimetres, a tissue microarray's a quarter of one."""
STRAIGHT = 0.6
"""Share of the outline; only what a scan or a program cut off is as straight."""
FAINT = 0.6
"""Share of the tissue; loose fat has up to half."""
LEFT = 0.2
"""Of the tissue's size; smears and dirt are less."""


def tissue_warnings(tissue: Tissue, mpp: float) -> tuple[str, ...]:
    """What makes tissue that was found at ``mpp`` µm/px improbable, a line each; none where nothing does.

    The tissue is taken as it is: a warning asks for a look at it.
    """
    area = float(tissue.mask.sum()) * mpp**2 / 1e6
    share = float(tissue.mask.mean())
    found = []
    if share > ALL:
        found.append(f"{share:.0%} of the slide counts as tissue, as if there were no glass")
    elif straight_share(tissue.mask, beside=tissue.fill) > STRAIGHT:
        found.append("the outline of what counts as tissue is mostly straight")
    if area < LEAST_MM2:
        found.append(f"only {area:.2g} mm² count as tissue")
    if tissue.left > LEFT:
        found.append(f"matter that is hardly darker than glass, {tissue.left:.0%} as much, was left out beside it")
    if tissue.faint > FAINT:
        found.append(f"{tissue.faint:.0%} of what counts as tissue is hardly darker than glass")
    return tuple(f"{line}: look at the overlay" for line in found)
