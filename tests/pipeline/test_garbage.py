"""Garbage is looked for again as soon as a block has ended, however it does."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest
from makers import ROOT

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


MADE = """
import atexit, gc
from pipeline.garbage import alone, uncollected

def told():
    print(gc.get_freeze_count() > 3000)

atexit.register(told)  # after what comes to be registered later
for here in ("notebook", "command"):
    if here == "command":
        alone()
    with uncollected():
        kept = [[] for _ in range(3000)]
    told()
gc.unfreeze()
"""


def test_only_in_a_process_of_our_own_is_what_was_made_never_looked_at_again() -> None:
    """A notebook's garbage would stay for good; a command's is gone with it."""
    done = subprocess.run([sys.executable, "-c", MADE], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == ["False", "True", "True"]  # the notebook, the command, and as it ends


AGAIN = """
import gc
from pipeline.garbage import alone, uncollected

alone()
gc.collect()
for _ in range(20):
    with uncollected(once=False):
        ring = []
        ring.append(ring)
    del ring
print(gc.get_freeze_count(), gc.collect() >= 20)
"""


def test_garbage_of_what_is_done_again_and_again_is_found() -> None:
    """A run writes its books after each slide: what each leaves would stay as long as it goes on."""
    done = subprocess.run([sys.executable, "-c", AGAIN], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == ["0", "True"]
