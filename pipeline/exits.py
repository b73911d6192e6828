"""How the command ends: what it says of an error, in one line, and the exit code."""

from __future__ import annotations

import re
from typing import Any

import typer

from pipeline.errors import COMPUTING, UsageError, stopped
from stages.install import from_folder

INTERRUPTED = 130

_Typed: type[Exception] = typer.BadParameter.__mro__[2]  # whose name is another in each release
_OURS = ("saccade", "pipeline", "stages")


def ending(error: Exception) -> tuple[str, int] | None:
    """What to say of an error, and the exit code; None where it is a fault of ours, whose traceback is wanted.

    2: nothing was started, or a package that is needed is missing or broken. 1: the system let the work go on no
    further.
    """
    if isinstance(error, UsageError):
        return str(error), 2
    if isinstance(error, _Typed):
        return _typed(error), 2
    if isinstance(error, ImportError) and (error.name or "").partition(".")[0] not in _OURS:
        return _package(error), 2
    if isinstance(error, MemoryError):
        return "there is not enough memory: work with fewer workers, samples or slides at once", 1
    if isinstance(error, OSError) and error.errno and error.filename:
        return f"{stopped(error)}; what was finished is kept, and the same command goes on from there", 1
    return None


def _typed(error: Any) -> str:
    """What was typed wrong."""
    parameter = getattr(error, "param", None)
    words = error.message if parameter is not None else error.format_message()
    words = re.sub(r"^Value error, ", "", str(words).strip()).rstrip(".")
    if parameter is not None:
        name = max(parameter.opts, key=len) if parameter.opts else parameter.name
        if not name.startswith("-"):
            name = parameter.metavar or name  # as the help calls it
        missing = type(error).__name__ == "MissingParameter"
        words = f"{name if name.startswith('-') else name.upper()}: {'missing' if missing else words}"
    elif words:
        words = words[0].lower() + words[1:]
    if words.startswith("no such command"):
        words += f"; there are {', '.join(error.ctx.command.list_commands(error.ctx))}"
    command = error.ctx.command_path if error.ctx is not None else "saccade"
    return f"{' '.join(words.split())}; see {command} --help"


def _package(error: ImportError) -> str:
    """Which package is missing, or broken, and what brings it."""
    reason = " ".join(str(error).split())
    name = (error.name or "").partition(".")[0]
    if not name:  # it says itself what to do
        return reason
    if not isinstance(error, ModuleNotFoundError):
        return f"{name} cannot be imported ({reason}): install it again, pip install --force-reinstall {_project(name)}"
    if name in COMPUTING:
        return f"this computes with {name}; it comes with Saccade: {from_folder()}"
    return f"this needs {name}, which is not installed: pip install {_project(name)}"


def _project(module: str) -> str:
    """What pip calls a module's package."""
    names = {"PIL": "pillow", "yaml": "pyyaml", "skimage": "scikit-image", "openslide": "openslide-python"}
    return names.get(module, module.replace("_", "-"))
