"""What the demo reaches and what it costs, over several seeds, each in a process of its own.

    python benchmarks/demo.py [--seeds 0 1 2]

Every seed makes another cohort, other weights and other draws. Prints a line a seed and ends with one JSON line of all
figures: AUROC on unseen slides, share of the tissue and of the slides' bytes that was read, attention inside lesions
over their share of the tissue, seconds of each step, peak resident memory of the command (its largest process).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def measure(seed: int, folder: Path) -> dict[str, Any]:
    """Run ``saccade demo`` with one seed in ``folder``."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "pipeline.cli", "demo", "--out", str(folder), "--seed", str(seed)]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    wall = time.perf_counter() - started
    figures: dict[str, Any] = json.loads((folder / "demo.json").read_text())
    return {"seed": seed, "wall_seconds": wall, **figures}


def main() -> None:
    """Measure every seed and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    seeds = parser.parse_args().seeds
    found = []
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            one = measure(seed, Path(folder) / "demo")
        found.append(one)
        print(
            f"seed {seed}: AUROC {one['auroc']['value']:.3f} [{one['auroc']['low']:.3f}, {one['auroc']['high']:.3f}], "
            f"{one['fraction_read']:.1%} of the tissue, {one['bytes_read'] / one['slide_bytes']:.1%} of the bytes, "
            f"attention in lesions {one['attention_in_lesion']:.1f}x, {one['wall_seconds']:.0f} s",
            flush=True,
        )
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    machine = {"system": platform.platform(), "cpus": os.cpu_count()}
    print(json.dumps({"benchmark": "demo", "runs": found, "peak_bytes": peak, "machine": machine}))


if __name__ == "__main__":
    main()
