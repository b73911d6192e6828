"""What most bags of a cohort have."""

from __future__ import annotations

from stages.bags.common import Tiles, most_have


def test_the_most_frequent_size_length_and_encoder_and_the_median_resolution() -> None:
    bags = [Tiles(256, 0.5, 1024, "uni"), Tiles(256, 0.50001, 1024), Tiles(256, 0.4999, 512), Tiles(224, 1.0, 1024)]
    assert most_have(bags) == Tiles(256, 0.5, 1024, "uni")
    assert most_have(bags[1:2]) == Tiles(256, 0.50001, 1024, None)
