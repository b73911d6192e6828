"""Configurations: what loads, what is refused, and in which one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config import Config, load_config, override_config
from pipeline.errors import UsageError


@pytest.fixture
def write(tmp_path: Path):
    def write_config(text: str = "cohort: {table: cohort.csv}\n") -> Path:
        path = tmp_path / "config dir é" / "train.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write_config


def test_minimal_file_gives_the_defaults_and_paths_relative_to_itself(write):
    path = write("cohort:\n  table: sub/cohort.csv\nview:\n")
    config = load_config(path)
    assert config.cohort.table == path.parent / "sub" / "cohort.csv"
    assert config.cohort.slides is None
    assert (config.view.patch_px, config.view.pitch_um, config.view.cell_px) == (128, 64.0, 8)
    assert config.sampling.scheme == "systematic"
    assert config.training.folds is None


def test_paths_typed_in_an_override_are_relative_to_where_they_were_typed(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = load_config(write(), ["cohort.table=a b/other.csv", f"cohort.slides={tmp_path / 'slides'}"])
    assert config.cohort.table == tmp_path / "a b" / "other.csv"
    assert config.cohort.slides == tmp_path / "slides"


def test_overrides_are_yaml_and_the_last_one_wins(write):
    config = load_config(
        write("cohort: {table: t.csv}\ntraining: {epochs: 3, learning_rate: 1e-2}\n"),
        ["training.epochs=4", "training.epochs=5", "training.weight_decay=1e-5", "training.folds=", "cohort.label=b"],
    )
    assert config.training.epochs == 5
    assert config.training.learning_rate == 0.01
    assert config.training.weight_decay == 1e-5
    assert config.training.folds is None
    assert config.cohort.label == "b"


def test_a_config_survives_json_and_takes_overrides_afterwards(write):
    config = load_config(write())
    assert Config.model_validate(config.model_dump(mode="json")) == config
    changed = override_config(config, ["sampling.samples=64"])
    assert changed.sampling.samples == 64
    assert changed.view == config.view
    with pytest.raises(UsageError, match=r"--set sampling.sample: unknown key; .*'sampling.samples'"):
        override_config(config, ["sampling.sample=64"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cohort: {table: t.csv}\nview: {patch_mp: 0.5}", r"view\.patch_mp: unknown key; .*'view\.patch_mpp'$"),
        ("cohort: {table: t.csv}\npatch_mpp: 0.5", r"patch_mpp: unknown key; .*'view\.patch_mpp'$"),
        ("cohort: {table: t.csv}\nsamplin: {samples: 3}", r"samplin: unknown key; .*'sampling'$"),
        ("cohort: {table: t.csv}\ntraining: {epoch: 3}", r"training\.epoch: unknown key; .*'training\.epochs'$"),
        ("view: {patch_px: 128}", r"cohort: missing"),
        ("cohort: {label: x}", r"cohort\.table: missing"),
        ("cohort: {table: t.csv}\nview: {patch_px: 127.5}", r"view\.patch_px: .*integer.*found 127\.5$"),
        ("cohort: {table: t.csv}\ntraining: {epochs: '3'}", r"training\.epochs: .*integer.*found '3'$"),
        ("cohort: {table: t.csv}\ntraining: {epochs: true}", r"training\.epochs: .*integer.*found True$"),
        ("cohort: {table: t.csv}\nview: {patch_mpp: .nan}", r"view\.patch_mpp: .*finite.*found nan$"),
        ("cohort: {table: t.csv}\nsampling: {samples: 1}", r"sampling\.samples: .*greater than or equal to 2"),
        (
            "cohort: {table: t.csv}\nsampling: {samples: 3000, scheme: iid}",
            r"sampling: samples must be at most 2048 with iid.*found 3000",
        ),
        (
            "cohort: {table: t.csv}\nattention: {kind: uniform}\nsampling: {control_variate: true}",
            r"control_variate needs attention\.kind: learned",
        ),
        ("cohort: {table: t.csv}\nattention: {inner_mpp: 0.25}", r"inner_mpp must lie between .*found 0\.25"),
        ("cohort: {table: t.csv}\nattention: {inner_mpp: 6}", r"multiple of attention\.inner_mpp, .*fits is 5\.81"),
        (
            "cohort: {table: t.csv}\nattention: {inner_mpp: 4}\nsampling: {samples: 3}",
            r"sampling\.samples must be at least 4 with attention\.inner_mpp",
        ),
        ("cohort: {table: t.csv}\nsampling: {scheme: topk}", r"'systematic', 'gumbel' or 'iid', found 'topk'"),
        ("cohort: {table: t.csv}\nview: {attention_mpp: 7}", r"64 / 7 = 9\.14286; .*attention_mpp that fits is 7\.11"),
        ("cohort: {table: t.csv}\nview: {attention_mpp: 100}", r"attention_mpp that fits is 64$"),
        ("cohort: {table: t.csv}\nview: {attention_mpp: 0.25}", r"finer than patch_mpp, found 0\.25 .*attention_mpp 8"),
        ("cohort: {table: t.csv}\nencoder: {name: resnet18}", r"encoder\.name: .*timm:.*found 'resnet18'$"),
        ("cohort: {table: t.csv}\nencoder: {weights: gone.pt}", r"encoder\.weights: no file .*gone\.pt"),
        ("cohort: {table: t.csv}\nview: 3", r"view: .*found 3$"),
        ("cohort: [", r"line \d.*not valid YAML"),
        ("cohort: {table: a.csv}\ncohort: {table: b.csv}", r"line 1.*'cohort' is given twice"),
        ("cohort: !!python/object/apply:os.getcwd []", r"not valid YAML"),
        ("a\x00b", r"not valid YAML"),
        ("- 1\n- 2", r"expected sections \(cohort, view, .*found list"),
        ("", r"expected sections .*found NoneType"),
    ],
)
def test_a_bad_file_is_one_line_with_the_remedy(write, text, message):
    with pytest.raises(UsageError, match=message) as caught:
        load_config(write(text))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("view.patch_px", r"expected section\.key=value"),
        ("patch_px=3", r"expected section\.key=value.*'view\.patch_px'"),
        ("=3", r"expected section\.key=value"),
        ("view.patch_px=abc", r"^--set view\.patch_px: .*integer.*found 'abc'$"),
        ("view.patch_px=[", r"^--set view\.patch_px=\[, line 1: not valid YAML"),
        ("view.ptch_px=3", r"^--set view\.ptch_px: unknown key; .*'view\.patch_px'$"),
        ("training.seed=", r"^--set training\.seed: .*found None$"),
    ],
)
def test_a_bad_override_is_one_line_that_names_it(write, override, message):
    with pytest.raises(UsageError, match=message) as caught:
        load_config(write(), [override])
    assert "\n" not in str(caught.value)


def test_a_missing_file_or_a_folder_or_latin1_is_one_line(tmp_path, write):
    with pytest.raises(UsageError, match=r"cannot read the configuration .*gone\.yaml: No such file"):
        load_config(tmp_path / "gone.yaml")
    with pytest.raises(UsageError, match="cannot read the configuration"):
        load_config(tmp_path)
    path = write()
    path.write_bytes("cohort: {table: é.csv}".encode("latin-1"))
    with pytest.raises(UsageError, match="not UTF-8"):
        load_config(path)
