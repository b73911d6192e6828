"""How the command begins and ends."""

from __future__ import annotations

import io
import os
import sys
import traceback

from pipeline.cli.assembly import app
from pipeline.cli.lines import say
from pipeline.exits import INTERRUPTED, ending
from pipeline.garbage import alone
from pipeline.run.interrupt import exit_code, interruptible


def main() -> None:
    """Entry point: errors become one line with the remedy, and the exit codes that the README states."""
    alone()
    # threads of torch that wait for each other by spinning take nine times as long where another program has a core
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    debug = "--debug" in sys.argv
    if debug:  # wanted before or after the command's name
        sys.argv.remove("--debug")
    if isinstance(sys.stdout, io.TextIOWrapper):  # files have names that not every terminal can show
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with interruptible():
            code = app(prog_name="saccade", standalone_mode=False) or 0
    except Exception as exc:
        if debug:
            raise
        if type(exc).__name__ == "NoArgsIsHelpError":
            exc.show()  # type: ignore[attr-defined]
            sys.exit(2)
        told = ending(exc)
        if told is None:  # a fault of ours: nobody will see it again as it was
            traceback.print_exc()
            say(f"saccade: internal error: {type(exc).__name__}: {exc}; report it, with the lines above")
            sys.exit(3)
        say(f"saccade: error: {told[0]}")
        code = told[1]
    if code == INTERRUPTED:  # typer's answer to Ctrl-C
        say("saccade: interrupted; what was finished is kept, and the same command goes on from there")
        code = exit_code()
    sys.exit(code)
