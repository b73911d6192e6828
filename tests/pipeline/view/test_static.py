"""Pages that need no server: all that they show lies beside them."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from makers import saccade
from viewing import data_in

from pipeline.errors import UsageError
from pipeline.view.run_folder import open_run
from pipeline.view.static import write_pages
from pipeline.view.viewer import Viewer

pytest.importorskip("bokeh")


def test_every_address_in_a_page_is_a_file_beside_it(viewed: Path, tmp_path: Path) -> None:
    out = tmp_path / "pages"
    first = write_pages(Viewer(open_run(viewed)), out)
    assert first == out / "index.html"
    pages = sorted(out.glob("*.html"))
    assert [page.name for page in pages] == ["index.html", "slide-0.html", "slide-1.html", "slide-2.html"]
    for page in pages:
        text = page.read_text(encoding="utf-8")
        addresses = set(re.findall(r'(?:src|href)="([^"]+)"', text)) - {"data:,"}
        assert len(addresses) >= 3
        for address in addresses:
            assert (out / address).is_file(), address
            assert (out / address).resolve().is_relative_to(out.resolve())
        assert "default-src 'none'" in text
        assert not re.search(r'(?:src|href|url)"?[=:(]\s*"?(?:https?:)?//', text)
    told = data_in((out / "slide-0.html").read_text(encoding="utf-8"))
    pictured = {i for i, patch in enumerate(told["patches"]) if patch["picture"]}
    assert pictured == {i for row in told["gallery"] for i in row}
    assert pictured, "the gallery shows something"
    for i in pictured:
        assert (out / told["patches"][i]["picture"]).stat().st_size > 500
    assert "tile/{Z}" not in (out / "slide-0.html").read_text(encoding="utf-8")
    assert "data:image/jpeg;base64," in (out / "slide-0.html").read_text(encoding="utf-8")


def test_pages_are_written_again_and_nothing_else_is_replaced(viewed: Path, tmp_path: Path) -> None:
    out = tmp_path / "pages"
    viewer = Viewer(open_run(viewed))
    write_pages(viewer, out)
    before = (out / "index.html").read_bytes()
    (out / "index.html").write_text("cut")
    write_pages(viewer, out)
    assert (out / "index.html").read_bytes() == before
    other = tmp_path / "other"
    other.mkdir()
    (other / "index.html").write_text("mine")
    with pytest.raises(UsageError, match=r"already has a 'index\.html' that saccade did not write"):
        write_pages(viewer, other)
    assert (other / "index.html").read_text() == "mine"


def test_without_the_slides_pages_show_the_maps_and_say_so(run: Path, tmp_path: Path) -> None:
    for commit in run.glob("slides/*/prediction.json"):
        commit.write_text(commit.read_text().replace('"path": "/', '"path": "/nowhere/'))
    shutil.rmtree(run / "slides" / "odd" / "evidence.zarr")
    (run / "slides" / "plain" / "prediction.json").write_text("{")
    done = saccade("view", run, "--static", tmp_path / "pages")
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'pages' / 'index.html'}\n"), done.stderr
    page = (tmp_path / "pages" / "slide-0.html").read_text(encoding="utf-8")
    assert "The slide is not at /nowhere/" in page
    assert [layer["name"] for layer in data_in(page)["layers"]] == ["attention", "evidence"]
    assert "The map of evidence (evidence.zarr) is missing" in (tmp_path / "pages" / "slide-1.html").read_text()
    assert "is not finished, or its prediction.json is damaged" in (tmp_path / "pages" / "slide-2.html").read_text()


def test_a_port_and_pages_contradict_each_other(viewed: Path, tmp_path: Path) -> None:
    done = saccade("view", viewed, "--static", tmp_path / "pages", "--port", "8123")
    assert (done.returncode, done.stderr) == (2, "saccade: error: --static serves nothing: leave --port out\n")
