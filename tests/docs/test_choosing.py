"""docs/choosing.md: the defaults that it tells are those of the configuration."""

from __future__ import annotations

import re
from typing import Any

import pytest
from pages import text_of

from pipeline.config.sections import Config
from pipeline.statistics.power import auroc_patients

ROWS = re.findall(r"^\| (`\w+\.\w+`.*?) \| (.*?) \|", text_of("docs/choosing.md"), re.MULTILINE)
WORDS: dict[str, tuple[Any, ...]] = {"unset": (None,), "off": (None, False, 0, 1.0), "as `samples`": (None,)}
"""What a default that is no value may be."""


def default_of(name: str) -> Any:
    section, _, field = name.partition(".")
    return getattr(Config.model_fields[section].get_default(call_default_factory=True), field)


@pytest.mark.parametrize(("settings", "told"), ROWS, ids=[row[0] for row in ROWS])
def test_its_defaults_are_those_of_the_configuration(settings: str, told: str) -> None:
    first, *more = re.findall(r"`([\w.]+)`", settings)
    section = first.partition(".")[0]
    names = [first, *(f"{section}.{field}" for field in more)]
    values = told.split(", ") if len(names) > 1 and ", " in told else [told] * len(names)
    for name, value in zip(names, values, strict=True):
        assert default_of(name) in WORDS.get(value, (value.strip("`"), *as_number(value))), name


def test_its_numbers_of_patients_are_those_that_a_training_tells() -> None:
    text = " ".join(text_of("docs/choosing.md").split())
    [told] = re.findall(r"to say it to ± \.05 takes some (\d+) at 1\.00, (\d+) at \.90, (\d+) at \.80", text)
    for auroc, patients in zip((1.0, 0.9, 0.8), told, strict=True):
        assert auroc_patients([auroc], [0.5]) == pytest.approx(int(patients), abs=5)


def as_number(text: str) -> tuple[float, ...]:
    return (float(text),) if re.fullmatch(r"[\d.]+", text) else ()
