"""What was freed goes back to the system, or stays for what takes as much again."""

from __future__ import annotations

import errno
import mmap
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from stages.heap import LARGE_IMAGE, large_image, put_aside

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

LITTLE = """
from stages.heap import SLACK, _held, give_back

give_back()
for bytes_freed in (SLACK // 2, 2 * SLACK):
    blocks = [bytearray(2**14) for _ in range(bytes_freed // 2**14)]
    before = _held()
    del blocks[:-1]  # the last one stands above all others
    give_back()
    print((before - _held()) / bytes_freed)
"""


STEPS = """
import resource
from stages.heap import keep_freed

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(3):
        b"x" * 2**24
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

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
def test_little_that_was_freed_stays_for_what_takes_as_much_again() -> None:
    done = subprocess.run([sys.executable, "-c", LITTLE], capture_output=True, text=True, check=True)
    little, much = map(float, done.stdout.split())
    assert little < 0.1
    assert much > 0.8


@glibc
def test_what_steps_take_again_and_again_is_not_cleared_each_time() -> None:
    """16 MB that are filled and freed three times. By itself glibc would come to keep them too, at some point that
    depends on what was freed before; a threshold that is given keeps it from that."""
    given = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**17)}
    done = subprocess.run([sys.executable, "-c", STEPS], capture_output=True, text=True, check=True, env=given)
    before, after = map(int, done.stdout.split())
    assert before >= 3 * 2**24 / mmap.PAGESIZE
    assert after < before / 10


IMAGE = """
import numpy as np
from stages.heap import LARGE_IMAGE, give_back, large_image, put_aside
from stages.budget import _kilobytes

def held():
    return _kilobytes("/proc/self/status", "VmRSS") / 2**20

image = large_image((4 * LARGE_IMAGE // 3 // 4096, 4096, 3))
rows = np.arange(len(image), dtype=np.uint8)[:, None, None]
before = held()
image[:] = rows
filled = held() - before
part = image[100:, :, 1]
give_back(part)
given = held() - before
assert (put_aside(image) == rows).all()
assert image.flags.writeable and put_aside(image) is image
print(filled, given)
"""


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="images are in memory")
def test_a_large_image_is_in_memory_while_it_is_looked_at(tmp_path: Path) -> None:
    """Of 64 MB nothing stays, all is there again, and there is no file that another could see, or that stays."""
    told = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", IMAGE], capture_output=True, text=True, check=True, env=told)
    filled, given = map(float, done.stdout.split())
    assert filled > 60
    assert given < 5
    assert [*tmp_path.iterdir()] == []


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="images are in memory")
def test_a_large_image_is_in_memory_where_the_disk_has_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "posix_fallocate", full)
    image = large_image((LARGE_IMAGE,))
    image[:] = 7
    assert (put_aside(image) == 7).all()
    assert large_image((3, 5)).shape == (3, 5)


MANY = """
import os, resource
from stages.heap import LARGE_IMAGE, large_image

resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
images = [large_image((LARGE_IMAGE,)) for _ in range(40)]
for image in images:
    image[:9] = 7
with open(os.devnull) as first, open(os.devnull) as second:
    print(len(os.listdir("/proc/self/fd")) < 30, all(image[8] == 7 for image in images))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts open files in /proc")
def test_many_large_images_leave_files_for_others() -> None:
    """Each holds one open, and a process may have a thousand or fewer: slides could not be opened any more."""
    done = subprocess.run([sys.executable, "-c", MANY], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True"]
