"""Configurations: what loads, what is refused, and in which one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config import Config, load_config, override_config
from pipeline.errors import UsageError

END_TO_END = "cohort: {table: t.csv}\nencoder: {name: small}\n"


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
    assert (config.view.patch_px, config.view.pitch_um, config.view.cell_px) == (128, 128.0, 16)
    assert config.sampling.scheme == "systematic"
    assert config.training.folds is None


def test_paths_typed_in_an_override_are_relative_to_where_they_were_typed(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = load_config(write(), ["cohort.table=a b/other.csv", f"cohort.slides={tmp_path / 'slides'}"])
    assert config.cohort.table == tmp_path / "a b" / "other.csv"
    assert config.cohort.slides == tmp_path / "slides"


def test_weights_of_an_encoder_may_lie_in_a_folder(write, tmp_path):
    assert load_config(write(), [f"encoder.weights={tmp_path}"]).encoder.weights == tmp_path


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
        (
            "cohort: {table: t.csv}\nview: {patch_mp: 0.5}",
            r"view\.patch_mp: unknown key; did you mean 'view\.patch_mpp'\?$",
        ),
        ("cohort: {table: t.csv}\npatch_mpp: 0.5", r"patch_mpp: unknown key; did you mean 'view\.patch_mpp'\?$"),
        ("cohort: {table: t.csv}\nsamplin: {samples: 3}", r"samplin: unknown key; did you mean 'sampling'\?$"),
        (
            "cohort: {table: t.csv}\ntraining: {epoch: 3}",
            r"training\.epoch: unknown key; did you mean 'training\.epochs'\?$",
        ),
        ("cohort: {tabel: t.csv}", r"cohort\.tabel: unknown key; did you mean 'cohort\.table'\?$"),
        ("chort: {table: t.csv}", r"yaml: chort: unknown key; did you mean 'cohort'\?$"),
        (
            "cohort: {lable: x}\nview: {patch_px: 1, patch_mp: 1}",
            r"cohort\.lable: unknown key; did you mean 'cohort\.label'\? \(and 3 more\)$",
        ),
        ("view: {patch_px: 128}", r"cohort: missing"),
        ("cohort: {label: x}", r"cohort\.table: missing"),
        (
            "cohort: {table: t.csv}\nview: {patch_px: 127.5}",
            r"view\.patch_px: expected a whole number from 8 to 4096, found 127\.5$",
        ),
        (
            "cohort: {table: t.csv}\ntraining: {epochs: '3'}",
            r"training\.epochs: expected a whole number of at least 1, found the text '3'; leave out the quotes$",
        ),
        (
            "cohort: {table: t.csv}\ntraining: {epochs: true}",
            r"training\.epochs: expected a whole number of at least 1, found true$",
        ),
        ("cohort: {table: t.csv}\nview: {patch_mpp: .nan}", r"view\.patch_mpp: expected a number above 0, found nan$"),
        (
            "cohort: {table: t.csv}\nsampling: {samples: 1}",
            r"sampling\.samples: expected a whole number from 2 to 1000000, found 1$",
        ),
        (
            "cohort: {table: t.csv}\nsampling: {samples: 3000, scheme: iid}",
            r"sampling: samples must be at most 2048 with iid.*found 3000",
        ),
        (
            f"{END_TO_END}attention: {{kind: uniform}}\nsampling: {{control_variate: true}}",
            r"control_variate needs attention\.kind: learned",
        ),
        (f"{END_TO_END}attention: {{kind: learned, inner_mpp: 0.25}}", r"inner_mpp must lie between .*found 0\.25"),
        (f"{END_TO_END}attention: {{kind: learned, inner_mpp: 6}}", r"multiple of attention\.inner_mpp, .*is 6\.09"),
        ("cohort: {table: t.csv}\nattention: {inner_mpp: 4}", r"inner_mpp is for attention\.kind: learned"),
        (
            f"{END_TO_END}attention: {{kind: learned, inner_mpp: 4}}\nsampling: {{samples: 3}}",
            r"sampling\.samples must be at least 4 with attention\.inner_mpp",
        ),
        ("cohort: {table: t.csv}\nsampling: {scheme: topk}", r"'systematic', 'gumbel' or 'iid', found the text 'topk'"),
        ("cohort: {table: t.csv}\nview: {attention_mpp: 7}", r"128 / 7 = 18\.2857; .*attention_mpp that fits is 7\.11"),
        ("cohort: {table: t.csv}\nview: {attention_mpp: 100}", r"attention_mpp that fits is 128$"),
        (
            "cohort: {table: t.csv}\nview: {attention_mpp: 0.25}",
            r"finer than patch_mpp, found 0\.25 .*attention_mpp 16",
        ),
        (
            "cohort: {table: t.csv}\nencoder: {name: resnet18}",
            r"encoder\.name: unknown encoder 'resnet18'; there is lite0, .*timm:MODEL",
        ),
        ("cohort: {table: t.csv}\nencoder: {weights: gone.pt}", r"encoder\.weights: no file or folder .*gone\.pt"),
        (
            "cohort: {table: t.csv}\nview: 3",
            r"view: expected keys below it \(attention_mpp, patch_mpp, patch_px\), found 3$",
        ),
        (
            "cohort: {table: t.csv}\nview: {zzz: 1}",
            r"view\.zzz: unknown key; known are attention_mpp, patch_mpp, patch_px$",
        ),
        ("cohort: {table: t.csv}\nfoo: 1", r"foo: unknown key; known are cohort, view, "),
        ("cohort: {table: t.csv}\n3: 1", r"3: a key is text, found 3; known are cohort, view, "),
        ("cohort: {table: t.csv}\nview: {patch_mpp: '0,5'}", r"found the text '0,5'; write a point for the comma$"),
        ("cohort: {table: t.csv, positive: no}", r"found false; YAML reads yes, no, on and off .* put it in quotes$"),
        ("cohort: {table: t.csv, label: 2020-01-01}", r"label: expected text .*found 2020-01-01; put it in quotes$"),
        ("cohort: {table: t.csv, label: ''}", r"label: expected text that is not empty, found the text ''$"),
        ("cohort: {table: [a]}", r"cohort\.table: expected a path, found a list$"),
        ('cohort: {table: "a\\0b"}', r"cohort\.table: no path has a zero character in it"),
        ("cohort: t.csv", r"cohort: expected keys below it \(table, label, .*\), found the text 't\.csv'$"),
        ("cohort: {table: t.csv}\nattention: {kind: Learnt}", r"found the text 'Learnt'; did you mean 'learned'\?$"),
        ("cohort: {table: t.csv}\ntraining: {folds: 1}", r"of at least 2, or nothing, found 1$"),
        ("cohort: {table: t.csv}\ntraining: {seed: -1}", r"a whole number from 0 to 4294967295, found -1$"),
        ("cohort: {table: t.csv}\nreading: {cache_gb: 0}", r"cache_gb: expected a number above 0, found 0$"),
        ("cohort: {table: t.csv}\ntraining: {device: gpu}", r"'gpu': did you mean 'cuda'\? .*this machine has cpu"),
        ("cohort: {table: t.csv}\ntraining: {device: 1}", r"called 1: did you mean 'cuda:1'\? "),
        ("[" * 3000, r"brackets within brackets"),
        ("cohort: [", r"line \d.*not valid YAML"),
        ("cohort: {table: a.csv}\ncohort: {table: b.csv}", r"line 1.*'cohort' is given twice"),
        ("cohort: !!python/object/apply:os.getcwd []", r"not valid YAML"),
        ("a\x00b", r"not valid YAML"),
        ("- 1\n- 2", r"expected sections \(cohort, view, .*found a list"),
        ("", r"expected sections .*found nothing"),
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
        ("view=3", r"expected section\.key=value.*its keys are attention_mpp, "),
        ("=3", r"expected section\.key=value"),
        ("view.patch_px=abc", r"^--set view\.patch_px: expected a whole number from 8 to 4096, found the text 'abc'$"),
        ("view.patch_px=[", r"^--set view\.patch_px=\[, line 1: not valid YAML"),
        ("view.ptch_px=3", r"^--set view\.ptch_px: unknown key; did you mean 'view\.patch_px'\?$"),
        ("training.seed=", r"^--set training\.seed: expected .* found nothing$"),
    ],
)
def test_a_bad_override_is_one_line_that_names_it(write, override, message):
    with pytest.raises(UsageError, match=message) as caught:
        load_config(write(), [override])
    assert "\n" not in str(caught.value)


def test_a_missing_file_or_a_folder_or_latin1_is_one_line(tmp_path, write):
    with pytest.raises(UsageError, match=r"cannot read the configuration .*gone\.yaml: there is no such file"):
        load_config(tmp_path / "gone.yaml")
    with pytest.raises(UsageError, match=r"cannot read the configuration .*: it is a folder"):
        load_config(tmp_path)
    path = write()
    path.write_bytes("cohort: {table: é.csv}".encode("latin-1"))
    with pytest.raises(UsageError, match="not UTF-8"):
        load_config(path)
