"""A signal whose values are kept only where its threshold may lie gives what all of them would."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage.filters import threshold_otsu

from stages.tissue.signal import ABOVE, BETWEEN, Signal, enlarged

LIMITS = (0.2, 0.6)


def signal_of(
    values: NDArray[np.float32], background: NDArray[np.bool_], rows: int
) -> tuple[Signal, NDArray[np.uint8]]:
    marks = np.full(values.shape, 128, np.uint8)
    signal = Signal(marks, LIMITS, background, 3)
    for first in range(0, len(values), rows):
        part = slice(first, min(len(values), first + rows))
        signal.add(part, values[part])
    return signal, marks


@pytest.fixture(scope="module")
def values() -> NDArray[np.float32]:
    return np.random.default_rng(0).gamma(2, 0.2, (50, 41)).astype(np.float32)


@pytest.mark.parametrize("rows", [7, 50])
@pytest.mark.parametrize("threshold", [0.2, 0.37, 0.6])
def test_marks_are_those_of_all_values(values: NDArray[np.float32], rows: int, threshold: float) -> None:
    signal, marks = signal_of(values, np.zeros((17, 14), bool), rows)
    signal.settle(threshold, 0.3)
    np.testing.assert_array_equal(marks & ABOVE > 0, values > threshold)
    np.testing.assert_array_equal(marks & BETWEEN > 0, (values > 0.3) & (values <= threshold))
    assert (marks & 128 == 128).all()


@pytest.mark.parametrize("rows", [7, 50])
def test_thresholds_are_those_of_all_values(values: NDArray[np.float32], rows: int) -> None:
    background = np.random.default_rng(1).random((17, 14)) < 0.3
    faint = values * np.float32(0.1)
    signal, _ = signal_of(faint, background, rows)
    behind = faint[enlarged(background, 3, faint.shape, slice(0, 50))]
    assert signal.limits()[0] == pytest.approx(np.clip(6 * 1.4826 * float(np.median(behind[::3])), *LIMITS))
    assert signal.otsu(0, 1) == float(threshold_otsu(faint))


def test_a_reduced_mask_is_enlarged_from_any_row() -> None:
    small = np.random.default_rng(0).random((5, 4)) < 0.5
    whole = np.kron(small, np.ones((3, 3), bool))[:14, :11]
    for first, end in ((0, 14), (1, 2), (4, 13)):
        np.testing.assert_array_equal(enlarged(small, 3, (14, 11), slice(first, end)), whole[first:end])
