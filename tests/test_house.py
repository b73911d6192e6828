"""The house's own rules: imports run one way, configurations load, the command answers at once."""

from __future__ import annotations

import ast
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

from pipeline.config import load_config

# the order of the flow: a stage may import only what stands before it
STAGES = (
    *(
        "geometry",
        "jpeg",
        "codecs",
        "tiles",
        "tiff",
        "dicom",
        "facts",
        "slides",
        "reduced",
        "ngff",
        "marks",
        "shards",
        "virtual",
        "readthrough",
        "resampling",
        "rasters",
        "tissue",
        "plans",
        "packing",
        "building",
        "pyramids",
        "ngff04",
        "attention",
        "hilbert",
        "schemes",
    ),
    *("sampling", "patches", "features", "aggregation", "outlines", "overlays"),
)


def imported(path: Path) -> set[str]:
    """Every project module that a file imports, at whatever depth."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return {name for name in found if name.split(".")[0] in ("stages", "pipeline")}


def test_stages_never_import_the_pipeline() -> None:
    for path in (ROOT / "stages").glob("*.py"):
        assert not {name for name in imported(path) if name.startswith("pipeline")}, path


def test_stages_import_downward_only() -> None:
    assert {path.stem for path in (ROOT / "stages").glob("*.py")} == {"__init__", *STAGES}
    for i, stage in enumerate(STAGES):
        above = {f"stages.{name}" for name in STAGES[i:]}
        assert not imported(ROOT / "stages" / f"{stage}.py") & above, stage


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_every_configuration_loads_and_says_what_it_is(path: Path) -> None:
    load_config(path)
    header = path.read_text().splitlines()[0]
    assert header.startswith("#"), "a configuration begins with its purpose"
    assert isinstance(yaml.safe_load(path.read_text()), dict)


def test_help_needs_nothing_heavy() -> None:
    """What makes a command slow is what it imports: `--help` must import none of it."""
    code = """
import sys
sys.argv = ["saccade", "--help"]
import pipeline.cli
try:
    pipeline.cli.main()
except SystemExit:
    pass
heavy = ("torch", "numpy", "dask", "zarr", "pandas", "lightning", "matplotlib")
print([module for module in heavy if module in sys.modules], file=sys.stderr)
"""
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert time.perf_counter() - started < 10  # a hang, not a benchmark
    for command in ("demo", "info", "cache", "train", "run"):
        assert command in done.stdout
