"""A slide of several files is all of them: its fingerprint, its size."""

from __future__ import annotations

from pathlib import Path

import pytest

from stages.slide.companions import companions, fingerprint_of

MIRAX = {"openslide.vendor": "mirax"}
VMS = {"openslide.vendor": "hamamatsu", "hamamatsu.ImageFile": "a.jpg", "hamamatsu.ImageFile(1,0)": "b.jpg"}


@pytest.fixture
def made(tmp_path: Path) -> dict[str, tuple[Path, dict[str, str], Path]]:
    """Of each format: the file that is opened, what OpenSlide says of it, and another file with its pixels."""
    for name in ("s.mrxs", "s/Data0000.dat", "s/Index.dat", "v.vms", "a.jpg", "b.jpg", "c.jpg", "n.ndpi"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(name.encode() * 20_000)
    return {
        "mirax": (tmp_path / "s.mrxs", MIRAX, tmp_path / "s/Data0000.dat"),
        "vms": (tmp_path / "v.vms", VMS, tmp_path / "b.jpg"),
    }


@pytest.mark.parametrize("vendor", ["mirax", "vms"])
def test_another_file_of_the_slide_in_its_place_is_another_slide(
    made: dict[str, tuple[Path, dict[str, str], Path]], vendor: str
) -> None:
    """Of the same name and size, too; that a file was only touched does not count."""
    path, properties, other = made[vendor]
    assert other in companions(path, properties)
    assert len(companions(path, properties)) == 2
    before = fingerprint_of(path, properties)
    other.touch()
    assert fingerprint_of(path, properties) == before
    content = other.read_bytes()
    other.write_bytes(content[:-1] + b"!")
    assert fingerprint_of(path, properties) != before


def test_a_file_beside_a_slide_is_none_of_it(made: dict[str, tuple[Path, dict[str, str], Path]]) -> None:
    """A format whose slide is one file has no others, whatever lies beside it."""
    path = made["vms"][0].with_name("n.ndpi")
    assert companions(path, {"openslide.vendor": "hamamatsu"}) == []
    assert companions(path, {"openslide.vendor": "generic-tiff"}) == []
