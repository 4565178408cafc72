"""Configs as JSON, written by this version or by another."""

import dataclasses
import pathlib
import typing
from typing import Any

from absl import logging

from input_pipeline.system import typed_json


def to_json(config: Any) -> dict[str, Any]:
    """Returns a config dataclass as nested dicts, without the fields that are not compared."""
    values = {f.name: getattr(config, f.name) for f in dataclasses.fields(config) if f.compare}
    return {n: to_json(v) if dataclasses.is_dataclass(v) else v for n, v in values.items()}


def from_json(cls: type, data: dict[str, Any], where: pathlib.Path | str) -> Any:
    """Rebuilds a config dataclass from its JSON form.

    Missing fields take their defaults and unknown fields are ignored. The log names both, because
    another version wrote the file.

    Args:
      cls: config dataclass.
      data: what `to_json` returned.
      where: file that it comes from, for the log.

    Raises:
      ValueError: a value has the wrong type.
    """
    missing, unknown = [], []
    config = _from_json(cls, data, "config", missing, unknown)
    if missing:
        logging.warning("%s: no %s; using the defaults", where, ", ".join(missing))
    if unknown:
        logging.warning("%s: unknown fields are ignored: %s", where, ", ".join(unknown))
    return config


def _from_json(cls: type, data: Any, where: str, missing: list[str], unknown: list[str]) -> Any:
    """Implements `from_json`; appends the names of fields that only one side has."""
    data = typed_json.convert(data, dict[str, Any], where)
    values = {}
    fields = [field.name for field in dataclasses.fields(cls) if field.compare]
    hints = typing.get_type_hints(cls)
    for name in fields:
        if name not in data:
            missing.append(name)
        elif dataclasses.is_dataclass(hints[name]):
            values[name] = _from_json(hints[name], data[name], name, missing, unknown)
        else:
            values[name] = typed_json.convert(data[name], hints[name], name)
    unknown += sorted(set(data) - set(fields))
    return cls(**values)
