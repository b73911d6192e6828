"""What the demo says while it works."""

from __future__ import annotations

from pipeline.demo.demo import _every


def test_progress_is_told_from_the_first_slide_to_the_last() -> None:
    """Before the first is done nobody knows how long the rest takes."""
    said: list[str] = []
    progress = _every(2, said.append)
    for done in range(5):
        progress(done, 4)
    assert [line.partition(",")[0] for line in said] == ["slide 0/4", "slide 2/4", "slide 4/4"]
    assert ["left" in line for line in said] == [False, True, False]
