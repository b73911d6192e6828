"""Compile `jpeg_parts.c` while Saccade is installed, where a C compiler and libjpeg-turbo's headers are.

Without them the installation goes on, and tiles are decoded whole. `CC`, `CPPFLAGS`, `CFLAGS` and `LDFLAGS` are heeded;
`pip install -v` shows the line that says what came of it.
"""

from __future__ import annotations

import ctypes
import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from packaging.tags import platform_tags

SOURCE = Path(__file__).with_name("jpeg_parts.c")
PLACE = "stages/slide/libjpeg_parts.so"
FUNCTION = "decode_parts_1"


def compile_library(target: Path) -> str | None:
    """Make the library; or say in a line why there is none."""
    try:
        compiler, *_ = command = _command(target)
    except ValueError as exc:
        return f"CC, CPPFLAGS, CFLAGS or LDFLAGS cannot be read: {exc}"
    if shutil.which(compiler) is None:
        return f"no C compiler ({compiler})"
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    except OSError as exc:
        return f"{compiler} does not run: {exc}"
    if done.returncode:
        return next((line for line in done.stderr.splitlines() if "error" in line), f"{compiler} failed")
    try:
        getattr(ctypes.CDLL(str(target)), FUNCTION)
    except (OSError, AttributeError) as exc:
        return f"it does not load: {exc}"
    return None


def _command(target: Path) -> list[str]:
    """What compiles the library; a variable that is empty says as little as one that is missing."""
    compiler, preprocessor, flags, linker = (
        shlex.split(os.environ.get(name, "")) for name in ("CC", "CPPFLAGS", "CFLAGS", "LDFLAGS")
    )
    return [
        *(compiler or ["cc"]),
        *("-O2", "-fPIC", "-shared"),
        *(*preprocessor, *flags),
        *(str(SOURCE), "-o", str(target)),
        *(*linker, "-ljpeg"),
    ]


class CompileJpegParts(BuildHookInterface[Any]):
    """Put the library into the wheel, or beside its module where the project is installed to be edited."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        place = Path(self.root) / PLACE
        self._folder = Path(tempfile.mkdtemp())
        made = self._folder / place.name
        why = compile_library(made)
        if version == "editable":
            place.unlink(missing_ok=True)  # of an earlier source
        if why is not None:
            self.app.display_warning(f"JPEG tiles will be decoded whole, as {SOURCE.name} was not compiled: {why}")
        elif version == "editable":
            new = place.with_suffix(".new")
            shutil.copy(made, new)
            new.replace(place)  # in one step: half a library would end Python where it is loaded
        else:
            build_data["force_include"][str(made)] = PLACE
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{_platform()}"  # it knows nothing of Python

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


def _platform() -> str:
    """This machine's own: what is linked to its libjpeg runs on no older one."""
    return next(tag for tag in platform_tags() if not tag.startswith(("manylinux", "musllinux")))
