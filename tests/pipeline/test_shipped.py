"""The configurations that come with the program are found; `.ci/run` sees to those in a wheel."""

from makers import ROOT

from pipeline.config import load_config
from pipeline.shipped import shipped_config


def test_a_checkout_has_them_at_its_top() -> None:
    path = shipped_config("demo.yaml")
    assert path == ROOT / "configs" / "demo.yaml"
    load_config(path)
