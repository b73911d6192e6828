"""Metadata of every version come to the same axes, units and places, or to one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stages.pyramid.multiscales import find_images, is_slide, pixel_micrometres, read_multiscales
from stages.slide.facts import SlideError

AXES = [{"name": name, "type": "space", "unit": "Micrometer"} for name in "yx"]


def group(folder: Path, **attributes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".zgroup").write_text('{"zarr_format": 2}')
    (folder / ".zattrs").write_text(json.dumps(attributes))
    return folder


def image(folder: Path, steps: list[dict[str, Any]], **more: Any) -> Path:
    level = {"path": "0", "coordinateTransformations": steps}
    return group(folder, multiscales=[{"version": "0.4", "axes": AXES, "datasets": [level], **more}])


SCALE = {"type": "scale", "scale": [2, 4]}
MOVE = {"type": "translation", "translation": [1, 3]}


@pytest.mark.parametrize(
    ("steps", "more", "scale", "translation"),
    [
        ([SCALE, MOVE], {}, (2, 4), (1, 3)),
        ([MOVE, SCALE], {}, (2, 4), (2, 12)),
        ([{"type": "sequence", "transformations": [SCALE, MOVE]}], {}, (2, 4), (1, 3)),
        ([{"type": "identity"}], {}, (1, 1), (0, 0)),
        ([SCALE], {"coordinateTransformations": [SCALE, MOVE]}, (4, 16), (1, 3)),
        ([], {}, None, (0, 0)),
    ],
)
def test_steps_are_taken_one_after_the_other(
    tmp_path: Path, steps: list[Any], more: dict[str, Any], scale: tuple[int, int] | None, translation: tuple[int, int]
) -> None:
    """Those of a level, then those of all of them."""
    (dataset,) = read_multiscales(image(tmp_path, steps, **more)).datasets
    assert (dataset.scale, dataset.translation) == (scale, translation)


@pytest.mark.parametrize(
    ("steps", "why"),
    [
        ([{"type": "rotation", "rotation": [[0, 1], [1, 0]]}], "of type 'rotation'; scale, translation"),
        ([{"type": "scale", "scale": [1, 2, 3]}], "a scale of 3 and 2 values on 2 axes"),
        ([{"type": "scale", "scale": [1, 0]}], "a scale that no image can have"),
        ([{"type": "scale"}], "makes no sense"),
    ],
)
def test_what_cannot_be_placed_is_refused(tmp_path: Path, steps: list[Any], why: str) -> None:
    with pytest.raises(SlideError, match=why):
        read_multiscales(image(tmp_path, steps))


def test_a_level_lies_in_its_folder(tmp_path: Path) -> None:
    with pytest.raises(SlideError, match="lies outside"):
        read_multiscales(group(tmp_path, multiscales=[{"axes": AXES, "datasets": [{"path": "../b"}]}]))


@pytest.mark.parametrize(
    ("units", "expected"),
    [
        (("micrometer", "micrometer"), (0.5, 0.25)),
        (("nanometers", "µm"), (0.0005, 0.25)),
        (("μm", "mm"), (0.5, 250)),
        ((None, None), "a size of 0.25 without a unit"),
        (("micrometer", "pixel"), "measures its pixels in 'pixel', which is no length"),
    ],
)
def test_units_are_lengths_or_said_to_be_none(units: Any, expected: Any) -> None:
    found = pixel_micrometres(units, (0.5, 0.25))
    assert expected in found if isinstance(expected, str) else found == pytest.approx(expected)


@pytest.mark.parametrize(
    ("attributes", "searched", "why"),
    [
        ({"multiscales": []}, True, None),
        ({"plate": {}}, False, r"a plate of many images: name one of them, such as a\.zarr/A/1/0"),
        ({"well": {}}, False, r"a well of many images"),
        ({"labels": ["cells"]}, False, "holds no OME-Zarr image"),
        ({"multiscales": [], "image-label": {}}, False, "a label image"),
        ({"multiscales": [], "saccade": {"frame": "level0"}}, False, "an attention map"),
        ({"multiscales": [], "saccade": {"levels": []}}, True, None),
        ({"multiscales": [], "saccade": {"fingerprint": ""}}, False, None),
        ({"bioformats2raw.layout": 3}, True, "holds no OME-Zarr image"),
    ],
)
def test_what_else_is_zarr_is_told_apart(
    tmp_path: Path, attributes: dict[str, Any], searched: bool, why: str | None
) -> None:
    """What a search takes for a slide, and what is said where something else is named."""
    path = group(tmp_path / "a.zarr", **attributes)
    assert is_slide(path) == searched
    if why is None:
        assert find_images(path) == [path]
    else:
        with pytest.raises(SlideError, match=why):
            find_images(path)


def test_an_array_is_no_image_and_damage_is_seen(tmp_path: Path) -> None:
    """A search leaves an array out; what is damaged stays in, so that it fails where it is seen."""
    array = group(tmp_path / "array.zarr")
    (array / ".zarray").write_text("{}")
    damaged = group(tmp_path / "damaged.zarr")
    (damaged / ".zattrs").write_text('{"multisc')
    (tmp_path / "empty.zarr").mkdir()
    assert [is_slide(tmp_path / f"{name}.zarr") for name in ("array", "damaged", "empty")] == [False, True, False]
    with pytest.raises(SlideError, match="one array of an image: name the folder that holds all its levels"):
        find_images(array)
    with pytest.raises(SlideError, match=r"its \.zattrs is damaged"):
        find_images(damaged)
