"""A signal over an image, and the threshold that tells it from what lies behind: seen strip by strip, kept as marks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import threshold_otsu

from stages.tissue.strips import Sample, strips

ABOVE, BETWEEN = np.uint8(2), np.uint8(4)
"""Marks of pixels where a signal is above its threshold, and where that is not known yet, or it is barely below."""
NOISE_SIGMAS = 6.0
SAMPLE = 200_000
"""Pixels that tell how strong a signal is where."""

Mask = NDArray[np.bool_]
Marks = NDArray[np.uint8]
Floats = NDArray[np.float32]


def enlarged(mask: Mask, factor: int, shape: tuple[int, ...], rows: slice) -> Mask:
    """Some rows of a reduced mask at the image's size (H, W) again."""
    first = rows.start // factor
    part = np.repeat(np.repeat(mask[first : -(-rows.stop // factor)], factor, 0), factor, 1)
    return part[rows.start - first * factor :][: rows.stop - rows.start, : shape[1]]


class Signal:
    """A signal of which the values are kept only between the limits of a threshold that they will tell.

    Args:
        marks: (H, W), in which `ABOVE` and `BETWEEN` are set.
        limits: of the threshold.
        background: (h, w) bool, blocks of ``factor x factor`` pixels that show none of it.
    """

    def __init__(self, marks: Marks, limits: tuple[float, float], background: Mask, factor: int) -> None:
        self._marks, self._limits = marks, limits
        self._background, self._factor = background, factor
        behind = sum(int(np.count_nonzero(self._behind_of(strip.rows))) for strip in strips(marks.shape))
        self._behind = Sample(3, behind)
        self._some = Sample(max(1, marks.size // SAMPLE), marks.size)
        self._between: list[tuple[slice, Floats]] = []

    def add(self, rows: slice, values: Floats) -> None:
        """The values (h, W) of the next rows, from above."""
        low, high = self._limits
        between = (values > low) & (values <= high)
        self._marks[rows] |= ABOVE * (values > high) | BETWEEN * between
        self._between.append((rows, values[between]))
        self._some.add(values)
        self._behind.add(np.abs(values[self._behind_of(rows)]))

    def limits(self) -> tuple[float, float]:
        """The limits of a threshold, the lower one above the background's own noise."""
        low, high = self._limits
        if self._background.any():
            noise = 1.4826 * float(np.median(self._behind.values, overwrite_input=True))
            low = min(max(low, NOISE_SIGMAS * noise), high)  # more than that is not noise but pale tissue
        return low, high

    def otsu(self, low: float, high: float) -> float:
        """Between the two greatest populations."""
        return float(np.clip(threshold_otsu(self._some.values), low, high))

    def valley(self, low: float, high: float) -> float:
        """Between glass and what is barely darker, from ``low`` on, where the two are distinct; else ``high``.

        Otsu's threshold tells the two greatest populations apart, and pale tissue beside dark can be neither.
        """
        values, step = self._some.values, high / 12
        counts = np.bincount(np.clip(values / step, 0, 48).astype(np.int32), minlength=49)[:48]
        smooth = ndimage.gaussian_filter1d(counts.astype(np.float64), 1.0)
        for peak in range(2, 15):  # up to a quarter above the threshold
            if not smooth[peak - 1] <= smooth[peak] >= smooth[peak + 1]:
                continue
            dip = int(np.argmin(smooth[:peak]))
            much = counts[dip : 2 * peak - dip].sum() > 0.01 * values.size
            if much and smooth[peak] > 1.2 * smooth[dip] and smooth[:dip].max(initial=0) > 1.2 * smooth[dip]:
                return max(low, dip * step)
        return high

    def settle(self, threshold: float, least: float) -> None:
        """From now on `ABOVE` is above the threshold, and `BETWEEN` from ``least`` up to it; both within the limits."""
        for rows, values in self._between:
            marks, above = self._marks[rows], values > threshold
            between = marks & BETWEEN > 0
            marks &= ~BETWEEN
            marks[between] |= ABOVE * above | BETWEEN * (~above & (values > least))
        self._between.clear()

    def _behind_of(self, rows: slice) -> Mask:
        return enlarged(self._background, self._factor, self._marks.shape, rows)
