"""How the command ends: one true line and its exit code for what a user can mend, a traceback for what we must."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable

import pytest

from pipeline import commands
from pipeline.cli.assembly import app
from pipeline.cli.entry import main

Command = Callable[..., tuple[int, str]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """`saccade ARGS` in this process: (exit code, what it says on stderr)."""

    def run(*args: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["saccade", *map(str, args)])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), capsys.readouterr().err

    return run


COMMANDS = [command.callback.__name__ for command in app.registered_commands]


@pytest.mark.parametrize(
    ("args", "line"),
    [
        ("run . --out o", "--model: missing; see saccade run --help"),
        ("run --out o --model m", "SLIDES: missing; see saccade run --help"),
        ("info a.svs b.svs", "got unexpected extra argument"),
        ("run . --out", "option '--out' requires an argument"),
        ("frob", f"no such command 'frob'; there are {', '.join(COMMANDS)}; see saccade --help"),
        ("run . --out o --model m --samples 0", "--samples: expected a whole number from 1 to 1000000, found 0;"),
        ("run . --out o --model m --samples 1.5", "--samples: expected a whole number from 1 to 1000000, found '1.5';"),
        ("run . --out o --model m --samples 9999999999", "--samples: expected a whole number from 1 to 1000000, found"),
        ("run . --out o --model m --workers -1", "--workers: expected a whole number from 0 to "),
        ("run . --out o --model m --workers 1000000", "--workers: expected a whole number from 0 to "),
        (
            "run . --out o --model m --tolerance 2",
            "--tolerance: expected a number from 1e-06 to 1, such as 0.02, found 2",
        ),
        ("run . --out o --model m --tolerance nan", "--tolerance: expected a number from 1e-06 to 1, such as 0.02, f"),
        ("run . --out o --model m --tolerance 2%", "--tolerance: expected a number from 1e-06 to 1, such as 0.02, fo"),
        (
            "run . --out o --model m --decide nan",
            "--decide: expected a number, such as 0.5, found nan",
        ),
        (
            "run . --out o --model m --decide .5 --risk .5",
            "--risk: expected a number between 0 and 0.5, such as 0.01,",
        ),
        ("run . --out o --model m --scheme topk", "--scheme: 'topk' is not one of 'systematic', 'gumbel', 'iid'; see"),
        ("info a.svs --mpp -1", "--mpp: expected a number of at least 0.001, such as 0.25, found -1;"),
        ("info a.svs --mpp inf", "--mpp: expected a number of at least 0.001, such as 0.25, found inf;"),
        ("demo --seed -1", "--seed: expected a whole number from 0 to 4294967295, found -1;"),
    ],
)
def test_what_is_typed_wrong_is_one_line_that_says_what_is_expected(command: Command, args: str, line: str) -> None:
    code, said = command(*args.split())
    assert code == 2
    assert said.startswith(f"saccade: error: {line}")
    assert said.count("\n") == 1


def test_a_misspelt_option_names_the_nearest(command: Command) -> None:
    code, said = command("run", ".", "--modle", "m")
    assert code == 2
    assert said.startswith("saccade: error: no such option: --modle")
    assert "--model" in said
    assert said.count("\n") == 1


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(*args: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(commands, "train", fail)


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "out/m"), 1, "stopped at out/m: the disk is full: make room"),
        (OSError(errno.EROFS, "Read-only file system", "out/m"), 1, "stopped at out/m: its file system is read-only"),
        (OSError(errno.EMFILE, "Too many open files", "a.svs"), 1, "stopped at a.svs: too many files are open: raise"),
        (
            OSError(errno.EIO, "Input/output error", "a.svs"),
            1,
            "stopped at a.svs: the disk or the network answered 'Input/output error', several",
        ),
        (MemoryError(), 1, "there is not enough memory: work with fewer"),
        (
            ModuleNotFoundError("No module named 'torch'", name="torch"),
            2,
            "computes with torch; it comes with Saccade: in Saccade's folder, pip install -e .",
        ),
        (
            ModuleNotFoundError("No module named 'pydicom'", name="pydicom.tag"),
            2,
            "needs pydicom, which is not installed: pip install pydicom",
        ),
        (
            ModuleNotFoundError("Couldn't locate it. Try `pip install openslide-bin`"),
            2,
            "Try `pip install openslide-bin`",
        ),
        (
            ImportError("cannot import name 'jpeg8_decode'\nfrom 'imagecodecs'", name="imagecodecs"),
            2,
            "imagecodecs cannot be imported (cannot import name 'jpeg8_decode' from 'imagecodecs'): install it again",
        ),
    ],
)
def test_what_the_machine_refuses_is_one_line(
    command: Command, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int, words: str
) -> None:
    failing(monkeypatch, error)
    ended, said = command("train", "c.yaml", "--out", "out")
    assert ended == code
    assert words in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    "error", [KeyError("value"), ModuleNotFoundError("No module named 'pipeline.gone'", name="pipeline.gone")]
)
def test_a_fault_of_ours_keeps_its_traceback(
    command: Command, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    failing(monkeypatch, error)
    code, said = command("train", "c.yaml", "--out", "out")
    assert code == 3
    assert "Traceback" in said
    assert "in fail\n" in said
    assert said.splitlines()[-1].startswith(f"saccade: internal error: {type(error).__name__}")


def test_an_interrupt_says_how_to_go_on(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, KeyboardInterrupt())
    code, said = command("train", "c.yaml", "--out", "out")
    assert (code, "the same command goes on from there" in said, said.count("\n")) == (130, True, 1)
