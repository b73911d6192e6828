"""CITATION.cff is of this release, and cites the method's paper, too."""

from __future__ import annotations

import tomllib

import yaml
from makers import ROOT

CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_it_is_of_this_release() -> None:
    assert CITATION["version"] == PROJECT["version"]
    assert CITATION["license"] == PROJECT["license"]
    assert set(CITATION["keywords"]) == set(PROJECT["keywords"])
    assert CITATION["authors"][0]["name"] in (ROOT / "LICENSE").read_text(encoding="utf-8")


def test_it_has_what_its_format_asks_for() -> None:
    assert CITATION["cff-version"] == "1.2.0"
    for cited in (CITATION, CITATION["preferred-citation"]):
        assert {"authors", "title", "type"} <= set(cited)
    assert CITATION["message"]


def test_it_cites_the_paper_that_the_readme_names() -> None:
    paper = CITATION["preferred-citation"]
    told = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert f"*{paper['title']}*, ICML {paper['year']}" in told
    assert all(author["family-names"] in told for author in paper["authors"])
