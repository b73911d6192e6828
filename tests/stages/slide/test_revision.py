"""The state of a slide's files tells of every ordinary change of any of them; what it cannot tell, a digest does."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from images import FOREIGN, write_image
from makers import tissue_pixels, write_slide

import stages.slide.companions
from stages.pyramid.cache import cache_pyramid
from stages.pyramid.open import open_pyramid
from stages.slide.companions import companions, fingerprint_of, state_of
from stages.slide.facts import SlideFacts
from stages.slide.revision import Revision, digest_of, revision_of, touched

Opened = tuple[Callable[[], SlideFacts], Path]
"""What opens a slide and tells its facts, and a file of it."""

PROPERTIES = {
    "mirax": {"openslide.vendor": "mirax"},
    "vms": {"openslide.vendor": "hamamatsu", "hamamatsu.ImageFile": "a.jpg", "hamamatsu.ImageFile(1,0)": "b.jpg"},
}


@pytest.fixture(autouse=True)
def few_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fingerprints see little of small slides, as they do of large ones."""
    monkeypatch.setattr(stages.slide.companions, "_SAMPLE", 64)


def facts_of(kind: str, path: Path) -> SlideFacts:
    if kind not in PROPERTIES:
        return open_pyramid(path).facts
    # neither can be written here: what stands for it has the files of one
    facts, said = open_pyramid(path.parent / "stands.tif").facts, PROPERTIES[kind]
    others = companions(path, said)
    return replace(
        facts, path=path, fingerprint=fingerprint_of(path, said, others), revision=state_of(path, said, others)
    )


@pytest.fixture(params=["file", "link", "mirax", "vms", "pyramid", "foreign"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Opened:
    kind = request.param
    slide = write_slide(tmp_path / "stands.tif", tissue_pixels(300, 260), levels=2)
    path, file = slide, slide
    if kind == "link":
        path = tmp_path / "link.tif"
        path.symlink_to(slide)
    elif kind in PROPERTIES:
        for name in ("s.mrxs", "s/Data0000.dat", "s/Index.dat", "v.vms", "a.jpg", "b.jpg"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(name.encode() * 4000)
        path, file = {
            "mirax": (tmp_path / "s.mrxs", tmp_path / "s/Data0000.dat"),
            "vms": (tmp_path / "v.vms", tmp_path / "b.jpg"),
        }[kind]
    elif kind == "pyramid":
        path = cache_pyramid(open_pyramid(slide), tmp_path / "p.ome.zarr")
        file = path / "0" / "c" / "0" / "0" / "0"
    elif kind == "foreign":
        path = write_image(tmp_path / "f.ome.zarr", tissue_pixels(700, 520), **FOREIGN["interleaved"])
        file = max((one for one in path.rglob("*") if one.is_file()), key=lambda one: one.stat().st_size)
    return lambda: facts_of(kind, path), file


def change(file: Path) -> None:
    """Some bytes that no sample holds become others; the size stays."""
    content = bytearray(file.read_bytes())
    at = len(content) // 2 + 100
    content[at : at + 20] = bytes(byte ^ 1 for byte in content[at : at + 20])
    file.write_bytes(content)


def keeping_time(file: Path, act: Callable[[Path], None]) -> None:
    """... and so does the time, as far as a user can set it."""
    before = file.stat()
    act(file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_change_that_the_fingerprint_does_not_see_is_seen(opened: Opened) -> None:
    facts, file = opened
    before = facts()
    assert before.revision is not None
    assert touched(before.path, before.revision.names) == before.revision.touched
    change(file)
    now = facts()
    assert now.fingerprint == before.fingerprint
    assert touched(before.path, before.revision.names) != before.revision.touched
    assert not now.unchanged(before.revision)
    assert now.content != before.content


def test_what_only_lies_elsewhere_stands_and_what_was_only_touched_stands_by_its_digest(
    opened: Opened, tmp_path: Path
) -> None:
    facts, file = opened
    before = facts()
    assert before.revision is not None
    keeping_time(file, lambda file: file.write_bytes(file.read_bytes()))  # as a copy that keeps times
    assert touched(before.path, before.revision.names) != before.revision.touched
    assert facts().unchanged(before.revision)
    assert facts().content == before.content
    verified = facts().with_digest().revision
    os.utime(file, (1, 1))
    assert not facts().unchanged(before.revision)
    assert facts().unchanged(verified)
    change(file)
    assert not facts().unchanged(verified)


def test_to_verify_finds_what_hides_behind_its_old_time(opened: Opened) -> None:
    """By default it does not, where no sample holds it: this is what is stated."""
    facts, file = opened
    before = facts().with_digest()
    keeping_time(file, change)
    assert facts().unchanged(before.revision)
    assert not facts().with_digest().unchanged(before.revision)
    assert facts().with_digest().content != before.content


def test_a_file_that_is_added_or_a_link_that_leads_elsewhere_was_touched(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    for name in ("s.mrxs", "s/Data0000.dat", "other"):
        (tmp_path / name).write_bytes(b"x" * 4000)
    said = PROPERTIES["mirax"]

    def state() -> Revision:
        return state_of(tmp_path / "s.mrxs", said, companions(tmp_path / "s.mrxs", said))

    states = [state()]
    (tmp_path / "s/Data0001.dat").symlink_to(tmp_path / "other")
    states.append(state())
    (tmp_path / "another").write_bytes(b"y" * 4000)
    (tmp_path / "s/Data0001.dat").unlink()
    (tmp_path / "s/Data0001.dat").symlink_to(tmp_path / "another")
    states.append(state())
    assert len({one.touched for one in states}) == len({one.written for one in states}) == 3


def test_times_say_nothing_where_the_fingerprint_sees_every_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages.slide.companions, "_SAMPLE", 2**16)
    slide = write_slide(tmp_path / "s.tif", tissue_pixels(300, 260), levels=2)
    before = open_pyramid(slide).facts
    os.utime(slide, (1, 1))
    now = open_pyramid(slide).facts
    assert now.unchanged(before.revision)
    assert now.content == before.content == before.fingerprint


def test_the_last_byte_that_samples_see(tmp_path: Path) -> None:
    """Up to so many bytes a fingerprint sees them all; of one more it need not."""
    (path := tmp_path / "s").write_bytes(bytes(16 * 64))
    seen = {fingerprint_of(path, {})}
    for at in range(0, 16 * 64, 61):
        path.write_bytes(bytes(at) + b"x" + bytes(16 * 64 - at - 1))
        seen.add(fingerprint_of(path, {}))
    assert len(seen) == 1 + len(range(0, 16 * 64, 61))
    assert state_of(path, {}, ()).written is None
    path.write_bytes(bytes(16 * 64 + 1))
    assert state_of(path, {}, ()).written is not None


def test_folders_in_a_circle_and_links_to_nothing_end(tmp_path: Path) -> None:
    (tmp_path / "p" / "0").mkdir(parents=True)
    (tmp_path / "p" / "0" / "up").symlink_to(tmp_path / "p")
    (tmp_path / "p" / "none").symlink_to(tmp_path / "nowhere")
    (tmp_path / "p" / "file").write_bytes(b"x")
    found = revision_of(tmp_path / "p")
    assert touched(tmp_path / "p", found.names) == found.touched
    assert len(digest_of(tmp_path / "p", found.names, found.touched)) == 64
    shutil.rmtree(tmp_path / "p")
    assert touched(tmp_path / "p", found.names) is None
