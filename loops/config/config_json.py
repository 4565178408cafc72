"""A config as it is read back from JSON, written by this version or by another."""

import dataclasses
import typing

from absl import logging


def from_json(cls, data, where):
    """Rebuilds a config dataclass from its JSON form.

    Fields that the file lacks take their defaults and fields that it has too many are left out;
    the log says so in one line, since such a run was written by another version.
    """
    lacking, unknown = [], []
    config = _from_json(cls, data, lacking, unknown)
    if lacking:
        logging.warning("%s: no %s; the defaults are taken", where, ", ".join(lacking))
    if unknown:
        logging.warning("%s: not known here and left out: %s", where, ", ".join(unknown))
    return config


def _require_type(name, value, hint):
    """Raises TypeError for a value that the field could not have; an int is a float as well."""
    types = typing.get_args(hint) or (hint,)
    if typing.get_origin(hint) is typing.Literal:
        types = (str,)
    fits = type(value) in types or (type(value) is int and float in types)
    if not fits:
        wanted = " or ".join(t.__name__ for t in types)
        raise TypeError(f"{name} is {value!r}, not of {wanted}")


def _from_json(cls, data, lacking, unknown):
    """As `from_json`; appends the names of fields that only one side has."""
    values = {}
    known = {f.name: f for f in dataclasses.fields(cls)}
    hints = typing.get_type_hints(cls)
    for name in known:
        if name not in data:
            lacking.append(name)
        elif dataclasses.is_dataclass(hints[name]):
            values[name] = _from_json(hints[name], data[name], lacking, unknown)
        else:
            is_list = isinstance(data[name], list)  # JSON has no tuples, a config no lists
            values[name] = tuple(data[name]) if is_list else data[name]
            _require_type(name, values[name], hints[name])
    unknown += sorted(set(data) - set(known))
    return cls(**values)
