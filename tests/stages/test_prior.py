"""Networks that make a map of the thumbnail: what of it lies in each cell, what is read for it, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from encoders import needs, shell_file, write_onnx
from makers import tissue_pixels, write_slide
from numpy.typing import NDArray

from stages.attention import cell_means
from stages.encoder.weights import WeightsError
from stages.geometry import Raster
from stages.given_map import MapError
from stages.prior import AROUND, Prior
from stages.pyramid.open import open_pyramid
from stages.slide.protocol import Slide
from stages.tissue.thumbnail import read_thumbnail

N = "n"
DARKNESS = {"mean": [1, 1, 1], "std": [-1, -1, -1]}
"""Of colours from 0 to 1, as a normalisation: what a network that changes nothing then puts out."""
CELL_PX, MPP = 8, 4.0


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Slide:
    image = tissue_pixels(1900, 1500, margin=0.05)
    image[:, 900:] = 244  # half of it is empty
    return open_pyramid(write_slide(tmp_path_factory.mktemp("slide") / "s.tif", image, compression=None))


def grid(slide: Slide) -> tuple[Raster, NDArray[np.bool_], NDArray[np.uint8]]:
    """Cells, which of them are tissue, and the thumbnail that they are of."""
    thumbnail = read_thumbnail(slide, MPP)
    rows, columns = (-(-side // CELL_PX) for side in thumbnail.raster.shape)
    cells = thumbnail.raster.pooled(CELL_PX, CELL_PX / 2, columns, rows)
    dark = torch.from_numpy((thumbnail.rgb < 230).all(-1))
    return cells, cell_means(dark.double(), CELL_PX).numpy() > 0.5, thumbnail.rgb


def network(path: Path, shape: tuple[Any, ...] = (N, 3, "h", "w"), *, said: dict[str, Any], **options: Any) -> Path:
    Path(f"{path}.json").write_text(json.dumps(said))
    return write_onnx(path, shape, **{"pool": None, **options})


@pytest.mark.parametrize(
    ("shape", "stride"),
    [((N, 3, "h", "w"), 1), ((N, "h", "w", 3), 1), ((2, 3, 32, 32), 1), ((N, 3, 64, 64), 4), ((N, 3, "h", "w"), 8)],
)
def test_a_cell_has_what_the_network_shows_in_it(
    slide: Slide, tmp_path: Path, shape: tuple[Any, ...], stride: int
) -> None:
    """Colours first or last, any size or one, coarser than its pictures or not: as if the thumbnail were seen whole."""
    cells, tissue, rgb = grid(slide)
    path = network(tmp_path / "net.onnx", shape, said=DARKNESS, stride=stride)
    found = Prior(path, channel=1).on(slide, cells=cells, tissue=tissue, attention_mpp=MPP)
    height, width = (side - side % CELL_PX for side in rgb.shape[:2])  # beyond it, cells reach out of the slide
    dark = 1 - rgb[:height, :width, 1] / 255
    plain = dark.reshape(height // CELL_PX, CELL_PX, width // CELL_PX, CELL_PX).mean((1, 3))
    inside = np.s_[: height // CELL_PX, : width // CELL_PX]
    expected = np.where(tissue[inside], plain, 0)
    assert not tissue.all()
    assert found.shares.sum() == pytest.approx(1)
    np.testing.assert_allclose(
        found.shares[inside] / found.shares[inside].sum(), expected / expected.sum(), rtol=1e-4, atol=1e-9
    )


def test_what_is_read_is_where_the_tissue_is(slide: Slide, tmp_path: Path) -> None:
    """At the scale that is asked for, with what lies around; tiles of nothing are not read."""
    cells, tissue, _ = grid(slide)
    path = network(tmp_path / "net.onnx", (N, 3, 32, 32), said={**DARKNESS, "mpp": [2.0]})
    own, other = (Prior(path, mpp, 0).on(slide, cells=cells, tissue=tissue, attention_mpp=MPP) for mpp in (None, MPP))
    assert (own.mpp, other.mpp) == (2.0, MPP)
    np.testing.assert_allclose(own.shares, other.shares, atol=2e-4)
    side = 32 - 2 * round(AROUND * 32)
    scale = own.read[0].scale_x
    assert scale == 4
    rights = [raster.x + scale * (32 + side) / 2 for raster in own.read]
    assert 900 <= max(rights) < 900 + scale * (side + CELL_PX * MPP / 2)
    assert len(set(own.read)) == len(own.read)


def test_a_network_of_tissue_points_at_it(slide: Slide) -> None:
    """SHELL, whose last class is stroma; its file does not say how pictures are normalised, and that is told."""
    cells, _, _ = grid(slide)
    everywhere = np.ones(cells.shape, bool)
    found = Prior(shell_file(), MPP, 2).on(slide, cells=cells, tissue=everywhere, attention_mpp=MPP)
    assert found.shares[:, : round(900 / cells.scale_x)].sum() > 0.95
    assert "normalised: as ImageNet's" in found.notes[0]


@pytest.mark.parametrize(
    ("shape", "options", "channel", "said"),
    [
        (
            (N, 3, "h", "w"),
            {"pool": (2, 3)},
            None,
            r"puts out \(1, 3\) for one picture of 512 x 512 px; expected",
        ),
        ((N, 3, "h", "w"), {"pool": (1,)}, None, r"puts out \(1, 512, 512\) for one picture"),
        ((N, 3, 32, 32), {"pool": None, "stride": 3}, 0, r"puts out \(1, 3, 10, 10\) for one picture of 32 x 32 px"),
        ((N, 3, 32, 32), {"pool": None, "stride": 32}, 0, r"puts out \(1, 3, 1, 1\)"),
        ((N, 4, "h", "w"), {"pool": None}, 0, r"takes \('n', 4, 'h', 'w'\); expected pictures of three colours"),
        ((N, 3, "h", "w"), {"pool": None, "gives": "INT64"}, 0, r"puts out tensor\(int64\): export its scores"),
        ((N, 3, "h", "w"), {"pool": None}, None, r"puts out 3 channels: say which one shows where to look, 0 to 2, by"),
        ((N, 3, "h", "w"), {"pool": None}, 3, r"has no channel 3: it puts out 3, counted from 0"),
        ((N, 3, "h", "w"), {"pool": None, "outputs": ("a", "b")}, 0, r"outputs a, b; say which is meant: .*#a"),
    ],
)
def test_what_makes_no_map_is_refused(
    tmp_path: Path, shape: tuple[Any, ...], options: dict[str, Any], channel: int | None, said: str
) -> None:
    path = network(tmp_path / "net.onnx", shape, said={}, **options)
    with pytest.raises((MapError, WeightsError), match=said):
        Prior(path, channel=channel).check()


def test_a_map_that_cannot_be_drawn_by_is_told(slide: Slide, tmp_path: Path) -> None:
    """Nothing above 0 on the tissue, no finite numbers, or a scale that the slide has not."""
    cells, tissue, _ = grid(slide)

    def on(said: dict[str, Any], mpp: float | None = None) -> None:
        path = network(tmp_path / "net.onnx", said=said)
        Prior(path, mpp, 2).on(slide, cells=cells, tissue=tissue, attention_mpp=MPP)

    with pytest.raises(MapError, match=r"no positive value on any of the slide's tissue.* another channel of its 3"):
        on({"mean": [2, 2, 2], "std": [1, 1, 1]})
    with pytest.raises(MapError, match="no finite numbers on this slide"):
        on({"mean": [1, 1, 1], "std": [0, 0, 0]})
    with pytest.raises(MapError, match=r"to see 0\.1 µm/px, finer than the slide's 0\.5 µm/px: say a coarser one"):
        on(DARKNESS, 0.1)


def test_a_place_is_a_folder_a_map_or_a_network(tmp_path: Path) -> None:
    """One of several outputs is named after ``#``, whose name may look like a path."""
    np.save(tmp_path / "s.npy", np.ones((2, 2)))
    folder = Prior(tmp_path)
    folder.check()
    assert folder.of("s") == Prior(tmp_path / "s.npy")
    with pytest.raises(MapError, match=r"no folder .*nowhere; give the folder of the maps"):
        Prior(tmp_path / "nowhere").check()
    (tmp_path / "net.pt2").touch()
    with pytest.raises(MapError, match=r"no folder .*net\.pt2; give the folder of the maps, one a slide, or an \.onnx"):
        Prior(tmp_path / "net.pt2").check()
    with pytest.raises(MapError, match=r"no network .*none\.onnx; correct the path"):
        Prior(tmp_path / "none.onnx").check()
    with pytest.raises(MapError, match=r"are for an \.onnx network"):
        Prior(tmp_path, mpp=4).check()
    path = network(tmp_path / "a#1.onnx", said={}, outputs=("/x/map", "y"))
    named = Prior(Path(f"{path}#/x/map"), channel=0)
    named.check()
    assert named.of("s") is named


def test_its_digest_is_of_all_that_it_depends_on(tmp_path: Path) -> None:
    needs("onnxruntime", "-e .[onnx]")
    prior = Prior(network(tmp_path / "net.onnx", said=DARKNESS), channel=0)
    digests = [p.digest() for p in (prior, prior, replace(prior, channel=1), replace(prior, mpp=2.0))]
    network(tmp_path / "net.onnx", said={**DARKNESS, "mpp": [2]})
    digests.append(prior.digest())
    network(tmp_path / "net.onnx", said=DARKNESS, stride=2)
    digests.append(prior.digest())
    assert digests[0] == digests[1]
    assert len(set(digests)) == 5
