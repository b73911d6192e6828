"""Opening and reading a DICOM slide through its own frames: this checkout against an earlier one, in turns.

    python benchmarks/dicom.py --against CHECKOUT [--rounds 7]       a minute

CHECKOUT is a folder with another version of this repository (`git worktree add CHECKOUT 6ee006e`); both run on this
Python. A round is a fresh process of each that opens the slide and reads all of it in squares of 256 px, 40 times over
after one that does not count (imports, and in a first slide pydicom's own, are told apart). Processor seconds; medians
over the rounds, and the median of the rounds' ratios. Ends with one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.places import ROOT, data_folder

SLIDE = "slides/multi_frame_jpeg_camelyon_challenge_image.dcm"
CHILD = """
import hashlib, json, sys, time
try:
    from stages.slide.files import open_slide
except ImportError:  # as it was called before the rooms
    from stages.slides import open_slide
from stages.geometry import Box

def read():
    slide = open_slide(sys.argv[1])
    level = slide.facts.levels[0]
    whole = Box(0, 0, level.width, level.height)
    assert slide.direct(0)
    boxes = [
        Box(x, y, 256, 256).intersect(whole) for y in range(0, level.height, 256) for x in range(0, level.width, 256)
    ]
    return slide.read_boxes(0, boxes)

started = time.process_time()
pixels = hashlib.sha256(b"".join(part.tobytes() for part in read())).hexdigest()
first = time.process_time() - started
started = time.process_time()
for _ in range(40):
    read()
print(json.dumps({"first": first, "each": (time.process_time() - started) / 40, "pixels": pixels}))
"""


def measured(checkout: Path, slide: Path) -> dict[str, Any]:
    """What a fresh process of a checkout's code tells."""
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    command = [sys.executable, "-W", "ignore", "-c", CHILD, str(slide)]
    done = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--against", type=Path, required=True, help="another checkout")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    slide = data_folder().resolve() / SLIDE
    rounds = [(measured(ROOT, slide), measured(options.against.resolve(), slide)) for _ in range(options.rounds)]
    assert len({found["pixels"] for pair in rounds for found in pair}) == 1, "the pixels differ"
    told: dict[str, Any] = {"slide": slide.name, "rounds": len(rounds), "same_pixels": True}
    for what in ("each", "first"):
        here, there = (median(pair[i][what] for pair in rounds) for i in (0, 1))
        ratio = median(ours[what] / theirs[what] for ours, theirs in rounds)
        told[what] = {"here_ms": round(1000 * here, 2), "there_ms": round(1000 * there, 2), "ratio": round(ratio, 3)}
        print(f"{what:<6} here {1000 * here:7.2f} ms, there {1000 * there:7.2f} ms, ratio {ratio:.3f}")
    print(json.dumps(told))


if __name__ == "__main__":
    main()
