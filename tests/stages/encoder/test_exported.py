"""Exported networks: what ONNX files take and put out is read from them, and what may hold code is not run."""

from __future__ import annotations

import copy
import json
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from encoders import needs, normalised, patches, shell_file, write_onnx
from torch import Tensor, nn

from stages.encoder.load import load_backbone
from stages.encoder.weights import WeightsError

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
N = "n"
"""A batch of any size."""


def test_a_network_of_tissue_gives_what_onnxruntime_gives() -> None:
    """SHELL segments epithelium and stroma: the feature is the mean of each class over the patch, and it says so."""
    path = shell_file()
    backbone, batch = load_backbone(str(path)), patches(3, 64)
    session = needs("onnxruntime", "onnxruntime").InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (plain,) = session.run(None, {"input": normalised(batch, *IMAGENET).numpy()})
    expected = torch.from_numpy(plain).mean((2, 3))
    torch.testing.assert_close(backbone(batch), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
    assert (backbone.dim, backbone.card.readout) == (3, "mean over space")
    assert any("does not say how its pictures are normalised" in line for line in backbone.card.misfit(px=64, mpp=1))
    for other in (copy.deepcopy(backbone), pickle.loads(pickle.dumps(backbone))):
        torch.testing.assert_close(other(batch), backbone(batch), rtol=0, atol=0)


def test_a_size_that_it_does_not_take_after_all_is_told() -> None:
    backbone = load_backbone(str(shell_file()))
    with pytest.raises(WeightsError, match=r"model_v1.onnx does not take pictures of 100 px.*\"step\""):
        backbone(patches(1, 100))


def test_its_digest_is_of_the_weights_beside_it_too(tmp_path: Path) -> None:
    path = shell_file()
    for name in (path.name, f"{path.name}.data"):
        (tmp_path / name).write_bytes(path.with_name(name).read_bytes())
    own = load_backbone(str(tmp_path / path.name)).card.digest
    assert own == load_backbone(str(path)).card.digest
    beside = tmp_path / f"{path.name}.data"
    content = bytearray(beside.read_bytes())
    content[1000] ^= 1
    beside.write_bytes(content)
    assert load_backbone(str(tmp_path / path.name)).card.digest != own


@pytest.mark.parametrize(
    ("shape", "pool", "size"),
    [
        ((N, 3, "h", "w"), (2, 3), 48),
        ((N, "h", "w", 3), (1, 2), 48),
        ((2, 3, 32, 32), (2, 3), 32),
        ((N, 32, 32, 3), (1, 2), 32),
        ((N, 3, "h", "w"), None, 48),
        ((N, "h", "w", 3), None, 48),
    ],
)
def test_axes_and_sizes_are_what_the_file_says(
    tmp_path: Path, shape: tuple[Any, ...], pool: tuple[int, ...] | None, size: int
) -> None:
    """Colours first or last; any batch or one of two; a feature or a map."""
    path, batch = write_onnx(tmp_path / "net.onnx", shape, pool=pool), patches(5, size)
    expected = normalised(batch, *IMAGENET).mean((2, 3))
    torch.testing.assert_close(load_backbone(str(path))(batch), expected, rtol=1e-5, atol=1e-5)


def test_patches_of_another_size_are_resized_for_a_fixed_network(tmp_path: Path) -> None:
    backbone = load_backbone(str(write_onnx(tmp_path / "net.onnx", (N, 3, 32, 32))))
    assert backbone(patches(2, 48)).shape == (2, 3)
    assert backbone.card.misfit(px=48, mpp=0.5)[-1] == (
        "net.onnx takes patches of 32 px, found 48 px: they are resized, to 0.75 µm/px"
    )


def test_a_network_that_takes_bytes_gets_the_pixels_as_they_are(tmp_path: Path) -> None:
    batch = patches(2, 32)
    backbone = load_backbone(str(write_onnx(tmp_path / "net.onnx", (N, 3, "h", "w"), kind="UINT8")))
    torch.testing.assert_close(backbone(batch), batch.float().mean((1, 2)))
    assert backbone.card.notes == ()


def test_the_file_beside_says_what_the_program_does_not(tmp_path: Path) -> None:
    path, batch = write_onnx(tmp_path / "net.onnx", (N, 3, "h", "w")), patches(1, 48)
    said = {"mean": [0.7] * 3, "std": [0.2] * 3, "mpp": [0.5, 1], "licence": "MIT", "px": 48, "step": 16}
    (tmp_path / "net.onnx.json").write_text(json.dumps(said))
    backbone = load_backbone(str(path))
    expected = normalised(batch, (0.7,) * 3, (0.2,) * 3).mean((2, 3))
    torch.testing.assert_close(backbone(batch), expected, rtol=1e-5, atol=1e-5)
    card = backbone.card
    assert (card.mpp, card.licence, card.px, card.step, card.notes) == ((0.5, 1), "MIT", 48, 16, ())
    (tmp_path / "net.onnx.json").write_text('{"means": [0.7]}')
    with pytest.raises(WeightsError, match=r"expected values for some of .*mean"):
        load_backbone(str(path))


def test_of_several_outputs_one_is_named(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "net.onnx", (N, 3, "h", "w"), outputs=("logits", "feature"))
    with pytest.raises(WeightsError, match=r"has the outputs logits, feature; say which is meant: .*#logits"):
        load_backbone(str(path))
    with pytest.raises(WeightsError, match="has no output 'features'; it has logits, feature"):
        load_backbone(f"{path}#features")
    assert load_backbone(f"{path}#feature").dim == 3


@pytest.mark.parametrize(
    ("shape", "options", "words"),
    [
        ((N, 1, 32, 32), {}, r"takes \('n', 1, 32, 32\); expected pictures of three colours"),
        ((N, 3), {"pool": None}, r"expected pictures of three colours"),
        ((N, 3, 32, 64), {}, "takes pictures of 64 x 32 px; expected square ones"),
        ((N, 3, 32, 32), {"kind": "INT32"}, r"takes tensor\(int32\); expected tensor\(float\)"),
        ((N, 3, 32, 32), {"pool": (3,)}, r"puts out \(1, 3, 32\) for one picture.*readout"),
    ],
)
def test_what_is_no_encoder_of_pictures_is_refused(
    tmp_path: Path, shape: tuple[Any, ...], options: dict[str, Any], words: str
) -> None:
    path = write_onnx(tmp_path / "net.onnx", shape, **options)
    with pytest.raises(WeightsError, match=words):
        load_backbone(str(path))


def test_a_file_that_is_no_onnx_is_refused(tmp_path: Path) -> None:
    needs("onnxruntime", "-e .[onnx]")
    (tmp_path / "net.onnx").write_bytes(b"junk" * 50)
    with pytest.raises(WeightsError, match=r"net.onnx cannot be run as ONNX"):
        load_backbone(str(tmp_path / "net.onnx"))


def test_onnxruntime_missing_names_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "net.onnx").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r"needs onnxruntime.*pip install -e '\.\[onnx\]'"):
        load_backbone(str(tmp_path / "net.onnx"))


class Means(nn.Module):
    """Each colour's mean, times a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(2.0))

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 3)."""
        return pixels.mean((2, 3)) * self.weight


def test_an_exported_program_runs_only_if_it_is_trusted(tmp_path: Path) -> None:
    """Torch unpickles it; TorchScript is not run at all."""
    batch = torch.export.Dim("batch")
    program = torch.export.export(Means(), (torch.zeros(2, 3, 32, 32),), dynamic_shapes=({0: batch},))
    torch.export.save(program, tmp_path / "net.pt2")
    with pytest.raises(WeightsError, match=r"unpickling, which runs whatever code is in the file.*trust=True"):
        load_backbone(str(tmp_path / "net.pt2"))
    backbone, pixels = load_backbone(str(tmp_path / "net.pt2"), trust=True), patches(3, 32)
    expected = 2 * normalised(pixels, *IMAGENET).mean((2, 3))
    torch.testing.assert_close(backbone.train()(pixels), expected, rtol=1e-5, atol=1e-5)
    assert backbone.card.px == 32
    (tmp_path / "net.ts").write_bytes(b"")
    with pytest.raises(WeightsError, match="is TorchScript"):
        load_backbone(str(tmp_path / "net.ts"), trust=True)


def test_a_program_has_its_own_weights(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds its own weights; leave weights out"):
        load_backbone(str(tmp_path / "net.onnx"), weights=tmp_path)
    with pytest.raises(WeightsError, match=r"net.onnx is not there"):
        load_backbone(str(tmp_path / "net.onnx"))
