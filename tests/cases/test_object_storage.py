"""Slides in a store of objects: on moto's S3 server on loopback, with every request counted, and in memory."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from makers import assert_same_pixels, saccade, tissue_pixels, write_slide

from pipeline.cache import cache_cohort
from pipeline.check import check_cohort
from pipeline.cohort.table import read_table
from pipeline.cohort.target import find_target
from pipeline.errors import UsageError
from pipeline.run.keys import RunSettings
from pipeline.run.run import run_cohort
from stages import object_store
from stages.geometry import Box
from stages.place import Url
from stages.pyramid.cache import cache_pyramid
from stages.pyramid.chunk_cache import CachedSlide, chunk_cache
from stages.pyramid.export import export_ngff04
from stages.pyramid.open import open_pyramid
from stages.slide.facts import SlideError

KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}


@dataclass
class Log:
    """What a server was asked: method, path, range, and bytes that it sent."""

    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    sent: int = 0

    def forget(self) -> None:
        self.requests.clear()
        self.sent = 0


@pytest.fixture(scope="module")
def s3() -> Iterator[Log]:
    """A bucket ``slides`` on a server of this machine, to which S3 is directed."""
    pytest.importorskip("s3fs", reason="s3:// needs s3fs, of the extra `cloud`")
    server = pytest.importorskip("moto.server", reason="needs moto[server], of the extra `dev`")
    from werkzeug.serving import make_server

    log, app = Log(), server.DomainDispatcherApplication(server.create_backend_app)

    def counted(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        def begin(status: str, headers: list[tuple[str, str]], exc: Any = None) -> Any:
            log.requests.append((environ["REQUEST_METHOD"], environ["PATH_INFO"], environ.get("HTTP_RANGE")))
            log.sent += int(dict(headers).get("Content-Length", 0)) if environ["REQUEST_METHOD"] == "GET" else 0
            return start(status, headers, exc)

        return app(environ, begin)  # type: ignore[no-any-return]

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    running = make_server("127.0.0.1", 0, counted, threaded=True)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{running.server_port}")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        for name, value in KEYS.items():
            patch.setenv(name, value)
        fsspec.filesystem("s3").mkdir("slides")
        yield log
        fsspec.get_filesystem_class("s3").clear_instance_cache()
    running.shutdown()
    running.server_close()


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two slides."""
    folder = tmp_path_factory.mktemp("two")
    write_slide(folder / "a.tif", tissue_pixels(3000, 2200), levels=3)
    write_slide(folder / "b.tif", tissue_pixels(700, 600), levels=2)
    return folder


@pytest.fixture(scope="module")
def there(s3: Log, slides: Path) -> Url:
    """Their pyramids, in the bucket."""
    out = Url("s3://slides/pyramids")
    assert cache_cohort(find_target(slides), out).errors == {}
    return out


def test_a_pyramid_s_record_is_the_last_that_is_put(s3, there):
    put = [path for method, path, _ in s3.requests if method == "PUT" and "/a.ome.zarr/" in path]
    assert put[-1] == "/slides/pyramids/a.ome.zarr/zarr.json"
    assert sum(path == put[-1] for path in put) == 1


def test_a_slide_is_the_same_there(there, slides):
    original = open_pyramid(slides / "b.tif")
    pyramid = open_pyramid(there / "b.ome.zarr")
    assert pyramid.facts.fingerprint == original.facts.fingerprint
    assert_same_pixels(original, pyramid)


def test_of_a_shard_only_the_index_and_the_chunks_asked_for_are_sent(s3, there):
    slide = open_pyramid(there / "a.ome.zarr")
    listings = [path for _, path, _ in s3.requests if path == "/slides"]
    assert listings
    s3.forget()
    sizes = slide.tile_bytes(0)  # the indices of the two shards
    counted = len(s3.requests)
    s3.forget()
    slide.read_level(0, Box(300, 300, 100, 100))  # inside one tile
    assert s3.requests[-1][2] is not None
    assert all(part is not None for _, _, part in s3.requests), "whole objects were asked for"
    assert len(s3.requests) == 2  # its shard's index, and it
    index = 16 * 16 * 16 + 4
    assert counted <= 2
    assert s3.sent <= sizes[1, 1] + index + 4
    assert s3.sent < 0.05 * slide.facts.file_bytes


def test_a_foreign_image_is_read_lazily_too(s3, slides, tmp_path):
    """And is the same slide by content wherever it lies."""
    folder = export_ngff04(open_pyramid(slides / "b.tif"), tmp_path / "foreign.zarr", everything=True)
    fsspec.filesystem("s3").put(str(folder), "slides/foreign.zarr", recursive=True)
    local, slide = open_pyramid(folder), open_pyramid("s3://slides/foreign.zarr")
    assert slide.facts.fingerprint == local.facts.fingerprint
    assert (slide.facts.mpp, slide.facts.file_bytes) == (local.facts.mpp, local.facts.file_bytes)
    slide.read_level(0, Box(0, 0, 10, 10))
    s3.forget()
    box = Box(300, 300, 50, 50)
    np.testing.assert_array_equal(slide.read_level(0, box), local.read_level(0, box))
    assert [method for method, _, _ in s3.requests] == ["GET"]


def test_a_folder_of_the_store_and_a_table_of_its_urls_are_cohorts(there, tmp_path):
    assert [slide.path for slide in find_target(there).slides] == [there / "a.ome.zarr", there / "b.ome.zarr"]
    (tmp_path / "cohort.csv").write_text(f"slide,label\n{there}/a.ome.zarr,x\n{there}/b.svs,y\n")
    first, second = read_table(tmp_path / "cohort.csv").slides
    assert (first.slide_id, first.path, first.problem) == ("a", there / "a.ome.zarr", None)
    assert second.problem is not None
    assert "of what lies in a store OME-Zarr is read" in second.problem
    checked = check_cohort(find_target(there))
    assert not checked.failed


def test_the_command_line_takes_urls(there):
    done = saccade("info", f"{there}/b.ome.zarr")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{there}/b.ome.zarr\n  vendor      generic-tiff")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("s3://nowhere/a.ome.zarr", "there is no such bucket: correct the URL"),
        ("s3://slides/nothing.zarr", "there is no OME-Zarr image (no zarr.json or .zattrs below it)"),
        ("s3://slides/pyramids/a.ome.zarr/0", "one array of an image: name the folder that holds all its levels"),
    ],
)
def test_what_is_not_there_is_said_in_a_line(s3, there, url, words):
    with pytest.raises(SlideError) as caught:
        open_pyramid(url)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_credentials_it_says_how_to_give_them(s3, there, monkeypatch, tmp_path):
    for name in KEYS:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    try:
        with pytest.raises(SlideError, match=r"no credentials for it are found .* public FSSPEC_S3_ANON=true"):
            open_pyramid(there / "a.ome.zarr")
        with pytest.raises(UsageError, match=r"cannot write to s3://slides/out/.* no credentials"):
            cache_cohort(find_target(Url("memory://x/a.zarr")), Url("s3://slides/out"))
    finally:
        fsspec.get_filesystem_class("s3").clear_instance_cache()


def test_what_training_read_once_comes_from_a_disk(slides, tmp_path, monkeypatch):
    cache_pyramid(open_pyramid(slides / "b.tif"), "memory://once/b.ome.zarr")
    slide = CachedSlide(open_pyramid("memory://once/b.ome.zarr"), chunk_cache(tmp_path, 2**30))
    first = slide.read_level(0, Box(100, 100, 300, 200))
    monkeypatch.setattr(object_store, "read", lambda *_, **__: pytest.fail("the store was asked again"))
    np.testing.assert_array_equal(slide.read_level(0, Box(100, 100, 300, 200)), first)


def test_a_run_on_slides_in_a_store_predicts_what_it_does_on_a_disk(slides, checkpoint, tmp_path):
    for slide in find_target(slides).slides:
        for out in (Url("memory://run/in"), tmp_path):
            cache_pyramid(open_pyramid(slide.path), out / f"{slide.slide_id}.ome.zarr")
    far = run_cohort(find_target(Url("memory://run")), tmp_path / "far", RunSettings(model=checkpoint))
    near = run_cohort(find_target(tmp_path), tmp_path / "near", RunSettings(model=checkpoint))
    assert [row["status"] for row in far.rows] == ["ok", "ok"]
    apart = {"path", "seconds", "key"}
    for one, other in zip(far.rows, near.rows, strict=True):
        assert {k: v for k, v in one.items() if k not in apart} == {k: v for k, v in other.items() if k not in apart}
    fsspec.filesystem("memory").rm("/run", recursive=True)
    assert object_store.listed("memory://run") == {}
    with pytest.raises(UsageError, match="--out is s3://slides/out, but these results are tables and pictures"):
        run_cohort(find_target(tmp_path), Path("s3://slides/out"), RunSettings(model=checkpoint))
