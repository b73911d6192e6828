"""A pyramid comes into being whole, whatever happens, and takes nobody's place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from makers import PowerCut

from stages.pyramid.cache import cache_pyramid
from stages.pyramid.export import export_ngff04
from stages.slide.facts import SlideError
from stages.slide.files import open_slide

MAKERS: dict[str, tuple[Callable[..., Path], dict[str, str], str]] = {
    "native": (cache_pyramid, {"profile": "native"}, "zarr.json"),
    "portable": (cache_pyramid, {"profile": "portable"}, "zarr.json"),
    "ngff04": (export_ngff04, {}, ".zattrs"),
}
"""What makes a pyramid, and the file whose presence says that it is one."""


@pytest.mark.parametrize("kind", MAKERS)
def test_the_disk_holds_all_the_rest_before_the_mark_and_all_of_it_before_its_place(
    slides_folder: Path, tmp_path: Path, small_shards: None, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A power cut at any moment leaves a whole pyramid or none."""
    make, options, mark = MAKERS[kind]
    out = tmp_path / "a.ome.zarr"
    seen: list[tuple[str, set[str]]] = []

    def before_rename(target: Path) -> None:
        (partial,) = (path for path in tmp_path.iterdir() if path.is_dir())  # beside the lease
        if target == partial / mark:
            (temporary,) = partial.glob(".saccade-*")
            seen.append(("mark", disk.lost(partial) - {temporary.name}))
            assert disk.lost(temporary) == set()
        elif target == out:
            seen.append(("pyramid", disk.lost(partial)))

    disk = PowerCut(monkeypatch, before_rename)
    make(open_slide(slides_folder / "odd.tif"), out, **options)
    assert seen == [("mark", set()), ("pyramid", set())]
    # a lease that a power cut leaves behind holds nobody up
    assert {name for name in disk.names(tmp_path) if not name.startswith(".saccade-pyramid-")} == {"a.ome.zarr"}
    assert disk.lost(out) == set()


@pytest.mark.parametrize("kind", MAKERS)
def test_what_appears_in_its_place_meanwhile_stays(slides_folder: Path, tmp_path: Path, kind: str) -> None:
    """A large slide takes hours; once the place is free, the work goes on where it was."""
    make, options, _ = MAKERS[kind]
    slide, out = open_slide(slides_folder / "odd.tif"), tmp_path / "a.ome.zarr"

    def appears(done: int, total: int, written: int) -> None:
        out.mkdir(exist_ok=True)
        (out / "thesis.txt").write_text("years of work")

    with pytest.raises(SlideError, match=r"a\.ome\.zarr exists and is not a pyramid of ours"):
        make(slide, out, progress=appears, **options)
    assert [path.name for path in out.iterdir()] == ["thesis.txt"]
    out.rename(tmp_path / "theirs")
    written: list[int] = []
    make(slide, out, progress=lambda done, total, size: written.append(size), **options)
    assert set(written) == {0}
    assert {path.name for path in tmp_path.iterdir()} == {"a.ome.zarr", "theirs"}
