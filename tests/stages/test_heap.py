"""What was freed goes back to the system, or stays for what takes as much again."""

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


STEPS = """
import resource
import torch
from stages.encoder.built_in import built_in_encoder
from stages.heap import keep_freed

encoder = built_in_encoder(16)
patches = torch.zeros(64, 128, 128, 3, dtype=torch.uint8)

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(3):
        encoder(patches).sum().backward()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
free = faults()
keep_freed()
faults()
print(free, faults())
"""

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")


@glibc
def test_what_was_freed_below_what_is_in_use_is_given_back() -> None:
    """100 MB of small blocks, of which one is left."""
    done = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=True)
    assert float(done.stdout) > 80


@glibc
def test_what_steps_take_again_and_again_is_not_cleared_each_time() -> None:
    pytest.importorskip("torch")
    done = subprocess.run([sys.executable, "-c", STEPS], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert after < before / 10
