"""Lines for people, on stdout and stderr, in which nothing gives their terminal orders."""

from __future__ import annotations

import sys

import typer

from pipeline.errors import printable
from stages.amounts import size


def echo(text: str) -> None:
    """What came of it, on stdout."""
    typer.echo("\n".join(map(printable, text.split("\n"))))


def say(line: str) -> None:
    """How far it is, or what is wrong, on stderr."""
    print(printable(line), file=sys.stderr, flush=True)


def peak(memory: dict[str, int]) -> str:
    """What processes held at the most, in a line."""
    largest, together = (size(memory[f"{name}_bytes"]) for name in ("largest_process", "together"))
    more = f", at most {together} in {memory['processes']} processes" if memory["processes"] > 1 else ""
    return f"memory:      {largest} at the peak{more}"
