"""What one waits for before the first pixel, and around a cohort: each part in fresh processes, in turns.

    python benchmarks/startup.py [--rounds 9]       two minutes

- nothing: an interpreter that does nothing, the yardstick of the others;
- import: `import saccade`;
- help: `saccade --help`;
- open: a slide opened to read through `stages.slide.files`, as workers open it;
- pyramid: the same through `stages.pyramid.cache`, which opens whatever it is given;
- cohort: a table of 2000 names, looked up in a folder of as many slides;
- metrics: the scores of 200 predictions, with intervals.

Of each: the median wall and processor seconds of whole processes, both as multiples of the yardstick's, and how many
modules were imported and which of the heavy ones. Ends with one JSON line. On a busy machine the counts hold and the
seconds do not.
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
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import tifffile

NAMES = 2000
HEAVY = ("torch", "lightning", "zarr", "dask", "distributed", "skimage", "scipy", "matplotlib", "pydantic", "numpy")
PARTS = {
    "nothing": "",
    "import": "import saccade",
    "help": """
sys.argv = ["saccade", "--help"]
from pipeline.cli import main
try:
    main()
except SystemExit:
    pass
""",
    "open": "from stages.slide.files import open_slide; open_slide(slide)",
    "pyramid": "from stages.pyramid.open import open_pyramid; open_pyramid(slide)",
    "cohort": "from pipeline.cohort.table import read_table; read_table(table, root=folder)",
    "metrics": """
import numpy as np
from pipeline.statistics.metrics import evaluate
labels = np.arange(200) % 2
p = np.clip(np.random.default_rng(0).normal(0.3 + 0.4 * labels, 0.3), 0, 1)
evaluate([str(label) for label in labels], np.stack([1 - p, p], 1), [f"P{i // 2}" for i in range(200)], ["0", "1"])
""",
}
HEAD = """
import sys
from pathlib import Path
slide, table, folder = map(Path, sys.argv[1:4])
"""
TAIL = """
print(len(sys.modules), *(name for name in HEAVY if name in sys.modules), file=sys.stderr)
"""


@dataclass(frozen=True, slots=True)
class Process:
    """One process from start to end: seconds waited, seconds computed, modules imported, the heavy ones of them."""

    wall: float
    cpu: float
    modules: int
    heavy: tuple[str, ...]


def run(code: str, files: tuple[Path, ...]) -> Process:
    """A fresh process that does one part."""
    program = f"{HEAD}HEAVY = {HEAVY}\n{code}{TAIL}"
    command = [sys.executable, "-c", program, *map(str, files)]
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    modules, *heavy = done.stderr.split()
    return Process(wall, cpu, int(modules), tuple(heavy))


def make_files(folder: Path) -> tuple[Path, ...]:
    """A small slide, and a table of names with the folder that they are looked up in."""
    slide, table, slides = folder / "slide.tif", folder / "cohort.csv", folder / "slides"
    pixels = np.random.default_rng(0).integers(0, 256, (1024, 1024, 3), np.uint8)
    tifffile.imwrite(slide, pixels, tile=(256, 256), photometric="rgb", compression="jpeg")
    slides.mkdir()
    for i in range(NAMES):
        (slides / f"s{i}.svs").touch()
    table.write_text("slide_id\n" + "".join(f"s{i}\n" for i in range(NAMES)))
    return slide, table, slides


def main() -> None:
    """Measure every part and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    runs: dict[str, list[Process]] = {part: [] for part in PARTS}
    with tempfile.TemporaryDirectory() as folder:
        files = make_files(Path(folder))
        for number in range(rounds + 1):
            for part, code in PARTS.items():
                one = run(code, files)
                if number:  # the first writes the compiled modules and fills the disk's cache
                    runs[part].append(one)
    figures = {}
    for part, processes in runs.items():
        wall, cpu = median(p.wall for p in processes), median(p.cpu for p in processes)
        last = processes[-1]
        figures[part] = {"wall_seconds": wall, "cpu_seconds": cpu, "modules": last.modules, "heavy": last.heavy}
    least = figures["nothing"]
    for part, figure in figures.items():
        for kind in ("wall", "cpu"):
            figure[f"{kind}_ratio"] = figure[f"{kind}_seconds"] / least[f"{kind}_seconds"]
        print(
            f"{part:8} {figure['wall_seconds']:6.3f} s ({figure['wall_ratio']:5.1f}x), processor "
            f"{figure['cpu_seconds']:6.3f} s ({figure['cpu_ratio']:5.1f}x), {figure['modules']:5} modules, "
            f"heavy: {', '.join(figure['heavy']) or 'none'}"
        )
    machine = {"system": platform.platform(), "cpus": os.cpu_count()}
    print(json.dumps({"benchmark": "startup", "rounds": rounds, "parts": figures, "machine": machine}))


if __name__ == "__main__":
    main()
