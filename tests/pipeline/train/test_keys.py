"""What makes a trained model stale: each thing that it depends on, alone, against one baseline; and nothing else."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from makers import tissue_pixels, write_config, write_slide
from models import TINY
from safetensors.torch import save_file

import stages.slide.companions
import stages.slide.facts
from pipeline.config import Config, load_config
from pipeline.model.checkpoint import load_model
from pipeline.train.job import Job, begin
from pipeline.train.key import compared, content_of, differences, made_of
from pipeline.train.train import train_cohort
from stages.pyramid.cache import cache_pyramid
from stages.pyramid.open import open_pyramid
from stages.slide.facts import SlideFacts

BASELINE = [
    *("view.attention_mpp=8", "view.patch_px=32", "encoder.dim=16", "sampling.samples=8"),
    *("training.epochs=1", "training.warm_up=1", "training.calibration_slides=0", "training.device=cpu"),
    "training.keep=last",
]
TABLE = "slide,patient,label,split,mpp,site\n" + "".join(
    f"s{i}.tif,p{i},{'ab'[i % 2]},{'train' if i < 4 else 'test'},0.5,north\n" for i in range(8)
)


def config(folder: Path, *more: str) -> Config:
    return load_config(folder / "config.yaml", [*BASELINE, *more])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cohort, and under ``out`` the model that was trained on it."""
    folder = tmp_path_factory.mktemp("cohort")
    for i in range(8):
        write_slide(folder / f"s{i}.tif", tissue_pixels(300 + 8 * i, 320, margin=0.1), levels=2, factor=4)
    (folder / "cohort.csv").write_text(TABLE)
    write_config(folder)
    train_cohort(config(folder), folder / "out", say=lambda line: None)
    return folder


def trains_again(folder: Path, *changes: str, told: list[str] | None = None, verify: bool = False) -> bool:
    """Whether training would begin; it is stopped as soon as it says so, so that the baseline stays."""

    class SaidError(Exception):
        pass

    def say(line: str) -> None:
        lines.append(line)
        if "; it moves to " in line:
            raise SaidError

    lines: list[str] = [] if told is None else told
    try:
        train_cohort(config(folder, *changes), folder / "out", say=say, verify=verify)
    except SaidError:
        return True
    assert any("up to date" in line for line in lines)
    return False


@pytest.mark.parametrize(
    "change",
    [
        *("view.attention_mpp=4", "view.patch_mpp=0.5", "view.patch_px=64"),
        *("attention.kind=uniform", "attention.inner_mpp=2", "encoder.dim=8"),
        *("sampling.samples=12", "sampling.train_samples=4", "sampling.scheme=iid"),
        *("sampling.control_variate=true", "sampling.snap=true"),
        *("training.epochs=2", "training.batch_size=2", "training.learning_rate=0.002", "training.seed=1"),
        *("training.attention_rate=0.2", "training.warm_up=2", "training.weight_decay=0.01"),
        *("training.entropy_weight=0.1", "training.gradient_clip=0.5"),
        *("training.class_weights=balanced", "training.accumulate=2", "training.precision=bf16-mixed"),
        "training.read_ahead=1",
    ],
)
def test_each_setting_alone_trains_again(trained: Path, change: str) -> None:
    assert trains_again(trained, change)


def replaced(old: str, new: str) -> Callable[[Path], None]:
    """A change of the table."""
    assert TABLE.count(old) == 1
    return lambda folder: (folder / "cohort.csv").write_text(TABLE.replace(old, new)) and None


def rewritten(folder: Path) -> None:
    write_slide(folder / "s0.tif", tissue_pixels(350, 320, margin=0.1), levels=2, factor=4)


@pytest.fixture
def copied(trained: Path, tmp_path: Path) -> Path:
    """The cohort, its configuration and its model, somewhere else."""
    return shutil.copytree(trained, tmp_path / "cohort")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (replaced("s0.tif,p0,a", "s0.tif,p0,b"), "1 slide with another label (s0)"),
        (replaced("s0.tif,p0,a,train,0.5", "s0.tif,p0,a,train,0.49"), "1 slide with another mpp (s0)"),
        (replaced("s0.tif,p0,a,train,0.5,north", "s0.tif,p0,a,train,0.5,south"), "1 slide of another site (s0)"),
        (replaced("s0.tif,p0,a,train,0.5,north\n", ""), "1 slide fewer (s0)"),
        (replaced("s0.tif,p0,a,train", "s0.tif,p0,a,val"), "1 slide changed role (s0)"),
        (replaced("s4.tif,p4,a,test", "s4.tif,p4,a,train"), "1 slide changed role (s4)"),
        (rewritten, "1 slide with other content (s0)"),
    ],
)
def test_each_change_of_the_cohort_alone_trains_again_and_is_told(
    copied: Path, change: Callable[[Path], None], words: str
) -> None:
    change(copied)
    told: list[str] = []
    assert trains_again(copied, told=told)
    assert any(f"is of another training: {words}; it moves to" in line for line in told), told


def test_what_the_encoder_starts_from_counts_by_its_content(trained: Path, tmp_path: Path) -> None:
    model = load_model(trained / "out")
    weights = {name: value.clone() for name, value in model.encoder.body.state_dict().items()}
    changed = {**weights, next(iter(weights)): next(iter(weights.values())) + 1}
    for name, content in (("here", weights), ("there", weights), ("other", changed)):
        save_file(content, tmp_path / f"{name}.safetensors")
    folder = shutil.copytree(trained, tmp_path / "cohort")
    train_cohort(config(folder, f"encoder.weights={tmp_path / 'here.safetensors'}"), folder / "out", say=lambda _: None)
    assert not trains_again(folder, f"encoder.weights={tmp_path / 'there.safetensors'}")
    assert trains_again(folder, f"encoder.weights={tmp_path / 'other.safetensors'}")
    assert trains_again(folder)


def test_a_folder_of_weights_counts_by_all_that_is_in_it(tmp_path: Path) -> None:
    def weights() -> str:
        made = made_of({}, facts={}, spec=TINY, settings={}, weights=tmp_path)
        return str(made["weights"])

    (tmp_path / "config.json").write_text("{}")
    before = weights()
    assert weights() == before
    (tmp_path / "model.safetensors").write_bytes(b"1")
    assert weights() != before


def test_another_version_of_training_trains_again(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.train.key.TRAINING_VERSION", 0)
    assert trains_again(trained)


def test_what_does_not_matter_trains_nothing(trained: Path, copied: Path) -> None:
    """Where it computes and lies, what is kept of what was read, the order of the table's rows, and what it is only
    judged on."""
    assert not trains_again(copied)
    replaced("s4.tif,p4,a,test", "s4.tif,p4,a,val")(copied)
    assert not trains_again(copied)
    assert not trains_again(trained)
    assert not trains_again(trained, "training.device=auto")
    assert not trains_again(trained, "reading.cache_gb=1")
    head, *rows = TABLE.splitlines()
    (trained / "cohort.csv").write_text("\n".join([head, *reversed(rows)]) + "\n")
    assert not trains_again(trained)


def of_one_slide(**state: str | None) -> dict[str, Any]:
    """What a training on one slide is made of, whose files are in a state."""
    slide = {"role": "train", "fingerprint": "f", "label": "a", "mpp": None, "site": None}
    return {"version": 1, "weights": None, "spec": {}, "settings": {}, "slides": {"s": {**slide, **state}}}


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ({}, {"written": "1", "digest": None}, None),  # an earlier version recorded fingerprints only
        ({"written": "1", "digest": None}, {"written": "1", "digest": None}, None),
        ({"written": "1", "digest": None}, {"written": "2", "digest": None}, "1 slide whose files were written since"),
        ({"written": "1", "digest": "d"}, {"written": "2", "digest": "d"}, None),
        ({"written": "1", "digest": "d"}, {"written": "1", "digest": "e"}, "1 slide with other content"),
        ({"written": "1", "digest": None}, {"written": "1", "digest": "d"}, "1 slide without a digest of every byte"),
    ],
)
def test_a_slide_is_the_same_by_its_digest_or_by_the_state_of_its_files(
    before: dict[str, str | None], after: dict[str, str | None], words: str | None
) -> None:
    found = differences(of_one_slide(**before), of_one_slide(**after))
    assert [words] == [line[: len(words)] for line in found] if words else found == []


def test_settings_that_an_earlier_version_did_not_have_are_what_it_did() -> None:
    def settings(**known: Any) -> dict[str, Any]:
        return of_one_slide() | {"settings": known}

    now = settings(seed=0, accumulate=1, precision=32, read_ahead=0)
    assert differences(settings(seed=0), now) == []
    assert differences(settings(seed=0), settings(seed=0, accumulate=2)) == ["accumulate was 1, is 2"]


def test_a_slide_that_was_written_since_is_read_where_there_is_a_digest_to_compare_with(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And only then; a shard of a pyramid counts as its own."""
    monkeypatch.setattr(stages.slide.companions, "_SAMPLE", 64)
    pyramid = cache_pyramid(open_pyramid(trained / "s0.tif"), tmp_path / "s.ome.zarr")
    shard = next(path for path in pyramid.rglob("0") if path.is_file())

    def told(verify: bool = False) -> tuple[SlideFacts, dict[str, Any]]:
        facts = open_pyramid(pyramid).facts
        facts = facts.with_digest() if verify else facts
        return facts, of_one_slide(**content_of(facts))

    (_, plain), (_, verified) = told(), told(verify=True)
    os.utime(shard, (1, 1))
    facts, now = told()
    assert differences(plain, compared(plain, now, {"s": facts})) == ["1 slide whose files were written since (s)"]
    assert now["slides"]["s"]["digest"] is None
    assert differences(verified, compared(verified, now, {"s": facts})) == []
    shard.write_bytes(shard.read_bytes()[::-1])
    job = Job(tmp_path, (), {})
    begun = begin(job, verified, {"s": facts})
    assert begin(job, now, {"s": facts}) == begun  # one that was interrupted goes on
    facts, now = told()
    assert differences(verified, compared(verified, now, {"s": facts})) == ["1 slide with other content (s)"]
    assert begin(job, now, {"s": facts}) != begun


def test_a_verified_training_stands_by_every_byte_of_its_slides(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was written since is read once, and then its state is known; another byte is told from samples' own."""
    monkeypatch.setattr(stages.slide.companions, "_SAMPLE", 64)
    folder = shutil.copytree(trained, tmp_path / "cohort")
    shutil.rmtree(folder / "out")
    train_cohort(config(folder), folder / "out", say=lambda line: None, verify=True)
    slide = folder / "s0.tif"
    os.utime(slide, (1, 1))
    assert not trains_again(folder)
    with monkeypatch.context() as patch:
        patch.setattr(stages.slide.facts, "digest_of", None)
        assert not trains_again(folder)
    content = bytearray(slide.read_bytes())
    content[len(content) // 2 + 100] ^= 1
    slide.write_bytes(content)
    os.utime(slide, (1, 1))
    told: list[str] = []
    assert not trains_again(folder)  # as is stated
    assert trains_again(folder, told=told, verify=True)
    assert any("is of another training: 1 slide with other content (s0)" in line for line in told), told
