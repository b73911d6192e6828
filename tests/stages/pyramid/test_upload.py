"""Pyramids in a store of objects: the same as on a disk, whole or not there, and of one writer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from makers import assert_same_pixels, tissue_pixels, write_slide

from stages import object_store
from stages.passing import UnreadableError
from stages.place import Url
from stages.pyramid import upload
from stages.pyramid.cache import cache_pyramid, verify_pyramid
from stages.pyramid.open import open_pyramid
from stages.pyramid.upload import MARK
from stages.slide.facts import SlideError
from stages.slide.protocol import Slide


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Slide:
    return open_pyramid(write_slide(tmp_path_factory.mktemp("one") / "a.tif", tissue_pixels(1300, 1100), levels=2))


@pytest.fixture
def url(small_shards: None) -> Iterator[Url]:
    """Where nothing is yet; pyramids have several shards."""
    yield Url("memory://upload/in/a.ome.zarr")
    fsspec.filesystem("memory").rm("/upload", recursive=True)


def keys(url: Url) -> set[str]:
    return set(object_store.listed(url.text) or ())


@pytest.mark.parametrize("profile", ["native", "portable"])
def test_what_is_put_is_what_a_disk_would_hold(slide, url, tmp_path, profile):
    assert cache_pyramid(slide, url, profile=profile, everything=True) == url
    folder = cache_pyramid(slide, tmp_path / "a.ome.zarr", profile=profile, everything=True)
    assert isinstance(folder, Path)
    assert {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()} == {
        key: object_store.read(f"{url}/{key}") for key in keys(url)
    }
    assert_same_pixels(slide, open_pyramid(url))
    assert verify_pyramid(url) == []


def test_one_that_is_there_is_left_alone_and_another_is_replaced_without_rest(slide, url, monkeypatch):
    cache_pyramid(slide, url, profile="portable", everything=True)
    before = keys(url)
    with monkeypatch.context() as patch:
        patch.setattr(object_store, "put", lambda *_: pytest.fail("it is there"))
        cache_pyramid(slide, url)
    cache_pyramid(slide, url, profile="native")
    assert keys(url) != before
    assert MARK not in keys(url)
    assert verify_pyramid(url) == []


def failing_after(monkeypatch: pytest.MonkeyPatch, shards: int) -> list[str]:
    """Have the store refuse all but so many shards; the names of those that it took."""
    put, taken = object_store.put, list[str]()

    def limited(url: str, data: bytes) -> None:
        if "/c/" in url:
            if len(taken) == shards:
                raise UnreadableError("the store is away", passing=True)
            taken.append(url)
        put(url, data)

    monkeypatch.setattr(object_store, "put", limited)
    return taken


def test_what_was_interrupted_is_no_pyramid_and_goes_on(slide, url, monkeypatch):
    cache_pyramid(slide, url, profile="native")  # also where an older one was there
    with monkeypatch.context() as patch:
        failing_after(patch, 3)
        with pytest.raises(SlideError, match=f"cannot write {url}: the store is away; then run `saccade cache` again"):
            cache_pyramid(slide, url, profile="portable", everything=True, writers=1)
    with pytest.raises(SlideError, match="there is no OME-Zarr image"):
        open_pyramid(url)
    with monkeypatch.context() as patch:
        taken = failing_after(patch, 1000)
        cache_pyramid(slide, url, profile="portable", everything=True, writers=1)
    shards = [key for key in keys(url) if "/c/" in key]
    assert len(taken) == len(shards) - 3
    assert verify_pyramid(url) == []


def test_who_comes_later_takes_over(slide, url, monkeypatch):
    """The earlier writer stops, says so, and does not end what the later one has begun."""
    start = upload._Upload.start

    def overtaken(form, plan):
        start(form, plan)
        object_store.put(f"{url}/{MARK}", b"another's")

    monkeypatch.setattr(upload._Upload, "start", overtaken)
    with pytest.raises(SlideError, match=f"another process began to write {url}, and goes on"):
        cache_pyramid(slide, url)
    assert "zarr.json" not in keys(url)
    assert object_store.read(f"{url}/{MARK}") == b"another's"


@pytest.mark.parametrize("key", ["notes.txt", "0/zarr.json", "zarr.json"])
def test_what_is_not_ours_is_left_alone(slide, url, key):
    object_store.put(f"{url}/{key}", b"{}")
    with pytest.raises(SlideError, match="holds something that is no pyramid of ours: take it away"):
        cache_pyramid(slide, url)
    assert keys(url) == {key}


def test_a_shard_that_was_lost_is_told_at_opening(slide, url):
    cache_pyramid(slide, url, profile="native")
    shard = next(key for key in sorted(keys(url)) if "/c/" in key)
    object_store.put(f"{url}/{shard}", object_store.read(f"{url}/{shard}")[:-9])
    with pytest.raises(SlideError, match=f"damaged: {shard} has \\d+ bytes, expected"):
        open_pyramid(url)
