"""Sections: frozen, every field explained, scales that fit each other."""

from __future__ import annotations

import pytest
from makers import ROOT
from pydantic import BaseModel, ValidationError

from pipeline.config.sections import Config, ViewConfig

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


def test_the_default_configuration_explains_every_field_in_its_own_words():
    """A change of a field's description, or of the table of schemes, is a change of the file."""
    lines = (ROOT / "configs" / "default.yaml").read_text().splitlines()
    text = " ".join(" ".join(line.strip().removeprefix("#") for line in lines).split())
    for section in Config.model_fields.values():
        for key, field in section.annotation.model_fields.items():  # type: ignore[union-attr]
            assert field.description in text, key
