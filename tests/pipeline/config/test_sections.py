"""Sections: frozen, every field explained, scales that fit each other."""

from __future__ import annotations

from pathlib import Path
from textwrap import wrap

import pytest
import yaml
from makers import ROOT
from pydantic import BaseModel, TypeAdapter, ValidationError

from pipeline.config.sections import Config, ViewConfig

WHOLE_WORDS = {"break_on_hyphens": False, "break_long_words": False}
MINIMAL = Config.model_validate({"cohort": {"table": "cohort.csv"}})


def test_configs_are_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        MINIMAL.view.patch_px = 256  # type: ignore[misc]


@pytest.mark.parametrize("pitch_over_mpp", [1, 3, 8, 16])
def test_thirds_and_other_inexact_multiples_are_accepted(pitch_over_mpp):
    mpp = 128 * 0.25 / pitch_over_mpp
    view = ViewConfig(patch_mpp=0.25, attention_mpp=mpp)
    assert view.cell_px == pitch_over_mpp


def test_every_field_says_its_unit_or_reason():
    for name, section in Config.model_fields.items():
        assert isinstance(section.annotation, type)
        assert issubclass(section.annotation, BaseModel)
        for key, field in section.annotation.model_fields.items():
            assert field.description, f"{name}.{key}"
            assert len(field.description) > 20, f"{name}.{key}"


def default_yaml() -> str:
    """configs/default.yaml as the sections tell it."""
    lines = [
        "# Train on a cohort of slides with slide-level labels:  saccade train CONFIG --out DIR",
        "# Every key is optional except cohort.table; what is written here are the defaults. Some are for one",
        "# attention.kind or model.kind, and say so: with another they do nothing.",
        "# Encoding takes some seconds a slide, once, then a training a minute or a few. Expect of 44 slides what",
        "# docs/real-tissue.md has.",
    ]
    for name, section in Config.model_fields.items():
        kind = section.annotation
        assert isinstance(kind, type)
        assert issubclass(kind, BaseModel)
        lines += ["", f"{name}:  # {kind.__doc__}"]
        for key, field in kind.model_fields.items():
            assert field.description
            value = Path("cohort.csv") if field.is_required() else field.default
            text = yaml.safe_dump(TypeAdapter(object).dump_python(value, mode="json"), default_flow_style=True)
            lines += wrap(field.description, 120, initial_indent="  # ", subsequent_indent="  # ", **WHOLE_WORDS)
            lines.append(f"  {key}: {text.splitlines()[0]}")
    return "\n".join(lines) + "\n"


def test_the_default_configuration_is_what_the_sections_tell():
    """A change of a field, its default or its description is a change of the file: write there what this shows."""
    assert (ROOT / "configs" / "default.yaml").read_text(encoding="utf-8") == default_yaml()
