"""An attention map says where on the slide it lies."""

from __future__ import annotations

import numpy as np
import pytest
import zarr
from makers import names
from ome_zarr_models.v05.image import Image

from pipeline.errors import UsageError
from pipeline.output.attention_map import read_attention_zarr, write_attention_zarr
from stages.geometry import Mpp, Raster

MPP = Mpp(x=0.5, y=0.25)


def test_an_attention_map_comes_back_in_its_place(folder):
    path = folder / "attention.zarr"
    raster = Raster(x=13.5, y=-2.25, scale_x=127.9, scale_y=128.1, width=5, height=3)
    attention = np.random.default_rng(0).random((3, 5))
    for _ in range(2):
        write_attention_zarr(path, attention, raster, mpp=MPP)
    found, place = read_attention_zarr(path)
    assert place == raster
    assert np.array_equal(found, attention.astype(np.float32))
    group = zarr.open_group(path, mode="r")
    assert group["0"].metadata.dimension_names == ("y", "x")
    place_written = {"frame": "level0", "x": 13.5, "y": -2.25, "scale_x": 127.9, "scale_y": 128.1}
    assert group.attrs["saccade"] == place_written
    assert names(folder) == {"attention.zarr"}


def test_other_programs_find_the_map_where_it_lies_on_the_slide(tmp_path):
    """A valid image of OME-Zarr 0.5, in µm from the centre of level 0's first pixel to that of the first cell."""
    path = tmp_path / "attention.zarr"
    write_attention_zarr(
        path, np.ones((3, 5)), Raster(x=100, y=-2, scale_x=128, scale_y=64, width=5, height=3), mpp=MPP
    )
    (image,) = Image.from_zarr(zarr.open_group(path, mode="r")).attributes.ome.multiscales
    assert image.name == "attention"
    assert [(axis.name, axis.unit) for axis in image.axes] == [("y", "micrometer"), ("x", "micrometer")]
    scale, translation = image.datasets[0].coordinateTransformations
    assert scale.scale == [64 * 0.25, 128 * 0.5]
    assert translation.translation == [(-2 + 31.5) * 0.25, (100 + 63.5) * 0.5]


def test_values_are_shuffled_as_what_they_are(tmp_path):
    """As zarr.json says of them; a Blosc chunk's fourth byte is its values' size."""
    write_attention_zarr(tmp_path / "attention.zarr", np.ones((3, 5)), Raster(0, 0, 8, 8, 5, 3), mpp=MPP)
    assert (tmp_path / "attention.zarr" / "0" / "c" / "0" / "0").read_bytes()[3] == 4


def test_an_attention_map_larger_than_its_chunks(tmp_path):
    attention = np.random.default_rng(0).random((3, 2500))
    write_attention_zarr(tmp_path / "a.zarr", attention, Raster(0, 0, 1, 1, 2500, 3), mpp=MPP)
    assert np.array_equal(read_attention_zarr(tmp_path / "a.zarr")[0], attention.astype(np.float32))


def test_a_zarr_that_is_not_ours_is_kept_and_a_wrong_shape_refused(tmp_path):
    zarr.create_array(store=tmp_path / "theirs.zarr", shape=(2,), dtype="f4")
    raster = Raster(0, 0, 1, 1, 3, 2)
    with pytest.raises(UsageError, match="is or holds something that saccade did not write"):
        write_attention_zarr(tmp_path / "theirs.zarr", np.zeros((2, 3)), raster, mpp=MPP)
    with pytest.raises(UsageError, match="no attention map at"):
        read_attention_zarr(tmp_path / "theirs.zarr")
    with pytest.raises(ValueError, match=r"\(3, 2\) on a raster of shape \(2, 3\)"):
        write_attention_zarr(tmp_path / "new.zarr", np.zeros((3, 2)), raster, mpp=MPP)
    assert names(tmp_path) == {"theirs.zarr"}


def test_what_a_user_put_into_a_map_is_not_replaced_with_it(tmp_path):
    path, raster = tmp_path / "attention.zarr", Raster(0, 0, 1, 1, 3, 2)
    write_attention_zarr(path, np.zeros((2, 3)), raster, mpp=MPP)
    (path / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="is or holds something that saccade did not write"):
        write_attention_zarr(path, np.ones((2, 3)), raster, mpp=MPP)
    assert (path / "thesis.txt").read_text() == "years of work"
    assert read_attention_zarr(path)[0].sum() == 0


def test_what_zarr_wrote_is_read_as_well_and_damage_is_told(tmp_path):
    path, raster = tmp_path / "attention.zarr", Raster(0, 0, 1, 1, 30, 20)
    write_attention_zarr(path, np.linspace(0, 1, 600).reshape(20, 30), raster, mpp=MPP)
    chunk = path / "0" / "c" / "0" / "0"
    whole = chunk.read_bytes()
    size = (20 * 30 * 4).to_bytes(4, "little")
    for damaged in (b"", whole[:-3], whole.replace(size, b"\xff" * 4, 1), whole[:20] + b"\xff" * (len(whole) - 20)):
        assert damaged != whole
        chunk.write_bytes(damaged)
        with pytest.raises(ValueError, match="damaged"):
            read_attention_zarr(path)
    zarr.create_array(path / "0", data=np.full((20, 30), 7, np.float32), chunks=(1, 2), overwrite=True)
    assert read_attention_zarr(path)[0].sum() == 4200
