"""Reads off a config dataclass which flags its fields make, and which values they take."""

import dataclasses
import types
import typing


@dataclasses.dataclass(frozen=True)
class FlagField:
    """A field whose annotation carries a help text: `Annotated[type, help, choices]`.

    Attributes:
      name: of the flag and the field.
      type: bool, int, float or str.
      default: None where the dataset or another flag decides.
      help: one sentence.
      choices: the values that it takes, or () for any.
    """

    name: str
    type: type
    default: object
    help: str
    choices: tuple


def iter_fields(cls):
    """Yields the FlagFields of a config dataclass, in order."""
    hints = typing.get_type_hints(cls, include_extras=True)
    for field in dataclasses.fields(cls):
        hint = hints[field.name]
        if typing.get_origin(hint) is not typing.Annotated:
            continue
        kind, text, *choices = typing.get_args(hint)
        if typing.get_origin(kind) is types.UnionType:  # `int | None`
            kind = typing.get_args(kind)[0]
        if typing.get_origin(kind) is typing.Literal:
            kind, choices = str, [typing.get_args(kind)]
        choices = choices[0] if choices else ()
        choices = tuple(choices() if callable(choices) else choices)
        yield FlagField(field.name, kind, field.default, text, choices)
