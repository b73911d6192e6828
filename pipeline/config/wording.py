"""What is wrong with a configuration, in words: what is expected, what was found, and what was likely meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from textwrap import shorten
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from pipeline.config.sections import Config

_TYPES = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "a path"}
_LIKE = 0.6
"""How like a known key a key must be for a slip; what is less so has no nearest key."""


def nearest(unknown: str, known_by: type[BaseModel] = Config) -> str:
    """The known key most like this one, in whatever section it belongs, or else those that are known there."""
    if unknown in known_by.model_fields:
        return f"its keys are {', '.join(_keys((unknown,), known_by))}"
    meant = _meant(unknown, known_by)
    section = unknown.rpartition(".")[0]
    return f"did you mean {meant!r}?" if meant else f"known are {', '.join(_keys((section,), known_by))}"


def _meant(unknown: str, known_by: type[BaseModel]) -> str | None:
    """The known key that this one is a slip of."""
    section, _, key = unknown.rpartition(".")

    def likeness(known: str) -> float:
        of, _, name = known.rpartition(".")
        likes = difflib.SequenceMatcher(None, key.lower(), name.lower()).ratio() + 0.01 * (of == section)
        return likes + 0.005 * (key[:1].lower() == name[:1])  # 'lable' is as like to 'table' as to 'label'

    best = max((known for known in _known_keys(known_by) if "." in known or not section), key=likeness)
    return best if likeness(best) >= _LIKE else None


def foremost(errors: Sequence[Mapping[str, Any]], known_by: type[BaseModel] = Config) -> list[Mapping[str, Any]]:
    """Pydantic's errors, unknown keys first, without those keys that are missing because another is misspelt."""
    unknown = [error for error in errors if error["type"] == "extra_forbidden"]
    meant = {_meant(_dotted(error), known_by) for error in unknown}
    others = [error for error in errors if error["type"] != "extra_forbidden"]
    return [*unknown, *(error for error in others if error["type"] != "missing" or _dotted(error) not in meant)]


def _dotted(error: Mapping[str, Any]) -> str:
    return ".".join(map(str, error["loc"]))


def in_words(error: Mapping[str, Any], known_by: type[BaseModel] = Config) -> str:
    """One of pydantic's errors about a configuration of this kind."""
    place, kind = error["loc"], error["type"]
    if kind == "extra_forbidden":
        return f"unknown key; {nearest(_dotted(error), known_by)}"
    if kind == "invalid_key":
        return f"a key is text, found {found(place[-1])}; {nearest('.'.join(map(str, place)), known_by)}"
    if kind == "value_error":
        return str(error["ctx"]["error"])
    field = _field(place, known_by)
    if kind == "missing":
        return f"missing; add it: {field.description if field and field.description else 'its keys are below it'}"
    if field is None or kind == "model_type":
        return f"expected keys below it ({', '.join(_keys(place, known_by))}), found {found(error['input'])}"
    told = error["msg"] if kind == "scheme" else expected(field)  # of the table of schemes as it is now
    return f"expected {told}, found {found(error['input'])}{_hint(field, error['input'])}"


def expected(field: FieldInfo) -> str:
    """What a value may be."""
    kinds = [kind for kind in _kinds(field.annotation) if kind is not type(None)]
    unset = "" if len(kinds) == len(_kinds(field.annotation)) else ", or nothing"
    if get_origin(kinds[0]) is Literal:
        names = [str(name) for name in get_args(kinds[0])]
        return f"{', '.join(names[:-1])} or {names[-1]}{unset}"
    words = _TYPES.get(kinds[0], "a list of values")
    if any(isinstance(bound, MinLen) for bound in field.metadata):
        words += " that is not empty"
    if isinstance(field.json_schema_extra, dict):
        return f"{field.json_schema_extra['expected']}{unset}"
    bounds = {type(bound): bound for bound in field.metadata}
    low = bounds[Ge].ge if Ge in bounds else None
    below = bounds[Lt].lt if Lt in bounds else None
    high = bounds[Le].le if Le in bounds else below - 1 if kinds[0] is int and below is not None else None
    if low is not None and high is not None:
        return f"{words} from {low} to {high}{unset}"
    if low is not None:
        words += f" of at least {low}"
    if Gt in bounds:
        words += f" above {bounds[Gt].gt}"
    if high is None and below is not None:
        words += f" and below {below}" if Gt in bounds or low is not None else f" below {below}"
    if high is not None:
        words += f" and at most {high}" if Gt in bounds else f" of at most {high}"
    return words + unset


def found(value: object) -> str:
    """A value as YAML writes it."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f"the text {shorten(value, 80)!r}"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, dict):
        return f"keys ({', '.join(map(str, value))})"
    return str(value)


def _hint(field: FieldInfo, value: object) -> str:
    wanted = _kinds(field.annotation)[0]
    if wanted in (int, float) and isinstance(value, str):
        if value.replace(",", ".", 1) != value and _is_number(value.replace(",", ".", 1)):
            return "; write a point for the comma"
        return "; leave out the quotes" if _is_number(value) else ""
    if wanted is str and isinstance(value, bool):
        return "; YAML reads yes, no, on and off as true and false: put it in quotes"
    if wanted is str and value is not None and not isinstance(value, (str, list, dict)):
        return "; put it in quotes"
    if get_origin(wanted) is Literal and isinstance(value, str):
        near = difflib.get_close_matches(value.lower(), get_args(wanted), 1)
        return f"; did you mean {near[0]!r}?" if near else ""
    return ""


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _known_keys(known_by: type[BaseModel]) -> Iterator[str]:
    for name, field in known_by.model_fields.items():
        yield name
        yield from (f"{name}.{key}" for key in _section(field).model_fields)


def _section(field: FieldInfo) -> type[BaseModel]:
    assert isinstance(field.annotation, type)
    assert issubclass(field.annotation, BaseModel)
    return field.annotation


def _keys(place: tuple[Any, ...], known_by: type[BaseModel]) -> list[str]:
    section = known_by.model_fields.get(str(place[0]))
    return list(_section(section).model_fields if section else known_by.model_fields)


def _field(place: tuple[Any, ...], known_by: type[BaseModel]) -> FieldInfo | None:
    """The field of a section, None for a section itself."""
    if len(place) != 2:
        return None
    return _section(known_by.model_fields[place[0]]).model_fields[place[1]]


def _kinds(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
