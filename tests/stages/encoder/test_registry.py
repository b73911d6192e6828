"""The table of released encoders: every row holds together, and is found by its names."""

from __future__ import annotations

import pytest

from stages.encoder.registry import RELEASES, Release, is_known, release, unknown


@pytest.mark.parametrize("row", RELEASES, ids=lambda row: row.name)
def test_every_row_holds_together(row: Release) -> None:
    """Patches and heads fit, the feature is made of whole tokens, and it is found by its name and by its hub's."""
    card = row.card()
    assert row.size.width % row.size.heads == 0
    assert row.px % row.patch == 0
    if not row.own_code:
        assert row.dim == row.size.width * {"cls": 1, "cls+mean": 2}[row.readout]
    assert release(row.name) is release(row.hub.upper()) is row
    assert card.misfit(px=row.resize or row.px, mpp=row.mpp[0]) == []


def test_there_are_sixteen_and_more_and_no_two_alike() -> None:
    assert len({row.name for row in RELEASES}) == len({row.hub for row in RELEASES}) == len(RELEASES) >= 16


def test_an_unknown_name_is_told_the_nearest() -> None:
    assert "unknown encoder 'virchow3'; there is virchow, virchow2" in unknown("virchow3")
    assert all(row.name in unknown("?") for row in RELEASES)


def test_what_can_be_an_encoder_is_known_by_its_name() -> None:
    names = [*(name for row in RELEASES for name in (row.name, f"timm:hf-hub:{row.hub}")), "lite0", "a/B.ONNX#out"]
    assert all(map(is_known, names))
    assert not any(map(is_known, ("resnet18", "small", "weights.pt", "")))
