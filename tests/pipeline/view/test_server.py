"""The server as a browser meets it: real requests over HTTP, and everything that is to be refused."""

from __future__ import annotations

import csv
import io
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import openslide
import pytest
from makers import ROOT, saccade, spoil, tissue_pixels, write_slide
from PIL import Image
from viewing import get, point_at, served, serving

from pipeline.view.run_folder import open_run
from pipeline.view.samples import read_samples
from pipeline.view.server import LOOPBACK, listen
from pipeline.view.viewer import Viewer

needs_bokeh = pytest.mark.skipif("not __import__('importlib').util.find_spec('bokeh')", reason="bokeh is not installed")


@pytest.fixture(scope="module")
def address(viewed: Path) -> Iterator[str]:
    with served(Viewer(open_run(viewed))) as found:
        yield found


def pixels(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"), float)


def test_a_tile_over_http_is_what_openslide_shows_there(address: str, viewed: Path) -> None:
    status, body, headers = get(f"{address}s/0/tile/3/2/4.jpg")
    assert (status, headers["Content-Type"]) == (200, "image/jpeg")
    with openslide.OpenSlide(viewed.parent / "even.tif") as slide:
        theirs = np.asarray(slide.read_region((512, 1024), 0, (256, 256)).convert("RGB"), float)
    ours = pixels(body)
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).mean() < 2.5
    assert np.abs(ours - theirs).mean() < np.abs(ours[1:] - theirs[:-1]).mean() / 3


def test_a_patch_over_http_is_level_0_at_its_box(address: str, viewed: Path) -> None:
    boxes = read_samples(viewed / "slides" / "even" / "samples.h5").boxes
    status, body, _ = get(f"{address}s/0/patch/3.jpg")
    x, y, width, height = boxes[3].astype(int)
    with openslide.OpenSlide(viewed.parent / "even.tif") as slide:
        theirs = np.asarray(slide.read_region((x, y), 0, (width, height)).convert("RGB"), float)
    assert status == 200
    assert pixels(body).shape == theirs.shape
    assert np.abs(pixels(body) - theirs).mean() < 3


def test_beyond_the_slide_tiles_are_clear_and_beyond_the_run_there_is_nothing(address: str) -> None:
    for place in ("2/99/0", "0/1/0", "77/0/0"):
        status, body, headers = get(f"{address}s/0/tile/{place}.jpg")
        assert (status, headers["Content-Type"]) == (200, "image/png")
        with Image.open(io.BytesIO(body)) as image:
            assert (image.size, image.mode, image.getpixel((0, 0))[3]) == ((1, 1), "RGBA", 0)
    for place in ("s/99/tile/0/0/0.jpg", "s/3/tile/0/0/0.jpg", "s/3/", "s/0/patch/9999.jpg", "nothing", "asset/no.js"):
        assert get(f"{address}{place}")[0] == 404, place


@pytest.mark.parametrize(
    "path",
    [
        *(
            "../run.json",
            "..%2frun.json",
            "s/..%2f..%2fetc/passwd",
            "s/0/../../../run.json",
            "run.json",
            "predictions.csv",
        ),
        *(
            "s/0/samples.h5",
            "s/0/thumbnail.png",
            "asset/../viewer.py",
            "asset/viewer.py",
            "asset/%2e%2e",
            "s/-1/",
            "s/0x1/",
        ),
        *("s/0/tile/0/0/0.jpg/..", "s/0/tile/0/0/0.jpg%00.png", "//etc/passwd", "s/٣/", "s/0/patch/../../1/"),
    ],
)
def test_no_address_names_a_file(address: str, path: str) -> None:
    """As bytes on the wire, so that no client tidies the path first."""
    at = urlsplit(address)
    with socket.create_connection((at.hostname, at.port), timeout=30) as plug:
        line = f"GET {at.path}{path} HTTP/1.1\r\nHost: {at.netloc}\r\nConnection: close\r\n\r\n"
        plug.sendall(line.encode())
        answer = b"".join(iter(lambda: plug.recv(65536), b""))
    status, _, body = answer.partition(b"\r\n\r\n")
    assert re.match(rb"HTTP/1.1 (400|403|404) ", status), status
    assert len(body) < 100
    assert b"saccade" not in body


@pytest.mark.parametrize("place", ["", "s/0/tile/0/0/0.jpg", "s/0/thumbnail.jpg", "asset/cohort.js", "nothing"])
def test_other_names_of_this_machine_and_wrong_tokens_are_refused(address: str, place: str) -> None:
    at = urlsplit(address)
    for host in ("evil.example", f"evil.example:{at.port}", "127.0.0.1", "", f"127.0.0.1.evil.example:{at.port}"):
        status, body, _ = get(f"{address}{place}", Host=host)
        assert (status, body) == (403, b"403 Foreign host\n"), host
    token = at.path.strip("/")
    assert len(token) >= 40
    for wrong in ("x", token[:-1], f"{token}x", token.swapcase(), "%00", "t" * 5000):
        assert get(f"http://{at.netloc}/{wrong}/{place}")[0] == 403, wrong
    assert get(f"http://{at.netloc}/")[0] == 403
    assert get(f"http://localhost:{at.port}/{token}/s/0/tile/0/0/0.jpg")[0] == 200


def test_what_a_browser_s_command_line_shows_leads_in_a_single_time(viewed: Path) -> None:
    with serving(Viewer(open_run(viewed))) as (address, once):
        at = urlsplit(once)
        token = urlsplit(address).path.strip("/")
        assert token not in once
        assert get(f"http://{at.netloc}/once-wrong")[0] == 403
        assert get(once, Host="evil.example")[0] == 403
        with socket.create_connection((at.hostname, at.port), timeout=30) as plug:
            plug.sendall(f"GET {at.path} HTTP/1.1\r\nHost: {at.netloc}\r\nConnection: close\r\n\r\n".encode())
            answer = b"".join(iter(lambda: plug.recv(65536), b"")).decode()
        assert answer.startswith("HTTP/1.1 302 ")
        assert f"Location: /{token}/\r\n" in answer
        assert get(once)[0] == 403


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_is_written(address: str, viewed: Path, method: str) -> None:
    before = {path: path.stat().st_mtime_ns for path in viewed.rglob("*")}
    assert get(f"{address}s/0/tile/0/0/0.jpg", method=method)[0] == 405
    for place in ("s/0/tile/0/0/0.jpg", "s/0/patch/0.jpg", "s/0/overview.jpg"):
        assert get(f"{address}{place}")[0] == 200
    assert {path: path.stat().st_mtime_ns for path in viewed.rglob("*")} == before


def test_answers_may_load_nothing_from_elsewhere_and_stay_in_their_own_frame(address: str) -> None:
    _, _, headers = get(f"{address}s/0/overview.jpg")
    told = headers["Content-Security-Policy"]
    assert "default-src 'none'" in told
    assert "http" not in told
    assert "unsafe-eval" not in told
    assert "frame-ancestors 'none'" in told
    assert (headers["Referrer-Policy"], headers["X-Content-Type-Options"]) == ("no-referrer", "nosniff")
    assert "Server" not in headers
    assert "Access-Control-Allow-Origin" not in headers


def test_only_this_machine_is_listened_to() -> None:
    with listen(None) as listening:
        assert listening.getsockname()[0] == LOOPBACK == "127.0.0.1"


def test_a_tile_that_is_damaged_is_seen_as_such(run: Path, tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "even.tif", tissue_pixels(2048, 1536))
    spoil(slide, 0, 0)
    point_at(run, "even", slide)
    with served(Viewer(open_run(run))) as address:
        status, body, headers = get(f"{address}s/0/tile/3/0/0.jpg")
        assert (status, headers["Content-Type"], headers["Cache-Control"]) == (500, "image/png", "no-store")
        assert len({tuple(p) for p in pixels(body).reshape(-1, 3).tolist()}) >= 2, "it shows"
        assert get(f"{address}s/0/tile/3/3/2.jpg")[0] == 200, "the others are whole"


@needs_bokeh
def test_pages_hold_the_slides_and_no_address_of_elsewhere(address: str, viewed: Path) -> None:
    status, body, headers = get(address)
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=UTF-8")
    page = body.decode()
    with (viewed / "predictions.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            assert row["slide_id"] in page
    status, body, _ = get(f"{address}s/0/")
    assert status == 200
    for text in (page, body.decode()):
        assert not re.findall(r"(?:src|href)=\"(?!asset/|\.\./|s/|data:,)[^\"]*", text)
    assert get(f"{address}s/0/?of=0")[0] == get(f"{address}s/0/?of=999999")[0] == get(f"{address}s/0/?of=x")[0] == 200
    for name in ("bokeh.js", "viewer.js", "cohort.js", "viewer.css"):
        assert get(f"{address}asset/{name}")[0] == 200


# -- the command -----------------------------------------------------------------------------------------------------


def start(run: Path, *args: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pipeline.cli", "view", str(run), "--no-browser", *map(str, args)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)


@needs_bokeh
@pytest.mark.parametrize("ends", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_until_it_is_ended_quietly(viewed: Path, ends: signal.Signals) -> None:
    process = start(viewed)
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    with urllib.request.urlopen(address, timeout=30) as answer:
        assert answer.status == 200
    process.send_signal(ends)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 128 + ends
    assert out == ""
    assert len(err.splitlines()) == 1
    assert err.startswith("open this address in your browser; Ctrl-C ends it ")


@needs_bokeh
def test_a_port_in_use_is_refused_in_one_line(viewed: Path) -> None:
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = saccade("view", viewed, "--no-browser", "--port", port)
    assert (done.returncode, done.stdout) == (2, "")
    told = f"port {port} is in use by another program: give another --port, or leave it out for a free one"
    assert done.stderr == f"saccade: error: {told}\n"


def test_without_bokeh_the_command_says_what_to_install(viewed: Path) -> None:
    code = "import sys; sys.modules['bokeh'] = None; from pipeline.cli import main; main()"
    command = [sys.executable, "-c", code, "view", str(viewed), "--no-browser"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 2
    assert re.fullmatch(r"saccade: error: `saccade view` needs bokeh, .*pip install -e '\.\[view\]'\n", done.stderr)


@needs_bokeh
def test_a_folder_that_is_no_run_is_one_line(tmp_path: Path) -> None:
    done = saccade("view", tmp_path, "--no-browser")
    assert done.returncode == 2
    assert done.stderr.startswith(f"saccade: error: {tmp_path} is empty: name the folder")
    assert done.stderr.count("\n") == 1


@needs_bokeh
def test_looking_needs_no_torch(viewed: Path) -> None:
    code = """
import sys
sys.modules.update(dict.fromkeys(("torch", "torchmetrics", "lightning")))
from pathlib import Path
from pipeline.view.links import Links
from pipeline.view.view import make_viewer
viewer = make_viewer(Path(sys.argv[1]))
print(len(viewer.page(viewer.slide(0), Links(served=True))), len(viewer.tile(0, 0, 0, 0)))
"""
    done = subprocess.run([sys.executable, "-c", code, str(viewed)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="memory is read from /proc")
def test_memory_is_flat_over_thousands_of_tiles(run: Path, tmp_path: Path) -> None:
    """Of a slide of 420 megapixels, each tile once, after those that fill what is kept."""
    pytest.importorskip("bokeh")
    write_slide(tmp_path / "even.tif", np.tile(tissue_pixels(2048, 2048, margin=0.0), (10, 10, 1)), levels=1)
    point_at(run, "even", tmp_path / "even.tif")
    process = start(run)
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    seen = []
    try:
        for k in range(1600):
            assert get(f"{address}s/0/tile/6/{k % 40}/{k // 40}.jpg")[0] == 200
            if k % 400 == 399:
                pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
                seen.append(pages * os.sysconf("SC_PAGE_SIZE"))
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert seen[-1] - seen[1] < 20e6, seen
