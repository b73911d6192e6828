"""YAML and `--set section.key=value` -> `Config`; whatever is wrong is one line that names the remedy."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from pipeline.config.sections import Config
from pipeline.errors import UsageError

_PATHS = (("cohort", "table"), ("cohort", "slides"), ("encoder", "weights"), ("reading", "cache"))


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
    try:
        data = _parse(path.read_text(encoding="utf-8-sig"), str(path))
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8 text"
        raise UsageError(f"cannot read the configuration {path}: {reason}; give the path of a YAML file") from exc
    if not isinstance(data, dict):
        raise UsageError(f"{path}: expected sections ({', '.join(Config.model_fields)}), found {type(data).__name__}")
    # a section whose keys are all commented out reads as None, and means the defaults
    data = {key: {} if value is None else value for key, value in data.items()}
    _resolve_paths(data, path.absolute().parent)
    config = _build(data, overrides, str(path))
    if config.encoder.weights is not None and not config.encoder.weights.is_file():
        raise UsageError(f"encoder.weights: no file {config.encoder.weights}; correct the path or leave it out")
    return config


def override_config(config: Config, overrides: Sequence[str]) -> Config:
    """A configuration (say, a checkpoint's) with `section.key=value` overrides on top; errors as in `load_config`."""
    return _build(config.model_dump(mode="json"), overrides, "configuration")


def _build(data: dict[str, Any], overrides: Sequence[str], source: str) -> Config:
    typed: set[str] = set()
    for override in overrides:
        dotted, equals, text = override.partition("=")
        section, dot, key = dotted.strip().partition(".")
        if not (equals and dot and section and key):
            nearest = f" (for {section!r}: {_nearest(section)})" if section else ""
            raise UsageError(f"--set {override}: expected section.key=value, such as view.patch_px=256{nearest}")
        one = {section: {key: _parse(text, f"--set {override}")}}
        _resolve_paths(one, Path.cwd())
        present = data.get(section)
        data[section] = (present if isinstance(present, dict) else {}) | one[section]
        typed.add(f"{section}.{key}")
    try:
        return Config.model_validate(data)
    except ValidationError as exc:
        raise UsageError(_one_line(exc, source, typed)) from exc


def _parse(text: str, source: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as exc:
        line = f", line {exc.problem_mark.line + 1}" if exc.problem_mark else ""
        raise UsageError(f"{source}{line}: not valid YAML: {exc.problem or exc.context}; correct that line") from exc
    except yaml.YAMLError as exc:  # control characters and the like: no mark to point at
        raise UsageError(f"{source}: not valid YAML: {' '.join(str(exc).split())}; save it as plain text") from exc


def _resolve_paths(data: dict[str, Any], base: Path) -> None:
    for section, key in _PATHS:
        values = data.get(section)
        if isinstance(values, dict) and isinstance(values.get(key), str):
            values[key] = str(base / Path(values[key]).expanduser())


def _known_keys() -> Iterator[str]:
    for name, field in Config.model_fields.items():
        yield name
        section = field.annotation
        assert isinstance(section, type)
        assert issubclass(section, BaseModel)
        yield from (f"{name}.{key}" for key in section.model_fields)


def _nearest(unknown: str) -> str:
    """The known key most like this one, by its whole path or by its last part (for a key in the wrong section)."""

    def likeness(known: str) -> float:
        pairs = ((unknown, known), (unknown.rpartition(".")[2], known.rpartition(".")[2]))
        return max(difflib.SequenceMatcher(None, a.lower(), b.lower()).ratio() for a, b in pairs)

    return f"the nearest known key is {max(_known_keys(), key=likeness)!r}"


def _one_line(exc: ValidationError, source: str, typed: set[str]) -> str:
    errors = exc.errors()
    first = errors[0]
    dotted = ".".join(str(part) for part in first["loc"])
    where = f"--set {dotted}" if dotted in typed else f"{source}: {dotted}"
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    if first["type"] == "extra_forbidden":
        return f"{where}: unknown key; {_nearest(dotted)}{more}"
    if first["type"] == "missing":
        return f"{where}: missing; add it{more}"
    if first["type"] == "value_error":
        return f"{where}: {first['ctx']['error']}{more}"
    message = first["msg"][0].lower() + first["msg"][1:]
    return f"{where}: {message}, found {first['input']!r}{more}"
