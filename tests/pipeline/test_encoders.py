"""`saccade encoders`: the list at once, all of one encoder, and what a local file of weights is."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import encoders
import pytest
import torch
from makers import saccade
from safetensors.torch import save_file

from pipeline.encoders import check, described, listed, render, table
from pipeline.errors import UsageError
from stages.encoder.lite0 import Lite0
from stages.encoder.registry import RELEASES


def test_the_list_is_there_at_once_and_needs_nothing_heavy() -> None:
    code = """
import sys
sys.argv = ["saccade", "encoders"]
import pipeline.cli
try:
    pipeline.cli.main()
except SystemExit:
    pass
print([module for module in ("torch", "numpy", "timm", "huggingface_hub") if module in sys.modules], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert [line.split()[0] for line in done.stdout.splitlines()[1:-3]] == ["lite0", *(row.name for row in RELEASES)]


def test_what_is_here_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "models--kaiko-ai--midnight" / "snapshots" / "abc"
    folder.mkdir(parents=True)
    here = {row["name"]: row["here"] for row in listed(tmp_path)}
    assert here["midnight"] == str(folder)
    assert here["phikon"] is None
    found = described("midnight", tmp_path)
    assert found is not None
    assert found["revision"] == "abc"
    assert [line for line in table(listed(tmp_path)).splitlines() if line.endswith("here")][-1].startswith("midnight")


def test_all_of_one_is_told_with_how_to_get_it(tmp_path: Path) -> None:
    found = described("MahmoodLab/UNI", tmp_path)
    assert found is not None
    words = render(found)
    there = find_spec("timm") is not None
    for part in (
        f"needs       timm, which is {'' if there else 'not '}here: in Saccade's folder, pip install -e '.[timm]'",
        "CC-BY-NC-ND-4.0, gated",
        "1024 values, the class token",
        "224 px, or other multiples of 16 px",
        "24 blocks of 16 heads",
        "accept its licence at https://huggingface.co/MahmoodLab/UNI",
        f"`hf download MahmoodLab/UNI --local-dir {tmp_path / 'MahmoodLab' / 'UNI'}`",
    ):
        assert part in words
    assert described("timm:resnet18") is None


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_file(Lite0(classes=7).state_dict(), tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors"


def test_a_file_of_weights_is_checked(weights: Path) -> None:
    """Loaded, given patches; its digest, its shapes and what to know of it are told, for people and for programs."""
    done = saccade("encoders", "lite0", "--weights", weights, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["source"] == "file:w.safetensors"
    assert found["forward"]["features"] == [2, 1280]
    assert len(found["digest"]) == 64
    assert found["tensors"]["conv_stem.weight"] == [32, 3, 3, 3]
    assert found["digest"] in render(found)


def test_a_file_that_is_no_such_encoder_is_one_line_and_exit_code_2(tmp_path: Path, weights: Path) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pt")
    done = saccade("encoders", "lite0", "--weights", tmp_path / "other.pt")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"saccade: error: {tmp_path / 'other.pt'} is not EfficientNet-Lite0: ")
    assert len(done.stderr.splitlines()) == 1
    done = saccade("encoders", "--weights", weights)
    assert done.returncode == 2
    assert "weights of which encoder?" in done.stderr


def test_weights_that_are_no_numbers_are_told(tmp_path: Path) -> None:
    state = Lite0().state_dict()
    state["conv_head.weight"][0, 0] = float("nan")
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(UsageError, match="features that are no finite numbers"):
        check("lite0", tmp_path / "w.safetensors")


def test_an_unknown_name_is_told_the_nearest() -> None:
    with pytest.raises(UsageError, match="unknown encoder 'phikon-v3'; there is phikon-v2"):
        check("phikon-v3", None)


def test_a_released_encoder_is_checked(tmp_path: Path) -> None:
    """What sets its weights apart from those that are known is a warning."""
    save_file(encoders.timm_release("kaiko-s16").state_dict(), tmp_path / "w.safetensors")
    words = render(check("kaiko-s16", tmp_path / "w.safetensors"))
    assert "warning     kaiko-s16 is known with a depth of 12, these weights have 1" in words
