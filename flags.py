"""Every command-line flag, made from the fields of the config dataclasses."""

import difflib
import typing

from absl import flags as absl_flags

from input_pipeline.errors import UsageError
from loops.config import flag_fields
from loops.config.config import Config, leaves, replace

_EXAMPLES = """Examples:
  python main.py --mode=train --model=resnetv2_50 --mixed_precision
  python main.py --mode=eval --ckpt=checkpoints/RUN
  python main.py --mode=train --dataset=folder --data_dir=DIR --image_size=128 --mixed_precision
  python main.py --mode=predict --ckpt=checkpoints/RUN --image=FILE_OR_FOLDER
  tensorboard --logdir checkpoints
"""


def define():
    """Returns FlagValues with one flag for every field of the config tree that has a help text."""
    values = absl_flags.FlagValues()
    for _, fields in _iter_groups():
        for field in fields:
            _define_flag(field, values)
    return values


def parse(argv):
    """Parses a command line.

    Args:
      argv: the program's name, then the arguments.

    Returns:
      (Config, frozenset of the names of the flags that were typed).

    Raises:
      UsageError: an unknown flag or a value that the flag does not take.
    """
    values = define()
    try:
        rest = values(argv)
    except absl_flags.Error as error:
        raise UsageError(_join_lines(error)) from None
    if len(rest) > 1:
        raise UsageError(f"{rest[1]!r} is not a flag: flags look like --name=value")
    return to_config(values)


def to_config(values):
    """Builds the Config from parsed FlagValues; returns it and the names that were typed."""
    given = frozenset(name for name in values if values[name].present)
    for _, fields in _iter_groups():
        for field in fields:
            if field.choices and values[field.name].value not in field.choices:
                raise UsageError(_format_unknown_value(field, values[field.name].value))
    names = {name for name, _ in leaves(Config()) if name in values}
    return replace(Config(), {name: values[name].value for name in names}), given


def format_help():
    """The text of `--help`: the flags by group, each with its default."""
    lines = ["Trains and evaluates ImageNet classifiers.\n", _EXAMPLES]
    for title, fields in _iter_groups():
        lines.append(f"{title}\n")
        for field in fields:
            shown = f"--[no]{field.name}" if field.type is bool else f"--{field.name}"
            lines += _wrap_columns(f"  {shown}", f"{field.help} {_format_default(field)}")
            if field.choices:
                lines += _wrap_columns("", "One of: " + ", ".join(map(str, field.choices)) + ".")
        lines.append("")
    return "\n".join(lines)


_INDENT, _WIDTH = 28, 98  # columns of --help
_GROUP_TITLES = {
    "net": "Architecture",
    "data": "Data",
    "length": "Length of training",
    "optimization": "Optimisation",
    "precision": "Precision",
    "distribution": "Devices",
    "run": "Run folder",
    "evaluation": "Evaluation",
    "prediction": "Prediction",
    "importing": "Published weights",
    "fine_tuning": "Fine-tuning",
    "export": "Export, averaging, prepared sets",
    "prepare": "Preparing data",
    "service": "Data service",
    "measurement": "Benchmarks",
}


def _iter_groups():
    """Yields (title, flags) for the root of the config tree and each of its branches."""
    yield "What to do", list(flag_fields.iter_fields(Config))
    hints = typing.get_type_hints(Config)
    for name, title in _GROUP_TITLES.items():
        yield title, list(flag_fields.iter_fields(hints[name]))


def _define_flag(flag, values):
    define = {
        bool: absl_flags.DEFINE_boolean,
        int: absl_flags.DEFINE_integer,
        float: absl_flags.DEFINE_float,
        str: absl_flags.DEFINE_string,
    }[flag.type]
    define(flag.name, flag.default, flag.help, flag_values=values, module_name="flags")


def _format_default(flag):
    if flag.default is None:
        own = {
            "dropout": "the net's own",
            "learning_rate": "by --optimizer and data set, see docs/training.md",
        }
        if flag.name in own:
            return f"(default: {own[flag.name]})"
        both = flag.name in ("steps", "examples")
        return "" if both else "(default: from the dataset)"
    return "" if flag.default == "" else f"(default: {flag.default})"


def _format_unknown_value(flag, value):
    near = difflib.get_close_matches(str(value), [str(c) for c in flag.choices], 3, 0.5)
    hint = (
        f"did you mean {' or '.join(near)}?"
        if near
        else f"one of {', '.join(map(str, flag.choices))}"
    )
    return f"--{flag.name}={value}: unknown value; {hint}"


def _join_lines(error):
    return " ".join(str(error).split())


def _wrap_columns(head, text):
    """Lays out `head` in a left column and the words of `text` in a right one."""
    lines, line = [], head.ljust(_INDENT)
    if len(head) >= _INDENT:
        lines, line = [head], " " * _INDENT
    for word in text.split():
        if len(line) + len(word) + 1 > _WIDTH:
            lines.append(line.rstrip())
            line = " " * _INDENT
        line += word + " "
    return [*lines, line.rstrip()]
