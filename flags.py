"""The command line: absl flags made from the fields of the config dataclasses."""

import dataclasses
import functools
import re
from collections.abc import Callable
from typing import Any

from absl import flags as absl_flags

from input_pipeline import user_code
from input_pipeline.errors import UsageError
from input_pipeline.system import regular_files
from input_pipeline.text import summarize_error
from loops.config import flag_fields, foreign_flags, local_paths, modes
from loops.config.config import Config, all_flags

_TITLE = "imagenet-loops trains and evaluates ImageNet classifiers.\n"
_EXAMPLES = """Examples:
  python main.py --mode=train --model=resnetv2_50 --run_name=first
  python main.py --mode=eval --ckpt=checkpoints/first
  python main.py --mode=predict --ckpt=checkpoints/first --image=PHOTO.jpg
  python main.py --mode=train --dataset=folder --data_dir=DIR --image_size=128
  tensorboard --logdir checkpoints
"""
_MORE = """  python main.py --mode=train --help    the flags of a mode
  python main.py --helpfull             all flags
"""
_HELP_WORDS = ("--help", "-help", "-h", "--helpfull")
_INDENT, _WIDTH = 28, 80  # columns of --help
_MAX_FLAGFILE_BYTES = 2**20


class _Parser(absl_flags.ArgumentParser):
    """Parses the values of one flag."""

    def __init__(self, flag: flag_fields.FlagField) -> None:
        self._flag = flag

    def parse(self, argument: Any) -> Any:
        """Returns the value of a text, or a value as it is.

        Raises:
          ValueError: absl turns it into its own error.
        """
        return self._flag.convert(argument) if isinstance(argument, str) else argument

    def flag_type(self) -> str:
        return self._flag.type.__name__


def define() -> absl_flags.FlagValues:
    """Returns FlagValues with all flags of the config tree."""
    values = absl_flags.FlagValues()
    for flag in all_flags().values():
        define_flag: Callable[..., object] = (
            absl_flags.DEFINE_boolean
            if flag.type is bool
            else functools.partial(absl_flags.DEFINE, _Parser(flag))
        )
        define_flag(flag.name, flag.default, flag.help, flag_values=values, module_name="flags")
    return values


def parse(argv: list[str]) -> Config:
    """Parses a command line.

    Args:
      argv: the program's name, then the arguments.

    Raises:
      UsageError: unknown flags and other words, or a value that a flag does not accept.
    """
    absl_flags.FLAGS(argv[:1])  # absl's own flags keep their defaults
    values = define()
    values.set_gnu_getopt()  # read the flags after a word that is no flag, too
    words = argv[:1] + _expand_flagfiles(argv[1:], set())
    try:
        rest = values(words, known_only=True)[1:]
    except absl_flags.IllegalFlagValueError as error:
        text = str(error).removeprefix("flag ")
        if " boolean flag" in text:
            text = f"{text.partition(': (')[0]}: must be {flag_fields.KINDS[bool]}"
        raise UsageError(text) from None
    except absl_flags.Error as error:
        raise UsageError(" ".join(str(error).split())) from None
    if answer := foreign_flags.answer(rest):
        raise UsageError(answer)
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
            text = regular_files.read_bytes(path, _MAX_FLAGFILE_BYTES).decode("utf-8-sig")
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


def find_help(argv: list[str]) -> str:
    """Returns the help that a command line asks for; "" if it asks for none."""
    if "--helpfull" in argv:
        return format_help()
    if not {*_HELP_WORDS} & {*argv[1:]}:
        return ""
    typed = re.findall(r" --?mode[= ](\S+)", " ".join(argv))
    if not typed:
        return format_overview()
    all_flags()["mode"].check_choice(typed[-1])
    return format_help(typed[-1])


def format_overview() -> str:
    """Returns the text of `--help` without a mode: the modes and examples."""
    lines = [_TITLE, "Modes:"]
    lines += [f"  --mode={name:<14}{mode.help}" for name, mode in modes.MODES.items()]
    return "\n".join([*lines, "", _EXAMPLES, "Help:", _MORE])


def _is_of_use(flag: flag_fields.FlagField, mode: str) -> bool:
    """Returns whether a flag can change what a mode does."""
    if mode == "benchmark":
        return bool(flag.benchmarks)
    may_differ_from_run = flag.on_replay if mode == "repro" else flag.on_eval
    is_fixed = mode in modes.RUN_MODES and not may_differ_from_run
    return mode in flag.modes and not is_fixed


def _list_groups(mode: str) -> list[tuple[str, list[flag_fields.FlagField]]]:
    """Returns (title, flags) of a mode, the common ones first; of all modes if it is empty."""
    groups = [(title, [*group]) for title, group in flag_fields.iter_groups(Config)]
    if not mode:
        return groups
    used = [
        (title, [f for f in group if f.name != "mode" and _is_of_use(f, mode)])
        for title, group in groups
    ]
    common = [flag for _, group in used for flag in group if mode in flag.common_in]
    common.sort(key=lambda flag: mode not in flag.needed_by)
    rest = [(title, [f for f in group if mode not in f.common_in]) for title, group in used]
    return [("Most used", common), *(pair for pair in rest if pair[1])]


def format_help(mode: str = "") -> str:
    """Returns the flags of a mode, or of all, by group, each with its default."""
    lines = [f"--mode={mode}: {modes.MODES[mode].help}\n"] if mode else [_TITLE, _EXAMPLES]
    if mode in modes.RUN_MODES:
        lines.append("The other flags are those that the run was trained with.\n")
    for title, group in _list_groups(mode):
        lines.append(f"{title}\n")
        for flag in group:
            name = f"--[no]{flag.name}" if flag.type is bool else f"--{flag.name}"
            lines += _wrap_columns(f"  {name}", f"{flag.help} {_format_default(flag, mode)}")
            more = f"One of: {', '.join(map(str, flag.choices))}." if flag.choices else ""
            more += " Or a function in a file: FILE.py:FUNCTION." * flag.accepts_code
            if more:
                lines += _wrap_columns("", more)
        lines.append("")
    return "\n".join(lines)


def _format_default(flag: flag_fields.FlagField, mode: str) -> str:
    parts = (Config().net, Config().data, Config().precision)
    is_of_run = any(hasattr(part, flag.name) for part in parts) and flag.name != "cache"
    if mode in modes.RUN_MODES and is_of_run:
        return "(default: as in the run)"
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
