"""How features are rounded, packed and widened again."""

from __future__ import annotations

import numpy as np
import pytest

from stages.encoder.feature_table import narrowed, packed, unpacked, widened

RNG = np.random.default_rng(0)
ROWS = {
    "usual": RNG.normal(size=8),
    "beyond": RNG.normal(size=8) * 1e5,
    "tiny": RNG.normal(size=8) * 1e-6,
    "mixed": np.array([6e4, 1e-3, 0, -1, 1e-9, -6e4, 2, 3]),
    "zero": np.zeros(8),
}
FITS = {"usual": True, "beyond": False, "tiny": False, "mixed": True, "zero": True}


def test_widened_is_what_astype_gives() -> None:
    """Of every float16 that is finite."""
    every = np.arange(2**16, dtype=np.uint16).view(np.float16)
    every = every[np.isfinite(every)]
    np.testing.assert_array_equal(widened(every), every.astype(np.float32), strict=True)
    assert (np.signbit(widened(every)) == np.signbit(every)).all(), "of zero, too"


@pytest.mark.parametrize("name", ROWS)
def test_float16_where_that_is_fine_and_float32_where_it_would_spoil(name: str) -> None:
    row = ROWS[name].astype(np.float32)[None]
    kept = narrowed(row)
    assert (kept.dtype == np.float16) == FITS[name]
    assert np.abs(widened(kept) - row).max() <= np.abs(row).max() * 2**-10


def test_a_feature_is_rounded_alike_whatever_lies_beside_it() -> None:
    """Otherwise what training reads would depend on what was known before."""
    together = np.stack([row.astype(np.float32) for row in ROWS.values()])
    alone = np.concatenate([widened(narrowed(row[None])) for row in together])
    np.testing.assert_array_equal(widened(narrowed(together)), alone)
    np.testing.assert_array_equal(widened(narrowed(alone)), alone)


@pytest.mark.parametrize("rows", [ROWS["usual"][None], ROWS["beyond"][None], np.empty((0, 8))])
def test_what_is_packed_is_unpacked(rows: np.ndarray) -> None:
    values, cells = narrowed(rows.astype(np.float32)), np.arange(len(rows)) - 2**40
    found_cells, found = unpacked(packed(cells, values), 8)
    np.testing.assert_array_equal(found_cells, cells)
    np.testing.assert_array_equal(found, values, strict=True)


@pytest.mark.parametrize("payload", [b"", packed(np.arange(1), np.ones((1, 7), np.float16)), bytes(16) + b"more"])
def test_what_holds_something_else_is_refused(payload: bytes) -> None:
    with pytest.raises(ValueError, match=r"ends too early|does not hold features of length 8"):
        unpacked(payload, 8)
