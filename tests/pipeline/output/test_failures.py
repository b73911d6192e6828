"""Notes of what failed: of one file, of one command, gone with the failure."""

from __future__ import annotations

from pathlib import Path

from pipeline.output.failures import FOLDER, Failures


def test_a_note_is_there_until_the_slide_does_not_fail(tmp_path: Path) -> None:
    failures, slides = Failures(tmp_path, "run"), [("a", tmp_path / "a.tif"), ("b.run", tmp_path / "b.tif")]
    assert failures.among(slides) == frozenset()
    for name, path in slides:
        failures.note(name, path, f"{name} is damaged", run="digest")
    assert failures.among(slides) == {"a", "b.run"}
    assert failures.of("b.run", tmp_path / "b.tif") == "b.run is damaged"
    assert [one["run"] for one in failures.every()] == ["digest"] * 2
    failures.forget("a")
    assert failures.among(slides) == {"b.run"}
    failures.forget("b.run")
    failures.forget("never there")
    assert not (tmp_path / FOLDER).exists()


def test_a_note_is_of_one_file_and_one_command(tmp_path: Path) -> None:
    failures = Failures(tmp_path, "run")
    failures.note("a", tmp_path / "a.tif", "no")
    assert failures.of("a", tmp_path / "elsewhere" / "a.tif") is None
    assert Failures(tmp_path, "cache").every() == []


def test_a_note_that_is_damaged_or_cannot_be_written_says_nothing(tmp_path: Path) -> None:
    failures = Failures(tmp_path, "run")
    failures.note("a", tmp_path / "a.tif", "no")
    (tmp_path / FOLDER / "a.run.json").write_text('{"slide_id": ')
    assert failures.every() == []
    assert failures.among([("a", tmp_path / "a.tif")]) == frozenset()
    Failures(tmp_path / "gone", "run").note("a", tmp_path / "a.tif", "no")
