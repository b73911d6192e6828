"""A checkpoint is the same bytes whenever the same model is saved, and what safetensors reads."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from makers import ROOT
from models import TINY as SPEC
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from pipeline.errors import UsageError
from pipeline.model.checkpoint import load_model, save_model
from pipeline.model.header import find_model, model_digest
from pipeline.model.sampler import AttentionSampler
from stages import appearance
from stages.prediction.predict import Calibration

CALIBRATION = Calibration(alpha=0.1, eta=1 / 3, budgets=(8, 64), factors=(1.5, 1.25), far=(2.0, 1.5))


@pytest.fixture
def model() -> AttentionSampler:
    torch.manual_seed(1)
    return AttentionSampler(SPEC, calibration=CALIBRATION).eval()


def test_one_model_saved_in_any_process_is_the_same_bytes(model: AttentionSampler, tmp_path: Path) -> None:
    """Its digest is part of every result's key. The library orders metadata at random, anew for each file."""
    save_model(model, tmp_path / "first")
    for name in ("second", "third", "fourth"):
        save_model(model, tmp_path / name)
    code = (
        "import sys; from pathlib import Path; from pipeline.model.checkpoint import load_model, save_model; "
        "save_model(load_model(Path(sys.argv[1])), Path(sys.argv[2]))"
    )
    for seed in ("0", "1"):
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", code, str(tmp_path / "first"), str(tmp_path / f"process {seed}")]
        subprocess.run(command, env=environment, check=True)
    contents = {path.read_bytes() for path in tmp_path.iterdir()}
    assert len(list(tmp_path.iterdir())) == 6
    assert len(contents) == 1
    assert len({model_digest(path) for path in tmp_path.iterdir()}) == 1


def test_another_calibration_or_weight_is_another_digest(model: AttentionSampler, tmp_path: Path) -> None:
    """Results that may differ never share a key."""
    digests = set()
    for change in ("none", "no calibration", "one weight"):
        if change == "no calibration":
            model.calibration = None
        elif change == "one weight":
            with torch.no_grad():
                next(iter(model.parameters())).view(-1)[0] += 1e-3
        save_model(model, tmp_path / "model.safetensors")
        digests.add(model_digest(tmp_path / "model.safetensors"))
    assert len(digests) == 3


def test_safetensors_reads_every_type_and_shape_that_is_written(model: AttentionSampler, tmp_path: Path) -> None:
    """Scalars, empty and strided tensors, too; each begins at a multiple of its own width."""
    types = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16)
    for dtype in (*types, torch.int8, torch.uint8, torch.bool):
        name = str(dtype).removeprefix("torch.")
        model.register_buffer(f"{name}_strided", torch.arange(15).reshape(3, 5).to(dtype).T)
        model.register_buffer(f"{name}_scalar", torch.tensor(1).to(dtype))
    model.register_buffer("empty", torch.zeros(0, 3))
    path = tmp_path / "model.safetensors"
    save_model(model, path)
    found, state = load_file(path), model.state_dict()
    assert found.keys() == state.keys()
    for name, value in state.items():
        assert (found[name].dtype, found[name].shape) == (value.dtype, value.shape)
        assert torch.equal(found[name], value)
        assert found[name].data_ptr() % value.element_size() == 0
    with safe_open(path, framework="pt") as file:
        assert sorted(file.metadata()) == ["calibration", "format", "spec"]


def test_a_checkpoint_that_the_library_wrote_is_read(model: AttentionSampler, tmp_path: Path) -> None:
    """As ours were until 6ee006e: the same texts, in any order, and weights in the library's."""
    ours, theirs = tmp_path / "ours.safetensors", tmp_path / "theirs.safetensors"
    save_model(model, ours)
    with safe_open(ours, framework="pt") as file:
        save_file(model.state_dict(), theirs, metadata=dict(reversed(file.metadata().items())))
    again = load_model(theirs)
    assert (again.spec, again.calibration) == (model.spec, model.calibration)
    for name, value in again.state_dict().items():
        assert torch.equal(value, model.state_dict()[name])


def test_a_model_that_cannot_be_written_leaves_the_earlier_one(model: AttentionSampler, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_model(model, path)
    before = path.read_bytes()
    model.register_buffer("unheard_of", torch.zeros(1, dtype=torch.complex64))
    with pytest.raises(KeyError, match="complex64"):
        save_model(model, path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.safetensors"]


def test_a_pickle_is_never_loaded(tmp_path: Path) -> None:
    class Boom:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "executed",))

    (tmp_path / "model.safetensors").write_bytes(pickle.dumps(Boom()))
    with pytest.raises(UsageError, match="cannot load the checkpoint"):
        load_model(tmp_path / "model.safetensors")
    assert not (tmp_path / "executed").exists()


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(UsageError, match="not a saccade"):
        load_model(tmp_path / "other.safetensors")


def test_a_checkpoint_whose_encoder_needs_timm_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)  # as where it is not installed
    model = AttentionSampler(SPEC)
    model.spec = replace(SPEC, encoder="timm:resnet18")
    save_model(model, tmp_path / "model.safetensors")
    with pytest.raises(
        UsageError, match=r"model\.safetensors: 'timm:resnet18' needs timm.*pip install -e '\.\[timm\]'$"
    ):
        load_model(tmp_path / "model.safetensors")


def test_a_trainings_folder_stands_for_the_model_in_it(model: AttentionSampler, tmp_path: Path) -> None:
    save_model(model, tmp_path / "model.safetensors")
    assert find_model(tmp_path) == tmp_path / "model.safetensors"
    assert load_model(tmp_path).spec == model.spec


@pytest.mark.parametrize(
    ("there", "words"),
    [
        (("training-0123456789ab.json",), "holds an unfinished training: run its `saccade train` again"),
        (
            ("splits.csv", "fold-0/model.safetensors"),
            r"unfinished training: .*, or give .*: fold-0/model\.safetensors$",
        ),
        (("training/model.safetensors",), r"without a model\.safetensors: give the .*: training/model\.safetensors$"),
        ((), r"is a folder without a model\.safetensors: give what `saccade train` wrote$"),
    ],
)
def test_a_folder_without_a_model_says_what_it_is(tmp_path: Path, there: tuple[str, ...], words: str) -> None:
    for name in there:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(UsageError, match=words):
        load_model(tmp_path)


def test_a_checkpoint_keeps_how_its_cohort_looks(
    model: AttentionSampler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit; numbers that mean something else are not compared with, and earlier models have none."""
    path = tmp_path / "model.safetensors"
    save_model(model, path)
    assert load_model(path).appearance is None
    found = [appearance.Appearance("brightfield", tuple(i + k / 7 for k in range(8))) for i in range(5)]
    model.appearance = appearance.cohort_appearance([*found, appearance.Appearance("dark field", (0.0,) * 8)])
    save_model(model, path)
    assert load_model(path).appearance == model.appearance
    monkeypatch.setattr("pipeline.model.label_calibration.VERSION", appearance.VERSION + 1)
    assert load_model(path).appearance is None


def test_a_checkpoint_keeps_what_it_was_trained_on(model: AttentionSampler, tmp_path: Path) -> None:
    model.trained_on = frozenset(("b" * 64, "a" * 64))
    save_model(model, tmp_path / "model.safetensors")
    assert load_model(tmp_path / "model.safetensors").trained_on == model.trained_on
