"""Configs as JSON, written by this version or by another."""

import dataclasses
import pathlib
import typing
from typing import Any

from absl import logging


def to_json(config: Any) -> dict[str, Any]:
    """Returns a config dataclass as nested dicts; `typed` is left out."""
    values = dataclasses.asdict(config)
    values.pop("typed", None)
    return values


def from_json(cls: type, data: dict[str, Any], where: pathlib.Path | str) -> Any:
    """Rebuilds a config dataclass from its JSON form.

    Missing fields take their defaults and unknown fields are ignored. The log names both, because
    another version wrote the file.

    Args:
      cls: config dataclass.
      data: what `to_json` returned.
      where: file that it comes from, for the log.
    """
    missing, unknown = [], []
    config = _from_json(cls, data, missing, unknown)
    if missing:
        logging.warning("%s: no %s; using the defaults", where, ", ".join(missing))
    if unknown:
        logging.warning("%s: unknown fields are ignored: %s", where, ", ".join(unknown))
    return config


def _require_type(name: str, value: Any, hint: Any) -> None:
    """Raises TypeError if a field cannot have the value. An int is accepted as a float."""
    types = [typing.get_origin(t) or t for t in typing.get_args(hint) or (hint,)]
    if typing.get_origin(hint) is typing.Literal:
        types = [str]
    if type(value) not in types and not (type(value) is int and float in types):
        expected = " or ".join(t.__name__ for t in types)
        raise TypeError(f"{name} is {value!r}, expected {expected}")


def _from_json(cls: type, data: dict[str, Any], missing: list[str], unknown: list[str]) -> Any:
    """Implements `from_json`; appends the names of fields that only one side has."""
    values = {}
    fields = [field.name for field in dataclasses.fields(cls) if field.compare]
    hints = typing.get_type_hints(cls)
    for name in fields:
        if name not in data:
            missing.append(name)
        elif dataclasses.is_dataclass(hints[name]):
            values[name] = _from_json(hints[name], data[name], missing, unknown)
        else:
            is_list = isinstance(data[name], list)  # JSON has no tuples, and configs have no lists
            values[name] = tuple(data[name]) if is_list else data[name]
            _require_type(name, values[name], hints[name])
    unknown += sorted(set(data) - set(fields))
    return cls(**values)
