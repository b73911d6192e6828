"""Where to compute: what is called a device, and what is said of one that is not here."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipeline.device import Precision, check_device, check_precision, find_device, here
from pipeline.errors import UsageError
from pipeline.model.checkpoint import load_model


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("gpu", "cuda"),
        ("GPU", "cuda"),
        ("CUDA", "cuda"),
        ("gpu1", "cuda:1"),
        ("1", "cuda:1"),
        ("Metal", "mps"),
        ("CPU", "cpu"),
    ],
)
def test_what_was_likely_meant_is_named_with_what_is_here(name: str, meant: str) -> None:
    with pytest.raises(UsageError, match=rf"called '{name}': did you mean '{meant}'\? .*this machine has cpu"):
        check_device(name)


def test_what_is_like_no_device_is_refused_without_a_guess() -> None:
    with pytest.raises(UsageError, match=r"no device is called 'abacus': expected auto "):
        find_device("abacus")


@pytest.mark.parametrize("name", ["auto", "cpu", "cuda", "cuda:7", "mps"])
def test_names_are_known_whether_or_not_such_a_device_is_here(name: str) -> None:
    assert check_device(name) == name


@pytest.mark.parametrize("cards", [0, 1, 2])
def test_auto_is_cuda_where_there_is_a_card_and_only_what_is_here_is_given(
    monkeypatch: pytest.MonkeyPatch, cards: int
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cards)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert here() == ["cpu", "cuda:0", "cuda:1"][: 1 + cards]
    assert find_device("auto").type == ("cuda" if cards else "cpu")
    for name in ("cuda", "cuda:1", "mps"):
        if (name == "cuda" and cards) or (name == "cuda:1" and cards > 1):
            assert find_device(name) == torch.device(name)
        else:
            with pytest.raises(
                UsageError, match=rf"^cannot compute on '{name}': this machine has cpu.*; use one of these$"
            ):
                find_device(name)


def test_a_torch_that_has_no_cuda_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(UsageError, match=r"this machine has cpu.*, and torch \S+ has no CUDA; use one of these"):
        find_device("cuda")


def test_a_model_on_a_device_that_is_not_here_says_so_before_it_is_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot compute on 'cuda:99'"):
        load_model(tmp_path / "gone.safetensors", device="cuda:99")


@pytest.mark.parametrize(
    ("precision", "device", "words"),
    [
        (32, "mps", None),
        ("bf16-mixed", "cpu", None),
        ("16-mixed", "cpu", "cpu cannot learn in 16-mixed; use bf16-mixed or 32"),
        ("bf16-mixed", "mps", "mps cannot learn in bf16-mixed; use 32"),
        ("16-mixed", "cuda", None),
        ("bf16-mixed", "cuda", "Tesla P100 has no bfloat16; use 16-mixed or 32"),
    ],
)
def test_a_precision_that_a_device_cannot_learn_in_is_refused(
    monkeypatch: pytest.MonkeyPatch, precision: Precision, device: str, words: str | None
) -> None:
    """Lightning would take bfloat16 for float16 on a CPU, and say so where nobody looks."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla P100")
    if words is None:
        check_precision(precision, torch.device(device))
        return
    with pytest.raises(UsageError, match=words):
        check_precision(precision, torch.device(device))
