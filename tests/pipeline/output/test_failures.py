"""Notes of what failed: of one file, of one command, gone with the failure, or with the file where it was moved."""

from __future__ import annotations

from pathlib import Path

from pipeline.output.failures import FOLDER, Failures


def test_a_note_is_there_until_the_slide_does_not_fail(tmp_path: Path) -> None:
    failures, slides = Failures(tmp_path, "run"), [("a", tmp_path / "a.tif"), ("b.run", tmp_path / "b.tif")]
    assert failures.read().every == []
    for name, path in slides:
        failures.note(name, path, f"{name} is damaged", run="digest")
    assert [one["slide_id"] for one in failures.read().every] == ["a", "b.run"]
    assert failures.of("b.run", tmp_path / "b.tif") == "b.run is damaged"
    assert [one["run"] for one in failures.read().every] == ["digest"] * 2
    failures.forget("a", tmp_path / "a.tif")
    assert [one["slide_id"] for one in failures.read().every] == ["b.run"]
    assert failures.of("by another name", tmp_path / "b.tif") == "b.run is damaged"
    failures.forget("by another name", tmp_path / "b.tif")
    failures.forget("never there", tmp_path / "c.tif")
    assert not (tmp_path / FOLDER).exists()


def test_a_note_is_of_one_file_until_that_is_moved_and_of_one_command(tmp_path: Path) -> None:
    """What becomes of another slide of the name says nothing of a file that is still there."""
    failures, first, second = Failures(tmp_path, "run"), tmp_path / "a.tif", tmp_path / "b" / "a.tif"
    first.touch()
    failures.note("a", first, "no")
    assert failures.of("a", second) == f"no (as {first})"
    failures.note("a", second, "nor this")
    assert (failures.of("a", first), failures.of("a", second)) == ("no", "nor this")
    failures.forget("a", second)
    assert failures.of("a", first) == "no"
    first.unlink()
    failures.note("a", second, "moved here")
    assert [note["error"] for note in failures.read().every] == ["moved here"]
    assert Failures(tmp_path, "cache").read().every == []


def test_a_note_that_is_damaged_or_cannot_be_written_says_nothing(tmp_path: Path) -> None:
    failures = Failures(tmp_path, "run")
    failures.note("a", tmp_path / "a.tif", "no")
    (note,) = (tmp_path / FOLDER).iterdir()
    note.write_text('{"slide_id": ')
    assert failures.read().every == []
    failures.forget("a", tmp_path / "a.tif")
    assert not (tmp_path / FOLDER).exists()
    Failures(tmp_path / "gone", "run").note("a", tmp_path / "a.tif", "no")
