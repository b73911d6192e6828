"""What people are told gives their terminal no orders."""

from __future__ import annotations

import pytest

from pipeline.cli.lines import echo
from pipeline.progress import Progress


def test_no_name_of_a_file_gives_the_terminal_orders(capfd: pytest.CaptureFixture[str]) -> None:
    with Progress("predicting") as progress:
        progress(1, 2, "a\x1b]0;title\x07\nb\udcff: ok")
    echo("path \x1b[31mred\nnext line")
    shown = capfd.readouterr()
    assert shown.err.partition(" ")[2] == "[1/2] a\\x1b]0;title\\x07\\nb\\udcff: ok\n"
    assert shown.out == "path \\x1b[31mred\nnext line\n"
