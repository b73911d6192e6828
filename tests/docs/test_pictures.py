"""Pictures of the documentation: small, used, and made by its script."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
from makers import ROOT
from pages import PAGES, blocks, text_of
from PIL import Image

ENDINGS = (".jpg", ".png", ".gif", ".svg")
SHOWN = {
    ((ROOT / page).parent / link).resolve()
    for page in PAGES
    for link in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text_of(page))
}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    pytest.importorskip("torch")
    spec = importlib.util.spec_from_file_location("make_pictures", ROOT / "docs" / "make_pictures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def test_each_is_made_by_the_script_and_shown(script: ModuleType) -> None:
    found = {path for path in (ROOT / "docs").iterdir() if path.suffix in ENDINGS}
    assert found == {ROOT / "docs" / name for name in script.PICTURES} == SHOWN


def test_each_is_small(script: ModuleType) -> None:
    assert {path.name: path.stat().st_size for path in SHOWN if path.stat().st_size > script.LARGEST} == {}


def test_the_example_is_drawn_as_it_is_told(script: ModuleType, tmp_path: Path) -> None:
    script.make("intervals.png", tmp_path, demo=tmp_path)
    assert size_of(tmp_path / "intervals.png") == size_of(ROOT / "docs" / "intervals.png")
    page = text_of("docs/reading-results.md")
    for name, (p, low, high) in script.EXAMPLE.items():
        told = [f"{one:.2f}".removeprefix("0") for one in (p, low, high)]
        assert f"| {name} | {told[0]} | [{told[1]}, {told[2]}] |" in page
    [block] = blocks("docs/reading-results.md", "pycon")
    assert f"[{script.SURPRISE}, 0.3]" in block.text


@pytest.mark.realdata
def test_the_drawing_is_made_of_a_real_slide(
    script: ModuleType, shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SACCADE_DATA", str(shared_data))
    script.make("drawing.jpg", tmp_path, demo=tmp_path)
    assert size_of(tmp_path / "drawing.jpg") == size_of(ROOT / "docs" / "drawing.jpg")


def test_what_is_missing_is_said(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SACCADE_DATA", str(tmp_path))
    for name, words in (("demo-overlay.jpg", "no demo in .*make demo"), ("drawing.jpg", "set SACCADE_DATA")):
        with pytest.raises(FileNotFoundError, match=words):
            script.make(name, tmp_path, demo=tmp_path)
        assert not (tmp_path / name).exists()
