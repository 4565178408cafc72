"""Checks JSON that strangers may have written against the types that the code declares."""

import dataclasses
import os
import reprlib
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any, Literal, NotRequired

# JSON values of other Python types than their hints. An integer is accepted as a float.
_JSON_TYPES: dict[Any, tuple[type, ...]] = {
    float: (int, float),
    tuple: (list, tuple),
    list: (list, tuple),
}
_INT64 = 2**63


def convert(value: Any, hint: Any, name: str) -> Any:
    """Returns a value of JSON in the type of a hint.

    Hints are those of fields: numbers, text, `X | None`, literals, tuples, dicts, typed dicts and
    dataclasses. Unknown keys of typed dicts and dataclasses are accepted, because another version
    may have written them. A function in `Annotated` returns what is wrong with a value, or "".

    Args:
      value: the value.
      hint: type hint.
      name: of the value, for the message.

    Raises:
      ValueError: the value has another type, or cannot be used.
    """
    origin, arguments = typing.get_origin(hint) or hint, typing.get_args(hint)
    if origin is Any:
        return value
    if origin is NotRequired:
        return convert(value, arguments[0], name)
    if origin is Annotated:
        value = convert(value, arguments[0], name)
        for check in filter(callable, arguments[1:]):
            _require(not (problem := check(value)), f"{name} {problem}")
        return value
    if origin in (types.UnionType, typing.Union):
        fitting = [kind for kind in arguments if type(value) in _json_types(kind)]
        _require(bool(fitting), _describe(name, value, hint))
        return convert(value, fitting[0], name)
    if origin is Literal:
        _require(value in arguments, _describe(name, value, hint))
        return value
    _require(type(value) in _json_types(hint), _describe(name, value, hint))
    if origin in (tuple, list):
        return _convert_items(value, origin, arguments, name)
    if origin is dict:
        key, item = arguments
        return {convert(k, key, name): convert(v, item, f"{name}[{k!r}]") for k, v in value.items()}
    if typing.is_typeddict(origin) or dataclasses.is_dataclass(origin):
        return _convert_fields(value, origin, name)
    if type(value) is int:
        _require(-_INT64 <= value < _INT64, f"{name} is too large")
        return origin(value)
    if origin is str:
        _require(_is_usable_text(value), f"{name} is {value!r:.80}, which is not valid text")
    return value


def at_least(minimum: int) -> Callable[[float], str]:
    """Returns the check, for `Annotated`, that a number has a minimum."""
    return lambda value: "" if value >= minimum else f"is {value}, and must be at least {minimum}"


def at_most(maximum: float) -> Callable[[float], str]:
    """Returns the check, for `Annotated`, that a number has a maximum."""
    return lambda value: "" if value <= maximum else f"is {value}, and must be at most {maximum}"


def is_file_name(value: str) -> str:
    """Returns what is wrong with the name of a file that must lie in the same folder, or ""."""
    if not value or "/" in value or value in (".", ".."):
        return f"is {value!r:.80}, and must be a file name without a folder"
    return ""


def _convert_items(value: Any, origin: type, arguments: tuple, name: str) -> Any:
    if origin is list or arguments[-1] is Ellipsis:
        arguments = arguments[:1] * len(value)
    _require(len(value) == len(arguments), f"{name} has {len(value)} items, not {len(arguments)}")
    pairs = zip(value, arguments, strict=True)
    return origin(convert(v, hint, f"{name}[{i}]") for i, (v, hint) in enumerate(pairs))


def _convert_fields(value: dict[str, Any], cls: Any, name: str) -> Any:
    hints = typing.get_type_hints(cls, include_extras=True)
    values = {k: convert(value[k], hint, k) for k, hint in hints.items() if k in value}
    if dataclasses.is_dataclass(cls):
        fields = dataclasses.fields(cls)
        required = {f.name for f in fields if f.default is f.default_factory}  # both are missing
    else:
        required = cls.__required_keys__
    missing = sorted(required - values.keys())
    _require(not missing, f"{name} has no {', '.join(missing)}")
    return {**value, **values} if typing.is_typeddict(cls) else cls(**values)


def _json_types(hint: Any) -> tuple[type, ...]:
    """Returns the Python types of the JSON values that a hint accepts."""
    origin = typing.get_origin(hint) or hint
    if origin in (Annotated, NotRequired):
        return _json_types(typing.get_args(hint)[0])
    if origin is Literal:
        return tuple({type(choice) for choice in typing.get_args(hint)})
    if typing.is_typeddict(origin) or dataclasses.is_dataclass(origin):
        return (dict,)
    return _JSON_TYPES.get(origin, (origin,))


def _is_usable_text(value: str) -> bool:
    """Returns whether text can be a file name: surrogates stand for bytes that are not UTF-8."""
    try:
        return b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:
        return False


def _describe(name: str, value: Any, hint: Any) -> str:
    expected = (
        getattr(hint, "__name__", str(hint)) if typing.get_origin(hint) is None else str(hint)
    )
    return f"{name} is {reprlib.repr(value)}, expected {expected.replace('typing.', '')}"


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)
