"""Reads the flags off the config dataclasses. All facts about a flag are on its field.

A field is a flag if its annotation carries a help text: `Annotated[type, help, facts]`. The facts
are a dict of attributes of `FlagField`.
"""

import dataclasses
import difflib
import functools
import re
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any

from input_pipeline import user_code
from input_pipeline.errors import UsageError
from loops.config.modes import MODEL_MODES


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlagField:
    """One flag.

    Attributes:
      name: name of the flag and of the field.
      type: bool, int, float, str, or tuple for numbers separated by commas.
      default: None if the data set or another flag decides.
      help: text of `--help`.
      choice_source: the accepted values, or a function of a registry that returns them; () for any.
      accepts_paths: a value with a slash or a dot is a path and not one of the choices.
      minimum, maximum: inclusive bounds; None for no bound.
      below: exclusive upper bound; None for no bound.
      example: a valid value, which the error message shows.
      modes: the modes that use the flag.
      common_in: the modes whose help shows the flag first.
      needed_by: what to do if the flag is missing, by mode that needs it.
      other_names: what other programs call the flag, separated by spaces.
      other_values: what other programs call its choices, simplified, with our names.
      benchmarks: the benchmarks that use the flag.
      hints: what to do instead, by mode, if the mode does not use the flag.
      on_resume: may differ from the run that is resumed. It is also the default of `on_eval` and
        `on_replay`, and its opposite is the default of `affects_training`.
      on_eval: may differ from the run that is evaluated, exported, averaged or used to predict.
      on_replay: may differ from the run that is replayed.
      affects_training: a change alters the losses of the following steps.
      in_recipe: a recipe may set it. The default is true for what affects training, except files.
      with_logits: may be combined with `--logits`.
      with_watch: may be combined with `--watch`.
      is_length: one of the flags that set the length of training.
      is_path: names a file or a folder.
      is_path_list: names files or folders, separated by commas.
      is_output_file: names a file that the command writes.
      is_lists_only: only `--dataset=lists` uses it.
      is_optimizer_specific: a recipe's value is right for the recipe's optimizer only.
      is_residual_only: only nets with residual blocks have it.
      is_training_only: the trained net computes the same function without it.
      is_list: takes several of the choices, separated by commas, or none.
      accepts_code: also takes functions of a user's file, see `user_code`.
      default_text: what `--help` shows for a default of None.
    """

    name: str
    type: type
    default: bool | int | float | str | tuple | None
    help: str
    choice_source: tuple | Callable[[], tuple] = ()
    accepts_paths: bool = False
    minimum: float | None = None
    maximum: float | None = None
    below: float | None = None
    example: str = ""
    modes: tuple[str, ...] = ()
    common_in: tuple[str, ...] = ()
    needed_by: dict[str, str] = dataclasses.field(default_factory=dict)
    other_names: str = ""
    other_values: dict[str, str] = dataclasses.field(default_factory=dict)
    benchmarks: tuple[str, ...] = ()
    hints: dict[str, str] = dataclasses.field(default_factory=dict)
    on_resume: bool = False
    on_eval: bool = False
    on_replay: bool = False
    affects_training: bool = True
    in_recipe: bool = False
    with_logits: bool = False
    with_watch: bool = True
    is_length: bool = False
    is_path: bool = False
    is_path_list: bool = False
    is_output_file: bool = False
    is_lists_only: bool = False
    is_optimizer_specific: bool = False
    is_residual_only: bool = False
    is_training_only: bool = False
    is_list: bool = False
    accepts_code: bool = False
    default_text: str = "from the data set"

    @property
    def choices(self) -> tuple:
        """The accepted values, or () for any."""
        source = self.choice_source
        return tuple(source() if callable(source) else source)

    def convert(self, text: str) -> Any:
        """Returns the value that a text stands for.

        Raises:
          ValueError: it stands for no value of the flag's type.
        """
        try:
            return _CONVERT[self.type](text)
        except (ValueError, KeyError):
            raise ValueError(f"must be {KINDS[self.type]}") from None

    def check_choice(self, value: Any) -> None:
        """Raises UsageError for a value that is not one of the choices; suggests similar ones."""
        if self.is_list:
            for part in value.split(",") if value else ():
                dataclasses.replace(self, is_list=False).check_choice(part)
            return
        if not self.choices or value in self.choices:
            return
        if self.accepts_code and user_code.is_typed(value):
            return
        if self.accepts_paths and {"/", "."} & {*str(value)}:
            return
        if self.accepts_code and str(value).endswith(".py"):
            raise UsageError(f"--{self.name}={value}: names no function; write {value}:FUNCTION")
        choices = [str(choice) for choice in self.choices]
        # Of names that differ only in dashes, dots and capital letters, one is meant.
        known = {_simplify(choice): choice for choice in choices} | self.other_values
        if _simplify(str(value)) in known:
            similar = [known[_simplify(str(value))]]
        else:
            similar = difflib.get_close_matches(str(value).lower(), choices, 3, 0.5)
        hint = (
            f"did you mean {' or '.join(similar)}?"
            if similar
            else f"give one of {', '.join(choices)}"
        )
        raise UsageError(f"--{self.name}={value}: unknown value; {hint}")

    def check_range(self, value: float | None) -> None:
        """Raises UsageError for a number that is out of range; None is always in range."""
        if value is None:
            return
        low, high, below = self.minimum, self.maximum, self.below
        is_outside = (
            (low is not None and value < low)
            or (high is not None and value > high)
            or (below is not None and value >= below)
        )
        if not is_outside:
            return
        bounds = []
        if low is not None:
            bounds.append(f"at least {low}")
        if high is not None:
            bounds.append(f"at most {high}")
        if below is not None:
            bounds.append(f"below {below}")
        example = f", as in {self.example}" if self.example else ""
        raise UsageError(f"--{self.name}={value}: must be {' and '.join(bounds)}{example}")


def _simplify(name: str) -> str:
    """Returns the letters and digits of a name, in small letters."""
    return re.sub("[^a-z0-9]", "", name.lower())


_BOOLEANS = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}
_CONVERT: dict[type, Callable[[str], Any]] = {
    bool: lambda text: _BOOLEANS[text.lower()],
    int: int,
    float: float,
    str: str,
    tuple: lambda text: tuple(map(float, text.split(","))),
}
# What a value of each type must be.
KINDS: dict[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    tuple: "numbers separated by commas",
}


@functools.cache
def get_flag_fields(
    cls: type,
    modes: tuple[str, ...] = MODEL_MODES,
    benchmarks: tuple[str, ...] | None = None,
) -> tuple[FlagField, ...]:
    """Returns the flags of one config dataclass, in order; its nested dataclasses are left out.

    Args:
      cls: config dataclass.
      modes: the modes of a flag that does not name any.
      benchmarks: the benchmarks of a flag that does not name any. None: step, eval and train, if
        the mode train or eval uses the flag; else no benchmark.
    """
    hints = typing.get_type_hints(cls, include_extras=True)
    flags = []
    for field in dataclasses.fields(cls):
        hint = hints[field.name]
        if typing.get_origin(hint) is not typing.Annotated:
            continue
        kind, text, *more = typing.get_args(hint)
        if text is None or dataclasses.is_dataclass(kind):
            continue
        facts = {"modes": modes, **(more[0] if more else {})}
        if typing.get_origin(kind) is types.UnionType:  # `int | None`
            kind = typing.get_args(kind)[0]
        if typing.get_origin(kind) is typing.Literal:
            kind, facts["choices"] = str, typing.get_args(kind)
        if typing.get_origin(kind) is tuple:
            kind = tuple
        facts["choice_source"] = facts.pop("choices", ())
        if benchmarks is None:
            is_used = {"train", "eval"} & {*facts["modes"]}
            facts.setdefault("benchmarks", ("step", "eval", "train") if is_used else ())
        else:
            facts.setdefault("benchmarks", benchmarks)
        on_resume = facts.get("on_resume", False)
        facts = {
            "on_eval": on_resume,
            "on_replay": on_resume,
            "affects_training": not on_resume,
            **facts,
        }
        is_file = any(facts.get(fact) for fact in ("is_path", "is_path_list", "is_output_file"))
        is_for_training = "train" in facts["modes"] and facts["affects_training"]
        facts.setdefault("in_recipe", is_for_training and not is_file)
        flags.append(
            FlagField(
                name=field.name,
                type=kind,
                default=typing.cast("bool | int | float | str | tuple | None", field.default),
                help=text,
                **facts,
            )
        )
    return tuple(flags)


def iter_groups(root: type) -> Iterator[tuple[str, tuple[FlagField, ...]]]:
    """Yields (title, flags) for the root of the config tree and for each of its branches.

    A branch is a field of the root: `Annotated[dataclass, title, facts]`. Its facts are the
    `modes` and `benchmarks` of flags that do not name any.
    """
    yield "Mode", get_flag_fields(root)
    cls: type
    for hint in typing.get_type_hints(root, include_extras=True).values():
        if typing.get_origin(hint) is typing.Annotated:
            cls, title, *facts = typing.get_args(hint)
            if dataclasses.is_dataclass(cls):
                yield title, get_flag_fields(cls, **(facts[0] if facts else {}))
