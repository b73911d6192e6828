"""How a slide's tissue looks on its thumbnail, and how unlike that is to the slides of a cohort.

A model that was trained on one stain answers for another with as much confidence as ever. So what its cohort looked
like goes with it: eight numbers a slide about darkness, colour and texture of the tissue, their centre and covariance
over the cohort, and how far from it one slide in a hundred lies. The distance is Mahalanobis' (Lee et al., "A simple
unified framework for detecting out-of-distribution samples", NeurIPS 2018, take it of a network's features; here it is
of the picture, so that what differs can be said).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from stages.tissue.strips import places

Field = Literal["brightfield", "dark field"]
Floats = NDArray[np.float64]

VERSION = 1
"""Raised when the numbers below mean something else, so that they are never compared with those of before."""
FEWEST = 4
"""Slides of one field that a cohort needs at least for a score."""
FARTHEST = 100.0
"""The highest score: of a slide in a field that the cohort has none of, and of whatever is as far."""
SAMPLE = 2**14
"""Tissue pixels that are looked at, evenly taken: more would not change the numbers, and cost."""
DARK = 96
"""Grey level that the edge of tissue stays below where it fades into the dark, and not where it fades into glass."""
OFFSET, ROUGH_OFFSET = 0.02, 0.005
"""Of optical density or light, added before logarithms: what is fainter is noise and JPEG."""
LAGS = 1, 4
"""Thumbnail pixels between the points whose difference is texture: 8 and 32 µm at 8 µm/px."""

PRIOR_SPREAD = (0.2, 0.15, 0.08, 0.08, 0.04, 0.04, 0.15, 0.05)
"""What the values of a cohort's slides vary by, where the cohort says little about it: half of what they do over the
pictures of CRCHistoPhenotypes, which are small, so that each shows another mixture of tissues."""
PRIOR_SLIDES = 10
"""Slides that the prior spread counts as, beside those of the cohort."""
CUT = 3.0
"""Robust deviations from the centre beyond which a slide's number counts as just that far in the covariance."""
PRIOR_TAIL, PRIOR_TAIL_SLIDES = 0.47, 16
"""Standard deviation of the logarithm of a slide's distance, so that the limit is three times the median where nothing
is known; and how many slides it counts as."""
UNUSUAL = 2.0
"""Standard deviations from the centre below which no value is unusual by itself."""
NEAREST = 0.25
"""Distances below count as this: of copies of one slide."""

# what is less and more in each number; in a dark field, light takes the place of optical density
WORDS = (
    ("paler", "darker"),
    ("of less contrast", "of more contrast"),
    *((("of another colour", "of another colour"),) * 4),
    ("smoother", "rougher"),
    ("coarser or out of focus", "finer or noisier"),
)
DARK_WORDS = (("dimmer", "brighter"), *WORDS[1:])
IN_WORDS: Mapping[Field, str] = {
    "brightfield": "dark on bright, as stained tissue is",
    "dark field": "bright on dark, as fluorescence is",
}


@dataclass(frozen=True, slots=True)
class Appearance:
    """How the tissue of one slide looks at its thumbnail's scale.

    With ``s`` (N, 3) the natural optical density ``ln(256 / (v + 1))`` of the tissue's pixels ``v``, or in a dark field
    their light ``v / 255``; ``g`` its mean over the colours, ``q`` their quantiles, ``e`` an offset of 0.02; R, G, B
    means of ``s`` plus ``e``, R', G', B' of its darkest (in a dark field brightest) fifth, and ``D_k`` the mean of
    ``|g(x + k) - g(x)|`` over pixels k apart in a row or column, plus ``e / 4``:

    Attributes:
        field: of which kind the slide is.
        values: ``ln(q50 + e)``, how dark; ``ln((q90 + e) / (q10 + e))``, the contrast; ``ln(R / G)`` and ``ln(B / G)``,
            the hue; ``ln(R' / G') - ln(R / G)`` and ``ln(B' / G') - ln(B / G)``, how it changes with density, as of two
            stains; ``ln(D_1 / (q50 + e))``, the roughness; ``ln(D_1 / D_4)``, how fine it is.
    """

    field: Field
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Distribution:
    """Where the values of a cohort's slides of one field lie.

    Attributes:
        centre: (8,) of the values.
        covariance: (8, 8).
        limit: the distance that about one in a hundred of its own slides would pass.
    """

    centre: tuple[float, ...]
    covariance: tuple[tuple[float, ...], ...]
    limit: float


@dataclass(frozen=True, slots=True)
class Likeness:
    """What there is to say of a slide beside a cohort.

    Attributes:
        score: distance from the cohort over its limit, at most `FARTHEST`; None: the cohort has too few slides.
        warning: what is unlike, where the score passes 1.
    """

    score: float | None
    warning: str | None = None


@dataclass(frozen=True, slots=True)
class CohortAppearance:
    """How the slides look that a model was trained on.

    Attributes:
        counts: how many there are of each field.
        known: their distribution, of fields with at least `FEWEST`.
    """

    counts: Mapping[Field, int]
    known: Mapping[Field, Distribution]

    def compare(self, found: Appearance) -> Likeness:
        """How unlike the cohort a slide looks; 1 is the limit."""
        own, total = self.counts.get(found.field, 0), sum(self.counts.values())
        if not own:
            others = " or ".join(IN_WORDS[field] for field in get_args(Field) if self.counts.get(field))
            return Likeness(
                FARTHEST,
                f"it is {IN_WORDS[found.field]}, while all {total} slides that the model was trained on are {others}",
            )
        if found.field not in self.known:
            if not self.known:
                return Likeness(None)  # said when the model was trained; every slide would have the warning
            return Likeness(
                None,
                f"it is {IN_WORDS[found.field]}, and of the {total} slides that the model was trained on only {own} "
                "are, too few to tell whether it looks like them",
            )
        there = self.known[found.field]
        away = np.array(found.values) - there.centre
        score = min(FARTHEST, _distance(away, np.array(there.covariance)) / there.limit)
        if score <= 1:
            return Likeness(score)
        return Likeness(
            score,
            f"it looks unlike the {own} slides that the model was trained on: {_differences(found.field, away, there)}"
            f" (out-of-distribution score {score_in_words(score)}; the limit is 1)",
        )


def score_in_words(score: float) -> str:
    """A score with one digit, or as many as keep it on its side of the limit, 1."""
    for digits in range(1, 17):
        text = f"{score:.{digits}f}"
        if (float(text) > 1, float(text) < 1) == (score > 1, score < 1):
            break
    return text


def appearance(rgb: NDArray[np.uint8], mask: NDArray[np.bool_]) -> Appearance:
    """How the tissue looks.

    Args:
        rgb: (H, W, 3), a thumbnail; only at one and the same µm/px are appearances to be compared.
        mask: (H, W), its tissue.

    Raises:
        ValueError: there is no tissue.
    """
    count = int(np.count_nonzero(mask))
    if not count:
        raise ValueError("no tissue whose appearance could be told")
    pixels = np.ravel_multi_index(places(-(-count // SAMPLE), mask), mask.shape)
    field = _field(rgb, mask, pixels)
    signal = _signal(rgb, pixels, field)
    grey = signal.mean(1)
    q10, q50, q80, q90 = np.quantile(grey, [0.1, 0.5, 0.8, 0.9])
    red, green, blue = np.log(signal.mean(0) + OFFSET)
    red_dense, green_dense, blue_dense = np.log(signal[grey >= q80].mean(0) + OFFSET)
    near, far = (_difference(rgb, mask, pixels, grey, lag, field) + ROUGH_OFFSET for lag in LAGS)
    values = (
        np.log(q50 + OFFSET),
        np.log((q90 + OFFSET) / (q10 + OFFSET)),
        red - green,
        blue - green,
        (red_dense - green_dense) - (red - green),
        (blue_dense - green_dense) - (blue - green),
        np.log(near / (q50 + OFFSET)),
        np.log(near / far),
    )
    return Appearance(field, tuple(float(value) for value in values))


def cohort_appearance(found: Sequence[Appearance]) -> CohortAppearance:
    """What to remember of a cohort's slides.

    Of the n slides of one field: the centre c is the median of each value, and its spread s combines the median
    absolute deviation with that of a prior, p: ``s^2 = (n (1.48 MAD)^2 + m p^2) / (n + m)``, m = `PRIOR_SLIDES`. The
    covariance is ``C = (X^T X + m diag(p)^2) / (n + m)``, where X are the deviations from c, cut at `CUT` s: a few
    slides that are something else do not widen it. The distance of a slide at c + x is ``d^2 = x^T C^-1 x / 8``.

    Each slide's distance is taken from the others (left one out). Their logarithms have the median u and, from the
    90 % quantile, the standard deviation w, which is combined with a prior's as above; the limit is
    ``exp(u + t w sqrt(1 + 1 / n))`` with Student's t at 99 %: what one more slide of this cohort passes in one case of
    a hundred, if the logarithms are normal; docs/method.md says how often it is.
    """
    counts = Counter(one.field for one in found)
    known: dict[Field, Distribution] = {}
    for field in get_args(Field):
        if counts[field] >= FEWEST:
            known[field] = _distribution(np.array([one.values for one in found if one.field == field]))
    return CohortAppearance({field: counts[field] for field in get_args(Field) if counts[field]}, known)


def _field(rgb: NDArray[np.uint8], mask: NDArray[np.bool_], pixels: NDArray[np.int64]) -> Field:
    """By the edge of the tissue, which is its faintest part: it fades into glass or into the dark.

    The outermost pixel is left aside: half of it may be what pads the scan. Where tissue fills the picture, all counts.
    """
    rows, columns = np.divmod(pixels, mask.shape[1])

    def all_inside(step: int) -> NDArray[np.bool_]:
        up, down = np.maximum(rows - step, 0), np.minimum(rows + step, mask.shape[0] - 1)
        left, right = np.maximum(columns - step, 0), np.minimum(columns + step, mask.shape[1] - 1)
        inside: NDArray[np.bool_] = mask[up, columns] & mask[down, columns] & mask[rows, left] & mask[rows, right]
        return inside

    edge = all_inside(1) & ~all_inside(3)
    chosen = pixels[edge] if edge.any() else pixels
    return "dark field" if np.median(rgb.reshape(-1, 3)[chosen].max(1)) < DARK else "brightfield"


def _signal(rgb: NDArray[np.uint8], pixels: NDArray[np.int64], field: Field) -> Floats:
    values = rgb.reshape(-1, 3)[pixels].astype(np.float64)
    return np.log(256 / (values + 1)) if field == "brightfield" else values / 255


def _difference(
    rgb: NDArray[np.uint8], mask: NDArray[np.bool_], pixels: NDArray[np.int64], grey: Floats, lag: int, field: Field
) -> float:
    """Mean absolute difference of tissue pixels ``lag`` apart; 0 where no two are."""
    rows, columns = np.divmod(pixels, mask.shape[1])
    found = []
    for fits, step in ((columns + lag < mask.shape[1], lag), (rows + lag < mask.shape[0], lag * mask.shape[1])):
        here = np.flatnonzero(fits)
        here = here[mask.ravel()[pixels[here] + step]]
        found.append(np.abs(_signal(rgb, pixels[here] + step, field).mean(1) - grey[here]))
    apart = np.concatenate(found)
    return float(apart.mean()) if len(apart) else 0.0


def _distribution(values: Floats) -> Distribution:
    centre, covariance = _centre(values)
    others = (_centre(np.delete(values, i, 0)) for i in range(len(values)))
    apart = [_distance(one - there, spread) for one, (there, spread) in zip(values, others, strict=True)]
    logs, n = np.log(np.maximum(apart, NEAREST)), len(values)
    middle, high = np.quantile(logs, [0.5, 0.9])
    from scipy.special import ndtri, stdtrit  # a run only compares

    own = (high - middle) / ndtri(0.9)
    tail = np.sqrt((PRIOR_TAIL_SLIDES * PRIOR_TAIL**2 + n * own**2) / (PRIOR_TAIL_SLIDES + n))
    student = stdtrit(PRIOR_TAIL_SLIDES + n - 1, 0.99)
    limit = np.exp(middle + student * tail * np.sqrt(1 + 1 / n))
    return Distribution(tuple(centre.tolist()), tuple(map(tuple, covariance.tolist())), float(limit))


def _centre(values: Floats) -> tuple[Floats, Floats]:
    """Centre (8,) and covariance (8, 8) of values (n, 8)."""
    n, prior = len(values), np.square(PRIOR_SPREAD)
    centre = np.median(values, 0)
    away = values - centre
    spread = np.sqrt((n * (1.4826 * np.median(np.abs(away), 0)) ** 2 + PRIOR_SLIDES * prior) / (n + PRIOR_SLIDES))
    cut = np.clip(away, -CUT * spread, CUT * spread)
    return centre, (cut.T @ cut + PRIOR_SLIDES * np.diag(prior)) / (n + PRIOR_SLIDES)


def _distance(away: Floats, covariance: Floats) -> float:
    return float(np.sqrt(away @ np.linalg.solve(covariance, away) / len(away)))


def _differences(field: Field, away: Floats, there: Distribution) -> str:
    """What differs most, in words: each value that is at least half as unusual by itself as the most unusual one."""
    unusual = away / np.sqrt(np.diag(there.covariance))
    if np.abs(unusual).max() < UNUSUAL:
        return "it combines darkness, colour and texture as none of them does"
    words = DARK_WORDS if field == "dark field" else WORDS
    order = np.argsort(-np.abs(unusual))
    told = [words[i][int(unusual[i] > 0)] for i in order if abs(unusual[i]) >= 0.5 * abs(unusual[order[0]])]
    return ", ".join(dict.fromkeys(told))
