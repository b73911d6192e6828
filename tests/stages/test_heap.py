"""What was freed goes back to the system."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

CHILD = """
from stages.heap import give_back
from stages.budget import _kilobytes

def held():
    return _kilobytes("/proc/self/status", "VmRSS") / 2**20

blocks = [bytearray(2**16) for _ in range(1600)]
del blocks[:-1]  # the last one stands above all others
before = held()
give_back()
print(before - held())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_what_was_freed_below_what_is_in_use_is_given_back() -> None:
    """100 MB of small blocks, of which one is left."""
    done = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=True)
    assert float(done.stdout) > 80
