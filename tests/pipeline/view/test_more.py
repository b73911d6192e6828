"""Reading more of a slide over HTTP: right, one at a time, for those who may, and the run stays as it is."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from makers import ROOT, tissue_pixels, write_slide
from models import save_untrained
from viewing import change_json, get, hostile, served

from pipeline.model.checkpoint import load_model
from pipeline.predict import predict_slide
from pipeline.view.more import MOST, SLIDES
from pipeline.view.more_page import now_of
from pipeline.view.run_folder import open_run
from pipeline.view.samples import read_samples
from pipeline.view.viewer import Viewer
from stages.pyramid.open import open_pyramid

pytest.importorskip("bokeh")

EVERYTHING = [0, 0, 1e6, 1e6]


@pytest.fixture(scope="module")
def shown(viewed: Path) -> Iterator[tuple[str, Viewer]]:
    viewer = Viewer(open_run(viewed))
    with served(viewer) as address:
        yield address, viewer


def ask(address: str, method: str, body: object = None, **headers: str) -> tuple[int, dict[str, Any]]:
    at = urlsplit(address)
    said = {"Origin": f"http://{at.netloc}", "Content-Type": "application/json", **headers}
    data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address, data, said, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as exc:
        with exc:
            text = exc.read()
            return exc.code, json.loads(text) if text.startswith(b"{") else {}


def waited(address: str) -> dict[str, Any]:
    """How it stands once nothing goes on any more."""
    until = time.monotonic() + 120
    while time.monotonic() < until:
        status, state = ask(address, "GET")
        assert status == 200
        if state["job"] is None or state["job"]["error"]:
            return state
        time.sleep(0.05)
    raise AssertionError("it goes on and on")


def read(address: str, box: list[float], most: int = MOST) -> dict[str, Any]:
    status, told = ask(address, "POST", {"box": box, "most": most})
    assert (status, told) == (202, {})
    return waited(address)


def test_a_place_is_read_then_everything_which_is_the_model_that_reads_everything(
    shown: tuple[str, Viewer], viewed: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.view.layers.LEAST", 1e-9)  # an untrained model says next to nothing
    address, viewer = shown
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in viewed.rglob("*")}
    at = f"{address}s/0/more"
    samples = read_samples(viewed / "slides/even/samples.h5")
    x, y, width, height = samples.boxes[0].tolist()
    state = read(at, [x - width, y - height, 3 * width, 3 * height])
    found = state["found"]
    assert (state["why"], state["job"]) == (None, None)
    assert found["times"] == 1
    model = load_model(checkpoint)
    exact = predict_slide(open_pyramid(viewed.parent / "even.tif"), model, samples=10**6)
    boxes = np.array([patch["box"] for patch in found["patches"]])
    inside = (np.abs(boxes[:, :2] + boxes[:, 2:] / 2 - (samples.boxes[0, :2] + samples.boxes[0, 2:] / 2)) <= width).all(
        1
    )
    weights = np.array([patch["weight"] for patch in found["patches"]])
    assert inside.sum() > 1
    assert (weights[inside] == 1).all(), "the place counts as read"
    assert weights.max() > 1, "patches elsewhere stand for others"
    assert "Read here: " in found["html"]
    picture = found["patches"][0]["picture"].replace("../../", address)
    assert get(picture)[0] == 200
    assert get(picture.replace("/more/1/", "/more/2/"))[0] == 404
    assert get(picture.replace("/0.jpg", "/99999.jpg"))[0] == 404
    [evidence] = found["maps"]
    read_by_run = samples.cells
    steps = np.frombuffer(base64.b64decode(evidence["steps"]), np.uint8).reshape(exact.attention.shape)[::-1]
    cells = exact.attribution.cells[:, -1].reshape(exact.attention.shape)
    top = float(np.abs(exact.attribution.cells[read_by_run]).max())
    since = viewer.more.since(viewer.run.slides[0])
    assert since is not None
    assert since.samples is not None
    read_by_now = since.samples.cells
    expected = 1 + 127 * (1 + cells.flat[read_by_now] / top)
    assert len(read_by_now) > len(samples.cells)
    assert np.abs(steps.flat[read_by_now] - expected).max() < 2, "each patch says what it says by itself"
    assert len(set(steps.flat[read_by_now].tolist())) > 8
    known = ask(f"{at}?shown=1", "GET")[1]["found"]
    assert known == {"times": 1}, "what the page shows is not told again"
    state = read(at, EVERYTHING)
    assert len(state["found"]["patches"]) == exact.cells
    assert all(patch["weight"] == 1 for patch in state["found"]["patches"])
    assert "Nothing is left to chance." in state["found"]["html"]
    since = viewer.more.since(viewer.run.slides[0])
    assert since is not None
    now = now_of(since)
    for name, value in exact.values.items():
        assert now[name][0] == pytest.approx(value, abs=1e-5)
        assert now[name][1] == now[name][2]
    assert read(at, EVERYTHING)["job"]["error"] == "all the tissue there was read"
    assert ask(at, "DELETE")[0] == 200, "what went wrong is put away"
    assert ask(at, "GET")[1]["found"]["times"] == 2
    assert ask(at, "DELETE")[0] == 200
    assert ask(at, "GET")[1]["found"] is None
    assert {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in viewed.rglob("*")} == before


def test_one_at_a_time_and_it_can_be_ended(viewed: Path) -> None:
    with served(Viewer(open_run(viewed))) as address:
        assert ask(f"{address}s/0/more", "POST", {"box": EVERYTHING, "most": MOST})[0] == 202
        status, told = ask(f"{address}s/1/more", "POST", {"box": EVERYTHING, "most": MOST})
        assert (status, told) == (409, {"error": "more of even is being read: wait for it, or end that"})
        going = ask(f"{address}s/1/more", "GET")[1]["job"]
        assert (going["own"], going["name"]) == (False, "even")
        assert ask(f"{address}s/1/more", "DELETE")[0] == 200, "only its own page ends it"
        assert ask(f"{address}s/0/more", "GET")[1]["job"] is not None
        assert ask(f"{address}s/0/more", "DELETE")[0] == 200
        state = waited(f"{address}s/0/more")
        assert (state["job"], state["found"]) == (None, None)
        # of so many slides what was read is kept
        for number in range(3):
            assert read(f"{address}s/{number}/more", EVERYTHING, most=4)["found"]["times"] == 1
        assert SLIDES == 2
        assert [ask(f"{address}s/{n}/more", "GET")[1]["found"] is None for n in range(3)] == [True, False, False]


def test_a_large_place_is_drawn_from_and_that_is_said(viewed: Path) -> None:
    with served(Viewer(open_run(viewed))) as address:
        found = read(f"{address}s/0/more", EVERYTHING, most=20)["found"]
        assert "Read here: 20 patches; " in found["html"]
        assert " of it are still unread. Elsewhere: 0, drawn anew." in found["html"]
        error = read(f"{address}s/0/more", [-500, -500, 400, 400])["job"]["error"]
        assert error == "there is no tissue there"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no",
        b"[]",
        b"{}",
        b'{"box": [0, 0, 1, 1]}',
        b'{"box": [0, 0, 1, 1], "most": 0}',
        b'{"box": [0, 0, 1, 1], "most": 4097}',
        b'{"box": [0, 0, 1, 1], "most": 1.5}',
        b'{"box": [0, 0, 1, 1], "most": true}',
        b'{"box": [0, 0, 0, 1], "most": 1}',
        b'{"box": [0, 0, -1, 1], "most": 1}',
        b'{"box": [0, 0, 1], "most": 1}',
        b'{"box": [NaN, 0, 1, 1], "most": 1}',
        b'{"box": [1e999, 0, 1, 1], "most": 1}',
        b'{"box": "0011", "most": 1}',
        b'{"box": [0, 0, {}, 1], "most": 1}',
        b"[" * 900,
    ],
)
def test_what_is_no_request_of_the_page_is_refused(shown: tuple[str, Viewer], body: bytes) -> None:
    assert ask(f"{shown[0]}s/0/more", "POST", body)[0] == 400
    assert shown[1].more.job is None


def test_pages_from_elsewhere_and_large_requests_are_refused(shown: tuple[str, Viewer]) -> None:
    at, good = f"{shown[0]}s/0/more", {"box": EVERYTHING, "most": 1}
    port = urlsplit(at).port
    for origin in (
        "http://evil.example",
        "null",
        "",
        f"https://127.0.0.1:{port}",
        f"http://127.0.0.1:{port}.evil.example",
    ):
        for method in ("POST", "DELETE"):
            assert ask(at, method, good, Origin=origin)[0] == 403, origin
    assert get(at, method="POST")[0] == 403, "no origin at all"
    assert ask(at, "POST", good, Host="evil.example")[0] == 403
    token = urlsplit(at).path.split("/")[1]
    assert ask(at.replace(token, "x"), "POST", good)[0] == 403
    assert ask(at, "POST", json.dumps(good).encode() + b" " * 2000)[0] == 413
    assert ask(f"{shown[0]}s/99/more", "POST", good)[0] == 404
    assert ask(f"{shown[0]}s/3/more", "POST", good)[0] == 404, "it failed, and has no results"
    for method in ("PUT", "PATCH", "OPTIONS", "HEAD"):
        assert get(at, method=method)[0] == 405
    assert shown[1].more.job is None


def why(run: Path, **how: Any) -> str:
    viewer = Viewer(open_run(run), **how)
    found = viewer.more.why_not(viewer.run.slides[0])
    viewer.more.close()
    return found or ""


def test_why_no_more_can_be_read_is_told_in_a_line_with_the_remedy(run: Path, checkpoint: Path, tmp_path: Path) -> None:
    assert why(run) == ""
    change_json(run / "run.json", lambda told: told["settings"].update(model="/nowhere/model.safetensors"))
    assert why(run) == (
        "the run's model is not at /nowhere/model.safetensors any more; name the run's model with --model"
    )
    assert why(run, model=checkpoint) == ""
    other = save_untrained(tmp_path / "other.safetensors", classes=("a", "b"))
    assert "is another model than the one that predicted this slide" in why(run, model=other)
    (tmp_path / "cut.safetensors").write_bytes(b"no")
    assert why(run, model=tmp_path / "cut.safetensors").endswith("name that with --model")
    change_json(run / "slides/even/prediction.json", lambda told: told["made_of"].update(version=1))
    assert "another version of Saccade made this result" in why(run, model=checkpoint)
    change_json(run / "run.json", lambda told: told.update(unit="patient"))
    viewer = Viewer(open_run(run), model=checkpoint)
    assert "predicts patients from all of their slides" in str(viewer.more.why_not(viewer.run.slides[0]))


def test_a_slide_that_was_replaced_or_a_bag_that_is_damaged_is_refused(run: Path, tmp_path: Path) -> None:
    (tmp_path / "slides").mkdir()
    moved = write_slide(tmp_path / "slides" / "even.tif", tissue_pixels(2048, 1536, margin=0.1))
    change_json(run / "slides/even/prediction.json", lambda told: told.update(path="/nowhere/even.tif"))
    (run / "slides/odd/samples.h5").write_bytes(b"no")
    with served(Viewer(open_run(run), [moved.parent])) as address:
        assert (
            "is another slide than the one that was predicted" in read(f"{address}s/0/more", EVERYTHING)["job"]["error"]
        )
        assert ask(f"{address}s/0/more", "DELETE")[0] == 200
        told = read(f"{address}s/1/more", EVERYTHING)["job"]["error"]
        assert "(samples.h5) are missing or damaged: run the same `saccade run` again" in told


def test_hostile_names_are_text(run: Path) -> None:
    with served(Viewer(hostile(run))) as address:
        found = read(f"{address}s/0/more", EVERYTHING, most=4)["found"]
        assert "<script" not in found["html"]
        assert set(re.findall(r"<(\w+)", found["html"])) <= {
            *("table", "tbody", "tr", "th", "td", "div", "span", "p", "b", "svg", "rect", "line", "title")
        }


def test_without_torch_it_says_what_is_missing(viewed: Path) -> None:
    code = """
import sys
sys.modules.update(dict.fromkeys(("torch", "torchmetrics", "lightning")))
from pathlib import Path
from pipeline.view.view import make_viewer
viewer = make_viewer(Path(sys.argv[1]))
try:
    viewer.more.begin(viewer.slide(0), (0, 0, 9, 9), 4)
except Exception as exc:
    print(type(exc).__name__, exc)
"""
    done = subprocess.run([sys.executable, "-c", code, str(viewed)], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.startswith("UsageError to read more is to compute, which needs PyTorch: "), done.stderr
