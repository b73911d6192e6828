"""Folders of released models as the Hugging Face hub lays them out: found, read, or filled where there is a network."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SITE = "https://huggingface.co"
WEIGHTS = ("model.safetensors", "pytorch_model.bin", "open_clip_pytorch_model.bin")
"""What a model's weights are called there, what is safest first; another file counts if it is the only one."""
INDEXED = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
"""Which lists the files of weights that were cut up."""
SUFFIXES = (".safetensors", ".bin", ".pth", ".pt")


class HubError(ValueError):
    """A model is not here and cannot be fetched, or its folder is not whole; says what to do."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A model's folder, as it was released.

    Attributes:
        folder: with its files.
        revision: the commit, where the folder says it.
    """

    folder: Path
    revision: str | None = None

    @property
    def config(self) -> dict[str, Any]:
        """Its ``config.json``; empty where there is none."""
        path = self.folder / "config.json"
        if not path.is_file():
            return {}
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as exc:
            raise HubError(f"{path} is no JSON ({exc}): fetch it again") from exc
        return found if isinstance(found, dict) else {}

    @property
    def weights(self) -> tuple[Path, ...]:
        """The files that hold its weights, all of them.

        Raises:
            HubError: there is none, one is missing, or more than one may be meant.
        """
        names = [path.name for path in self.folder.iterdir()] if self.folder.is_dir() else []
        for name in INDEXED:
            if name in names:
                try:
                    listed = json.loads((self.folder / name).read_text(encoding="utf-8"))["weight_map"]
                except (ValueError, KeyError, TypeError) as exc:
                    raise HubError(
                        f"{self.folder / name} is no list of files of weights: fetch the model again"
                    ) from exc
                paths = tuple(self.folder / part for part in sorted(set(listed.values())))
                missing = [path.name for path in paths if not path.exists()]
                if missing:
                    raise HubError(f"{self.folder} lacks {missing[0]}, one of its {len(paths)} files of weights")
                return paths
        wanted = wanted_file(names)
        if wanted is None:
            found = ", ".join(sorted(names)) or "nothing"
            raise HubError(f"{self.folder} has no weights; expected {' or '.join(WEIGHTS[:2])}, found {found}")
        return (self.folder / wanted,)


def wanted_file(names: list[str]) -> str | None:
    """Which of a model's files holds its weights; None: none, or none more than another."""
    for name in WEIGHTS:
        if name in names:
            return name
    others = [name for name in names if name.endswith(SUFFIXES) and "/" not in name]
    return others[0] if len(others) == 1 else None


def cache_folder() -> Path:
    """Where the hub's own programs keep what they fetched."""
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "huggingface")
    return Path(os.environ.get("HF_HUB_CACHE") or Path(home, "hub"))


def find_snapshot(repo: str, *, hub: Path | None = None, revision: str | None = None) -> Snapshot | None:
    """The folder of a model, if it is here.

    Args:
        repo: ``ORG/MODEL``.
        hub: folder of such folders, as the hub's cache or plainly ``ORG/MODEL``; None: the hub's own cache.
        revision: commit or branch; None: the newest that is here.
    """
    root = hub or cache_folder()
    cached = root / f"models--{repo.replace('/', '--')}"
    if (cached / "snapshots").is_dir():
        wanted = revision or "main"
        reference = cached / "refs" / wanted
        commit = reference.read_text(encoding="utf-8").strip() if reference.is_file() else wanted
        folder = cached / "snapshots" / commit
        if not folder.is_dir() and revision is None:
            every = sorted((cached / "snapshots").iterdir(), key=lambda path: path.stat().st_mtime)
            folder = every[-1] if every else folder
        if folder.is_dir():
            return Snapshot(folder, folder.name)
    plain = root / repo
    return snapshot_at(plain) if plain.is_dir() else None


def snapshot_at(folder: Path) -> Snapshot:
    """A model's folder, given itself: a plain one, one of ``hf download --local-dir``, or one in the hub's cache."""
    snapshots = folder / "snapshots"
    if snapshots.is_dir():
        every = sorted(snapshots.iterdir(), key=lambda path: path.stat().st_mtime)
        if len(every) == 1:
            return Snapshot(every[0], every[0].name)
        reference = folder / "refs" / "main"
        if reference.is_file():
            commit = reference.read_text(encoding="utf-8").strip()
            return Snapshot(snapshots / commit, commit)
    if folder.parent.name == "snapshots":
        return Snapshot(folder, folder.name)
    for note in sorted((folder / ".cache" / "huggingface" / "download").glob("*.metadata")):
        return Snapshot(folder, note.read_text(encoding="utf-8").splitlines()[0].strip())
    return Snapshot(folder)


def how_to_get(repo: str, *, gated: bool, hub: Path | None = None) -> str:
    """The command that fills a model's folder, and what to accept before."""
    place = f" --local-dir {hub / repo}" if hub is not None else ""
    accept = f"accept its licence at {SITE}/{repo}, then `hf auth login` and " if gated else ""
    return f"{accept}`hf download {repo}{place}` (pip install huggingface_hub)"


def fetch(repo: str, *, hub: Path | None = None, revision: str | None = None, gated: bool = False) -> Snapshot:
    """A model's folder: what is here, else what the hub gives.

    Raises:
        HubError: it is not here, and the hub does not give it: there is no network, its licence was not accepted, or
            nothing of that name is there.
    """
    here = find_snapshot(repo, hub=hub, revision=revision)
    if here is not None:
        return here
    root = hub or cache_folder()
    place = root / repo if hub is not None else root / f"models--{repo.replace('/', '--')}"
    remedy = f"to fill it: {how_to_get(repo, gated=gated, hub=hub)}"
    try:
        return _fetched(repo, hub, revision)
    except ModuleNotFoundError as exc:
        raise HubError(f"{repo} is not in {place}, and without {exc.name} nothing is fetched; {remedy}") from exc
    except HubError:
        raise
    except Exception as exc:  # whatever the network, the hub and its client raise
        kind = type(exc).__name__
        if kind == "GatedRepoError":
            why = "the hub keeps it from who has not accepted its licence"
            remedy = f"to fill it: {how_to_get(repo, gated=True, hub=hub)}"
        elif kind == "RepositoryNotFoundError":
            why = "the hub has none of that name, or not for you"
        else:
            why = f"the hub could not be asked ({kind})"
        raise HubError(f"{repo} is not in {place}, and {why}; {remedy}") from exc


def _fetched(repo: str, hub: Path | None, revision: str | None) -> Snapshot:
    """The configuration and one form of the weights of a model, from the hub."""
    from huggingface_hub import HfApi, snapshot_download

    info = HfApi().model_info(repo, revision=revision)
    names = [file.rfilename for file in info.siblings or []]
    index = next((name for name in INDEXED if name in names), None)
    if index is not None:
        wanted = [index, f"{index.split('.')[0]}-*"]
    else:
        name = wanted_file(names)
        if name is None:
            raise HubError(f"{repo} has no weights that are known by their name, but {', '.join(names)}")
        wanted = [name]
    place = {"cache_dir": hub} if hub is not None else {}
    folder = snapshot_download(repo, revision=info.sha, allow_patterns=["config.json", *wanted], **place)
    return Snapshot(Path(folder), info.sha)
