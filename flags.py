"""The command line: absl flags made from the fields of the config dataclasses."""

import dataclasses
from collections.abc import Callable
from typing import Any

from absl import flags as absl_flags

from input_pipeline import user_code
from input_pipeline.errors import UsageError
from input_pipeline.system import regular_files
from input_pipeline.text import summarize_error
from loops.config import flag_fields, local_paths
from loops.config.config import Config, all_flags

_EXAMPLES = """Examples:
  python main.py --mode=train --model=resnetv2_50 --mixed_precision
  python main.py --mode=eval --ckpt=checkpoints/RUN
  python main.py --mode=train --dataset=folder --data_dir=DIR --image_size=128 --mixed_precision
  python main.py --mode=predict --ckpt=checkpoints/RUN --image=FILE_OR_FOLDER
  tensorboard --logdir checkpoints
"""
_INDENT, _WIDTH = 28, 98  # columns of --help
_MAX_FLAGFILE_BYTES = 2**20


class _NumbersParser(absl_flags.ArgumentParser):
    """Parses `1,2.5,3` to a tuple of floats."""

    syntactic_help = "numbers separated by commas"

    def parse(self, argument: str | tuple[float, ...]) -> tuple[float, ...]:
        """Returns the numbers. absl turns the ValueError of another text into its own error."""
        return argument if isinstance(argument, tuple) else tuple(map(float, argument.split(",")))

    def flag_type(self) -> str:
        return "numbers"


def _define_numbers(name: str, default: tuple | None, text: str, **kwargs: Any) -> object:
    return absl_flags.DEFINE(_NumbersParser(), name, default, text, **kwargs)


_DEFINE: dict[type, Callable[..., object]] = {
    bool: absl_flags.DEFINE_boolean,
    int: absl_flags.DEFINE_integer,
    float: absl_flags.DEFINE_float,
    str: absl_flags.DEFINE_string,
    tuple: _define_numbers,
}


def define() -> absl_flags.FlagValues:
    """Returns FlagValues with all flags of the config tree."""
    values = absl_flags.FlagValues()
    for flag in all_flags().values():
        define_flag = _DEFINE[flag.type]
        define_flag(flag.name, flag.default, flag.help, flag_values=values, module_name="flags")
    return values


def parse(argv: list[str]) -> Config:
    """Parses a command line.

    Args:
      argv: the program's name, then the arguments.

    Raises:
      UsageError: an unknown flag, or a value that the flag does not accept.
    """
    absl_flags.FLAGS(argv[:1])  # absl's own flags keep their defaults
    values = define()
    words = argv[:1] + _expand_flagfiles(argv[1:], set())
    try:
        rest = values(words)
    except absl_flags.Error as error:
        raise UsageError(" ".join(str(error).split())) from None
    if len(rest) > 1:
        raise UsageError(f"{rest[1]!r} is not a flag: flags look like --name=value")
    return to_config(values)


def _expand_flagfiles(words: list[str], seen: set[str]) -> list[str]:
    """Replaces `--flagfile=FILE` by the lines of the file, as absl does, but reads regular files.

    Args:
      words: arguments, or the lines of such a file.
      seen: the files that were read before; those of `words` are added.

    Raises:
      UsageError: a file cannot be read, or is named twice.
    """
    expanded: list[str] = []
    rest = iter(words)
    for word in rest:
        name, equals, path = word.partition("=")
        if name.lstrip("-") != "flagfile" or not name.startswith("-"):
            expanded.append(word)
            if word == "--":
                break
            continue
        path = local_paths.expand("flagfile", path if equals else next(rest, ""))
        if path in seen:
            raise UsageError(f"--flagfile={path}: is named twice")
        seen.add(path)
        try:
            text = regular_files.read_bytes(path, _MAX_FLAGFILE_BYTES).decode()
        except (OSError, ValueError) as error:
            raise UsageError(f"--flagfile={path}: {summarize_error(error)}") from None
        lines = [line.strip() for line in text.splitlines()]
        flags = [line for line in lines if line and not line.startswith(("#", "//"))]
        expanded += _expand_flagfiles(flags, seen)
    return [*expanded, *rest]


def to_config(values: absl_flags.FlagValues) -> Config:
    """Builds the Config from parsed FlagValues."""
    typed = frozenset(name for name in values if values[name].present)
    leaves = {name: values[name].value for name in all_flags()}
    for name, flag in all_flags().items():
        flag.check_choice(leaves[name])
        if name in typed and flag.is_path:
            leaves[name] = local_paths.expand(name, leaves[name])
        if name in typed and flag.is_path_list:
            leaves[name] = local_paths.expand_all(name, leaves[name])
        if name in typed and flag.accepts_code:
            leaves[name] = user_code.adopt(name, leaves[name])
    return dataclasses.replace(Config().replace(**leaves), typed=typed)


def format_help() -> str:
    """Returns the text of `--help`: the flags by group, each with its default."""
    lines = ["Trains and evaluates ImageNet classifiers.\n", _EXAMPLES]
    for title, group in flag_fields.iter_groups(Config):
        lines.append(f"{title}\n")
        for flag in group:
            name = f"--[no]{flag.name}" if flag.type is bool else f"--{flag.name}"
            lines += _wrap_columns(f"  {name}", f"{flag.help} {_format_default(flag)}")
            more = f"One of: {', '.join(map(str, flag.choices))}." if flag.choices else ""
            more += " Or a function in a file: FILE.py:FUNCTION." * flag.accepts_code
            if more:
                lines += _wrap_columns("", more)
        lines.append("")
    return "\n".join(lines)


def _format_default(flag: flag_fields.FlagField) -> str:
    shown = flag.default_text if flag.default is None else flag.default
    return "" if shown == "" else f"(default: {shown})"


def _wrap_columns(head: str, text: str) -> list[str]:
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
