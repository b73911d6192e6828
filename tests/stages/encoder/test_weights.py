"""Files of weights: no code of theirs runs, and a digest tells them apart."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from stages.encoder.weights import WeightsError, digest_of, fitted, read_state

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.zeros(2)}


def test_a_digest_is_of_names_types_shapes_and_values() -> None:
    """Not of their order, of how they lie in memory, or of how many batches were seen."""
    own = digest_of(STATE)
    lain = {"a.bias": STATE["a.bias"], "a.weight": STATE["a.weight"].t().contiguous().t()}
    assert digest_of(lain) == digest_of({**STATE, "bn.num_batches_tracked": torch.tensor(3)}) == own
    others = [
        {"b.weight": STATE["a.weight"], "a.bias": STATE["a.bias"]},
        {**STATE, "a.weight": STATE["a.weight"].double()},
        {**STATE, "a.weight": STATE["a.weight"].reshape(3, 2)},
        {**STATE, "a.bias": torch.tensor([0.0, 1e-30])},
    ]
    assert len({own, *map(digest_of, others)}) == 5


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_junk_is_refused(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"w{suffix}").write_bytes(b"junk" * 100)
    with pytest.raises(WeightsError, match="cannot be read as weights"):
        read_state(tmp_path / f"w{suffix}")


@pytest.mark.parametrize(
    ("kept", "words"),
    [
        (nn.Linear(2, 2), "cannot be read as weights"),
        ([1, 2], "holds a list; expected a state dict"),
        ({"epoch": 3, "lr": 0.1}, "holds no tensors, but epoch, lr"),
        ({}, "holds no tensors, but nothing"),
    ],
)
def test_what_holds_no_weights_is_refused(tmp_path: Path, kept: object, words: str) -> None:
    """A whole module would be a pickle, whose code is not run."""
    torch.save(kept, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=words):
        read_state(tmp_path / "w.pt")


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="is not there; expected a state dict"):
        read_state(tmp_path / "w.pt")


def test_what_training_kept_beside_weights_is_left(tmp_path: Path) -> None:
    torch.save({"optimizer": {"state": {}}, "model": {"state_dict": STATE}}, tmp_path / "w.pt")
    assert read_state(tmp_path / "w.pt").keys() == STATE.keys()
    save_file(STATE, tmp_path / "w.safetensors")
    assert read_state(tmp_path / "w.safetensors").keys() == STATE.keys()


def test_tensors_fit_behind_a_prefix_and_without_a_head() -> None:
    network = nn.Sequential()
    network.a = nn.Linear(3, 2)
    state = {f"module.{name}": tensor.double() for name, tensor in STATE.items()}
    found = fitted({**state, "module.head.weight": torch.zeros(9), "other": torch.zeros(1)}, network, heads=("head",))
    assert {name: tensor.dtype for name, tensor in found.items()} == dict.fromkeys(STATE, torch.float32)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"a.weight": STATE["a.weight"]}, r"1 of the network's 2 tensors are missing, first a.bias"),
        ({**STATE, "a.bias": torch.zeros(3)}, r"a.bias has shape 3, the network's 2"),
        ({**STATE, "header.weight": torch.zeros(1)}, r"1 tensors that the network does not have, first header.weight"),
    ],
)
def test_what_does_not_fit_is_told_with_both_values(state: dict[str, torch.Tensor], words: str) -> None:
    network = nn.Sequential()
    network.a = nn.Linear(3, 2)
    with pytest.raises(WeightsError, match=words):
        fitted(state, network, heads=("head",))
