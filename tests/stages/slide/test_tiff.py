"""What a TIFF's own pages say of where its tiles lie."""

from __future__ import annotations

from pathlib import Path

import pytest
from makers import tissue_pixels, write_slide

from stages.slide.tiff import cut_off


@pytest.mark.parametrize("compression", ["jpeg", "deflate"])
def test_tiles_beyond_the_end_of_a_file_are_counted(compression: str, tmp_path: Path) -> None:
    """A page comes before its tiles, so that what is cut off behind the page can be told, of any encoding."""
    path = write_slide(tmp_path / "s.tif", tissue_pixels(700, 500), levels=1, compression=compression)
    assert cut_off(path) == {}
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 1)
    assert cut_off(path) == {(700, 500): (1, 6)}


def test_what_is_no_tiff_is_not_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "s.tif"
    path.write_bytes(b"II*\0")
    assert cut_off(path) == {}
