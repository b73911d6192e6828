"""What dask workers, and their scheduler, are asked before they get work: which Saccade they would run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import PurePath
from typing import Any

from pipeline.errors import UsageError
from pipeline.version import DISTRIBUTION, code_digest, saccade_version

ANSWER_SECONDS = 30.0
"""For all answers; where not all came, each is asked by itself for a tenth of that."""

# Asked as text: a function of ours could not even be received where our packages are not the ones that Python finds.
_WHERE = (
    "(lambda here, path: {**here, 'whole': sorted({home for home in (path.dirname(path.dirname(at)) for at in "
    "here.values() if at) if all(path.isfile(path.join(home, name, '__init__.py')) for name in here)})})"
    "({name: getattr(__import__('importlib.util').util.find_spec(name), 'origin', None) "
    "for name in ('saccade', 'pipeline', 'stages')}, __import__('os').path)"
)
_WHICH = (
    "(lambda version: (version.saccade_version(), getattr(version, 'code_digest', str)()))"
    "(__import__('pipeline.version').version)"
)


def strangers(client: Any, workers: Sequence[str]) -> dict[str, str | None]:
    """Ask a scheduler and workers of it which packages they would import.

    Returns:
        of each worker that would not run what is run here, in one line, why, and what to do; None for one that does
        not answer, as it may later.

    Raises:
        UsageError: such a line about the scheduler.
    """
    the_scheduler = f"the scheduler {client.scheduler.address}"
    where = _scheduler_says(client, _WHERE)
    refuse_strangers(the_scheduler, where)
    refuse_other_code(the_scheduler, _scheduler_says(client, _WHICH), where)
    found: dict[str, str | None] = {}
    where = _workers_say(client, _WHERE, workers)
    for worker in workers:
        try:
            refuse_strangers(f"the worker {worker}", where[worker])
        except UsageError as exc:
            found[worker] = str(exc)
        except KeyError:
            found[worker] = None
    which = _workers_say(client, _WHICH, [worker for worker in workers if worker not in found])
    for worker in workers:
        if worker in found:
            continue
        try:
            refuse_other_code(f"the worker {worker}", which[worker], where[worker])
        except UsageError as exc:
            found[worker] = str(exc)
        except KeyError:
            found[worker] = None
    return found


def refuse_strangers(name: str, found: Mapping[str, Any] | BaseException) -> None:
    """Refuse a process that would import something else than our packages, side by side as they are installed.

    Args:
        name: of the process, in words.
        found: the file that each package would be imported from, or None; "whole": which of the folders that they are
            in hold all of them, as an installation does.

    Raises:
        UsageError: so it is.
    """
    _refuse_failed(name, found)
    assert isinstance(found, Mapping)
    if found["saccade"] is None:
        raise UsageError(
            f"{name} cannot import saccade: install {DISTRIBUTION} {saccade_version()} there and restart it"
        )
    home = PurePath(found["saccade"]).parent.parent
    packages = ("saccade", "pipeline", "stages")
    for package in packages:
        if found[package] is None:
            raise UsageError(f"{name} has no {home / package}: install {DISTRIBUTION} again there and restart it")
    homes = {package: PurePath(found[package]).parent.parent for package in packages}
    if len(set(homes.values())) == 1:
        return
    whole = [PurePath(folder) for folder in found["whole"]]
    strange = [str(found[package]) for package in packages if homes[package] not in whole]
    if len(whole) == 1:  # that is where saccade is; the others hide a part of it
        raise UsageError(
            f"{name} would import {' and '.join(strange)} in place of saccade's own in {whole[0]}: "
            f"rename {'that' if len(strange) == 1 else 'those'}, or start it in another folder"
        )
    parts = ", ".join(str(found[package]) for package in packages)
    raise UsageError(
        f"{name} would import saccade from several folders ({parts}): leave one installation on its path and restart it"
    )


def refuse_other_code(name: str, which: tuple[str, str] | BaseException, where: Mapping[str, Any]) -> None:
    """Refuse a process that would run another version, or other files of the same.

    Args:
        name: of the process, in words.
        which: its version and its `code_digest`.
        where: its packages' files.

    Raises:
        UsageError: so it is.
    """
    _refuse_failed(name, which)
    assert isinstance(which, tuple)
    version, code = which
    ours = saccade_version()
    if version != ours:
        raise UsageError(
            f"{name} has saccade {version} and this is {ours}: "
            f"install the same {DISTRIBUTION} on all machines and restart it"
        )
    if code != code_digest():
        home = PurePath(str(where["saccade"])).parent.parent
        raise UsageError(
            f"{name} has other files of saccade {version}, in {home}, than are run here: "
            f"install the same {DISTRIBUTION} on all machines and restart it"
        )


def _refuse_failed(name: str, answer: object) -> None:
    if isinstance(answer, BaseException):
        told = " ".join(str(answer).split())
        raise UsageError(f"{name} cannot run saccade: {type(answer).__name__}: {told}; restart it")


def _scheduler_says(client: Any, question: str) -> Any:
    """Its answer to a Python expression."""
    try:
        return client.sync(client.run_on_scheduler, eval, question, callback_timeout=ANSWER_SECONDS)
    except (OSError, TimeoutError):
        raise
    except Exception as exc:
        return exc


def _workers_say(client: Any, question: str, workers: Sequence[str]) -> dict[str, Any]:
    """The answers of those that give one; of a question that fails there, its error."""
    if not workers:
        return {}
    how = {"on_error": "return", "callback_timeout": ANSWER_SECONDS}
    found: dict[str, Any] = {}
    try:
        found = client.sync(client.run, eval, question, workers=list(workers), **how)
    except TimeoutError:
        how["callback_timeout"] = ANSWER_SECONDS / 10
        for worker in workers if len(workers) > 1 else ():
            with suppress(TimeoutError):
                found |= client.sync(client.run, eval, question, workers=[worker], **how)
    return {worker: answer for worker, answer in found.items() if not isinstance(answer, OSError)}  # nor these answered
