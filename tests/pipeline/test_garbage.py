"""Garbage is looked for again as soon as a block has ended, however it does."""

from __future__ import annotations

import gc

import pytest

from pipeline.garbage import uncollected


def fails() -> None:
    with uncollected(), uncollected():
        assert not gc.isenabled()
        raise KeyError


@pytest.mark.parametrize("enabled", [True, False])
def test_collecting_goes_on_as_it_did(enabled: bool) -> None:
    try:
        if not enabled:
            gc.disable()
        with pytest.raises(KeyError):
            fails()
        assert gc.isenabled() == enabled
    finally:
        gc.enable()
