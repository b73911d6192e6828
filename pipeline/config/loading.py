"""YAML and `--set section.key=value` -> `Config`; whatever is wrong is one line that names the remedy."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from pipeline.config.distil import DistilConfig
from pipeline.config.sections import Config
from pipeline.config.wording import foremost, found, in_words, nearest
from pipeline.errors import UsageError
from stages.disk import read_regular, refusal
from stages.encoder.registry import is_exported
from stages.given_places import split_measurement

_PATHS = (
    ("cohort", "table"),
    ("cohort", "slides"),
    ("cohort", "bags"),
    ("encoder", "weights"),
    ("reading", "cache"),
    ("reading", "features"),
    ("attention", "prior"),
    ("bags", "folder"),
    ("bags", "patches"),
    ("teacher", "weights"),
    ("training", "splits"),
)

Kind = TypeVar("Kind", Config, DistilConfig)


class _Loader(yaml.SafeLoader):
    """Safe YAML where 1e-3 is a number (YAML 1.1 reads a string) and a key given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(None, None, f"the key {twice!r} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML configuration, with `section.key=value` overrides on top.

    Paths in the file are relative to the file; paths in overrides are relative to the working directory, where they
    were typed.

    Raises:
        UsageError: unreadable file, bad YAML, unknown key (the nearest known one is named), value out of range.
    """
    config = _load(path, overrides, Config)
    prior = config.attention.prior
    if prior is not None and not (split_measurement(prior)[0].is_dir() or is_exported(str(prior))):
        raise UsageError(f"attention.prior: no folder or .onnx network {prior}; correct the path or leave it out")
    if config.cohort.bags is not None and not config.cohort.bags.is_dir():
        raise UsageError(f"cohort.bags: no folder {config.cohort.bags}; correct the path")
    return config


def load_distil_config(path: Path, overrides: Sequence[str] = ()) -> DistilConfig:
    """The same of `saccade distil`."""
    config = _load(path, overrides, DistilConfig)
    for name in ("folder", "patches"):
        folder = getattr(config.bags, name)
        if folder is not None and not folder.is_dir():
            raise UsageError(f"bags.{name}: no folder {folder}; correct the path")
    return config


def _load(path: Path, overrides: Sequence[str], kind: type[Kind]) -> Kind:
    try:
        data = _parse(read_regular(path).decode("utf-8-sig"), str(path))
    except OSError as exc:
        why = refusal(exc, path, writing=False)
        raise UsageError(f"cannot read the configuration {path}: {why}; a YAML file is expected") from exc
    except UnicodeDecodeError as exc:
        raise UsageError(f"cannot read the configuration {path}: it is not UTF-8 text; save it as such") from exc
    if not isinstance(data, dict):
        raise UsageError(f"{path}: expected sections ({', '.join(kind.model_fields)}), found {found(data)}")
    # a section whose keys are all commented out reads as None, and means the defaults
    data = {key: {} if value is None else value for key, value in data.items()}
    _resolve_paths(data, path.absolute().parent)
    config = _build(data, overrides, str(path), kind)
    if config.encoder.weights is not None and not config.encoder.weights.exists():
        raise UsageError(
            f"encoder.weights: no file or folder {config.encoder.weights}; correct the path or leave it out"
        )
    return config


def override_config(config: Config, overrides: Sequence[str]) -> Config:
    """A configuration (say, a checkpoint's) with `section.key=value` overrides on top; errors as in `load_config`."""
    return _build(config.model_dump(mode="json"), overrides, "configuration", Config)


def _build(data: dict[str, Any], overrides: Sequence[str], source: str, kind: type[Kind]) -> Kind:
    typed: set[str] = set()
    for override in overrides:
        dotted, equals, text = override.partition("=")
        section, dot, key = dotted.strip().partition(".")
        if not (equals and dot and section and key):
            likely = f" (for {section!r}: {nearest(section, kind)})" if section else ""
            raise UsageError(f"--set {override}: expected section.key=value, such as view.patch_px=256{likely}")
        one = {section: {key: _parse(text, f"--set {override}")}}
        _resolve_paths(one, Path.cwd())
        present = data.setdefault(section, {})
        if isinstance(present, dict):  # else the file's own fault is told
            data[section] = present | one[section]
        typed.add(f"{section}.{key}")
    try:
        return kind.model_validate(data)
    except ValidationError as exc:
        raise UsageError(_one_line(exc, source, typed, kind)) from exc


def _parse(text: str, source: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as exc:
        line = f", line {exc.problem_mark.line + 1}" if exc.problem_mark else ""
        raise UsageError(f"{source}{line}: not valid YAML: {exc.problem or exc.context}; correct that line") from exc
    except RecursionError as exc:
        raise UsageError(f"{source}: not a configuration: brackets within brackets without end") from exc
    except yaml.YAMLError as exc:  # control characters and the like: no mark to point at
        raise UsageError(f"{source}: not valid YAML: {' '.join(str(exc).split())}; save it as plain text") from exc


def _resolve_paths(data: dict[str, Any], base: Path) -> None:
    named = data.get("encoder")
    of_file = isinstance(named, dict) and is_exported(str(named.get("name", "")))
    for section, key in (*_PATHS, *([("encoder", "name")] if of_file else [])):
        values = data.get(section)
        if isinstance(values, dict) and isinstance(values.get(key), str):
            if "\0" in values[key]:
                raise UsageError(f"{section}.{key}: no path has a zero character in it; type it anew")
            values[key] = str(base / Path(values[key]).expanduser())


def _one_line(exc: ValidationError, source: str, typed: set[str], kind: type[Kind]) -> str:
    errors = foremost(exc.errors(), kind)
    dotted = ".".join(str(part) for part in errors[0]["loc"])
    where = f"--set {dotted}" if dotted in typed else ": ".join(part for part in (source, dotted) if part)
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"{where}: {in_words(errors[0], kind)}{more}"
