"""What a pyramid says of itself: the slide's facts, as valid metadata; damaged, an error."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import zarr
from makers import MADE, Cached, assert_same_pixels
from ome_zarr_models.v05.image import Image

from stages.pyramid.open import open_pyramid
from stages.pyramid.plan import Wish
from stages.pyramid.record import read_record
from stages.slide.facts import SlideError


@pytest.mark.parametrize(("name", "profile"), MADE)
def test_facts_are_the_slides(cached: Cached, name: str, profile: Wish) -> None:
    """All that a slide is survives but for where and how it lies on disk; the fingerprint above all."""
    slide, pyramid = cached(name, profile)
    own = pyramid.facts
    on_disk = {"path": own.path, "file_bytes": own.file_bytes, "associated": (), "revision": own.revision}
    assert own == replace(slide.facts, **on_disk)
    assert read_record(own.path).facts.revision == slide.facts.with_digest().revision
    files = [path for path in pyramid.facts.path.rglob("*") if path.is_file()]
    shards = sum(path.stat().st_size for path in files if path.name != "zarr.json")
    assert pyramid.facts.file_bytes == shards


@pytest.mark.parametrize(("name", "profile"), MADE)
def test_the_metadata_is_valid_ome_zarr(cached: Cached, name: str, profile: Wish) -> None:
    """ome-zarr-models accepts it, and its scales are the levels' true ones."""
    slide, pyramid = cached(name, profile)
    image = Image.from_zarr(zarr.open_group(pyramid.facts.path, mode="r"))
    (multiscale,) = image.attributes.ome.multiscales
    assert [(axis.name, axis.type, axis.unit) for axis in multiscale.axes] == [
        ("c", "channel", None),
        ("y", "space", "micrometer"),
        ("x", "space", "micrometer"),
    ]
    mpp = slide.facts.require_mpp()
    for level, dataset in zip(slide.facts.levels, multiscale.datasets, strict=True):
        scale, translation = dataset.coordinateTransformations
        assert scale.scale == pytest.approx([1, level.scale_y * mpp.y, level.scale_x * mpp.x])
        # the centre of the level's first pixel from the centre of level 0's
        centre = (level.to_level0((0.5, 0.5)) - 0.5) * (mpp.x, mpp.y)
        assert translation.translation == pytest.approx([0, centre[1], centre[0]])


@pytest.mark.parametrize("spoil", ["garbage", "no facts", "no levels", "no array", "other array", "unfinished"])
def test_damaged_metadata_is_a_slide_error(pyramid: Path, spoil: str) -> None:
    """Whatever happened to the metadata, opening says so with a remedy."""
    root = pyramid / "zarr.json"
    group = json.loads(root.read_text())
    if spoil == "garbage":
        root.write_text(root.read_text()[:100])
    elif spoil == "unfinished":
        root.unlink()
    elif spoil == "no array":
        (pyramid / "0/zarr.json").write_text("{}")
    elif spoil == "other array":
        text = (pyramid / "0/zarr.json").read_text()
        (pyramid / "0/zarr.json").write_text(text.replace("500", "501"))
    else:
        if spoil == "no facts":
            del group["attributes"]["saccade"]["facts"]["background"]
        else:
            group["attributes"]["saccade"]["facts"]["levels"] = []
        root.write_text(json.dumps(group))
    with pytest.raises(SlideError, match="saccade cache"):
        open_pyramid(pyramid)


def test_without_its_record_a_pyramid_is_an_image_like_any_other(pyramid: Path) -> None:
    """What zarr reads of it is what we read of it, at the same scale."""
    known = open_pyramid(pyramid)
    root = pyramid / "zarr.json"
    group = json.loads(root.read_text())
    del group["attributes"]["saccade"]
    root.write_text(json.dumps(group))
    found = open_pyramid(pyramid)
    assert found.facts.vendor == "ome-zarr 0.5"
    assert (found.facts.mpp, found.facts.levels) == (known.facts.mpp, known.facts.levels)
    assert_same_pixels(known, found)


def test_an_earlier_version_reads_what_has_nothing_new_to_say(pyramid: Path) -> None:
    """It takes every fact of the record for one that it knows."""
    facts = json.loads((pyramid / "zarr.json").read_text())["attributes"]["saccade"]["facts"]
    known = {"vendor", "levels", "tile_sizes", "mpp", "mpp_source", "mpp_problem", "bounds", "background"}
    assert facts.keys() == known | {"objective_power", "fingerprint"}


def test_the_image_is_called_what_its_slide_is_called(pyramid: Path) -> None:
    """Programs show this name; the folder's own is not in the file."""
    (image,) = Image.from_zarr(zarr.open_group(pyramid, mode="r")).attributes.ome.multiscales
    assert image.name == "slide.tif"
