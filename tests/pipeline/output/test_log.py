"""The log of a command: whole lines with the time, whatever is in them, and never the end of the work."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from pipeline.output.log import Log, logging_to

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d \[\d+\] (.*)")


def lines(path: Path) -> list[str]:
    found = [LINE.fullmatch(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [match[1] for match in found if match is not None] if all(found) else []


def test_what_happened_is_added_with_the_time_and_how_it_began_and_ended(tmp_path: Path) -> None:
    """Of commands one after the other; names give nobody's terminal orders, and stay in their line."""
    place = tmp_path / "run.log"
    with logging_to(place, ["saccade", "run", "my slides"]) as log:
        log("a\x1b]0;title\x07\nb\udcff: ok")
        log.last = "1 of 1 slide predicted"
    with pytest.raises(KeyboardInterrupt), logging_to(place, ["saccade"]):
        raise KeyboardInterrupt
    with pytest.raises(OSError, match="no room"), logging_to(place, ["saccade"]):
        raise OSError("no room\nat all")
    told = lines(place)
    assert re.fullmatch(r"started: saccade run 'my slides' \(on \S+; python 3\S+, saccade \S+, .*numpy .*\)", told[0])
    assert told[1:3] == ["a\\x1b]0;title\\x07\\nb\\udcff: ok", "ended: 1 of 1 slide predicted"]
    assert told[4] == "ended: interrupted; the same command goes on from here"
    assert told[6] == "ended: OSError: no room at all"
    assert len(told) == 7


def test_a_full_disk_is_told_once_and_the_log_goes_on_when_there_is_room(
    small_disk: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log = Log(small_disk / "run.log")
    log("first")
    rest = small_disk / "rest"
    with pytest.raises(OSError, match="No space"):
        rest.write_bytes(bytes(2**20))
    for number in range(200):  # the page that is begun is used up at some time
        log(f"in vain {number:0>100}")
    rest.unlink()
    log("last")
    log.close()
    told = (small_disk / "run.log").read_text().splitlines()
    assert LINE.fullmatch(told[0])[1] == "first"  # type: ignore[index]
    assert LINE.fullmatch(told[-1])[1] == "last"  # type: ignore[index]
    assert (
        capfd.readouterr().err
        == f"warning: {small_disk / 'run.log'} is not written: the disk is full: make room on it\n"
    )


@pytest.mark.parametrize("what", ["notes", "pipe", "folder"])
def test_what_is_there_and_no_log_of_ours_stays_as_it_is(
    tmp_path: Path, what: str, capfd: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "run.log"
    if what == "notes":
        place.write_text("my own notes\n")
    elif what == "pipe":
        os.mkfifo(place)
    else:
        place.mkdir()
    with logging_to(place, ["saccade"]) as log:
        log("a line")
    assert what != "notes" or place.read_text() == "my own notes\n"
    assert capfd.readouterr().err.count(f"warning: {place} is not written: ") == 1
