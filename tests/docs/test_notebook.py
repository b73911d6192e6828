"""docs/notebook.ipynb runs from its first cell to its last, and is kept without outputs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from makers import ROOT, tissue_pixels, write_slide

NOTEBOOK = ROOT / "docs" / "notebook.ipynb"
RUN = """
import ast, json, sys
names = {}
for cell in json.load(open(sys.argv[1], encoding="utf-8"))["cells"]:
    if cell["cell_type"] != "code":
        continue
    body = ast.parse("".join(cell["source"])).body
    last = body.pop() if isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), "cell", "exec"), names)
    shown = eval(compile(ast.Expression(last.value), "cell", "eval"), names) if last else None
    print(getattr(shown, "_repr_html_", lambda: shown)())  # as Jupyter shows it
"""


@pytest.fixture(scope="module")
def cells() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return found


def test_its_cells_run(checkpoint: Path, tmp_path: Path) -> None:
    """In a fresh interpreter, on what `make demo` leaves: a slide and a model, in their places."""
    demo = tmp_path / "data" / "demo"
    write_slide(demo / "cohort" / "slides" / "slide-061.tif", tissue_pixels(2048, 1536))
    (demo / "training").mkdir()
    shutil.copy(checkpoint, demo / "training" / "model.safetensors")
    (tmp_path / "docs").mkdir()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"}
    done = subprocess.run(
        [sys.executable, "-c", RUN, NOTEBOOK],
        cwd=tmp_path / "docs",
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    for words in ("8 patches: ", "64 patches: ", "sum 1.000", "sum of all parts", "export/qupath/slide-061.geojson"):
        assert words in done.stdout
    sums = done.stdout.partition("sum of all parts ")[2].split("\n")[0].split(", log-odds of the prediction ")
    assert sums[0] == sums[1]


def test_it_takes_what_the_demo_writes() -> None:
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert "cohort/slides/slide-061.tif" in text  # a name that `pipeline.demo.cohort` gives
    assert "DEMO ?= data/demo" in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_it_has_no_outputs(cells: list[dict[str, Any]]) -> None:
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert code
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


def test_its_links_lead_somewhere(cells: list[dict[str, Any]]) -> None:
    prose = "".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    links = re.findall(r"\]\(([^)#:]+)", prose)
    assert links
    assert all((NOTEBOOK.parent / link).exists() for link in links)
