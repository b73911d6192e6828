"""Run the tests that need no torch on the newest Python of this machine, with the newest releases that pip finds.

torch is the last to come to a new Python; reading, tiling, caching and writing slides must not wait for it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LEFT_OUT = ("torch", "torchmetrics", "lightning")
PROBE = """
import ensurepip, sys, sysconfig, venv
ordinary = sys.implementation.name == "cpython" and not sysconfig.get_config_var("Py_GIL_DISABLED")
print(sys.version_info.minor if ordinary and sys.version_info.releaselevel == "final" else 0)
"""


def newest_python() -> tuple[int, str] | None:
    """(minor version, path) of the newest released CPython 3 that really runs here, where one is newer than this."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    named = [shutil.which(f"python3.{minor}") for minor in range(sys.version_info.minor + 1, 30)]
    found = []
    for path in (*filter(None, named), *map(str, pyenv.glob("versions/3.*/bin/python"))):
        probe = subprocess.run([path, "-c", PROBE], capture_output=True, text=True)
        if probe.returncode == 0:  # a shim without a Python behind it fails
            found.append((int(probe.stdout), path))
    newest = max(found, default=None)
    return newest if newest and newest[0] > sys.version_info.minor else None


def requirements() -> list[str]:
    """What the package and its tests need, but for `LEFT_OUT`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    needed = [*project["dependencies"], *extras["cloud"], *extras["test"]]
    return [line for line in needed if re.match(r"[\w-]+", line)[0] not in (*LEFT_OUT, project["name"])]


def main() -> int:
    newest = newest_python()
    if newest is None:
        print(f"no Python newer than 3.{sys.version_info.minor} on this machine: its tests are NOT run")
        return 0
    minor, python = newest
    print(f"the tests that need no torch, on Python 3.{minor} ({python})", flush=True)
    venv = ROOT / f".venv-3.{minor}"
    inside = str(venv / "bin" / "python")
    pip = [inside, "-m", "pip", "install", "--quiet", "--upgrade", "--upgrade-strategy", "eager"]
    subprocess.run([python, "-m", "venv", venv], check=True)
    subprocess.run([*pip, "pip", *requirements()], check=True)
    subprocess.run([*pip, "--no-deps", "--editable", ROOT], check=True)
    pytest = [inside, "-m", "pytest", "-n", "auto", "--dist", "loadfile"]
    return subprocess.run([*pytest, *sys.argv[1:]], cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main())
