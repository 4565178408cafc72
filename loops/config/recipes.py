"""Recipes: the flags in a small text file, in a built-in one, or of another run, for `--recipe`.

A recipe sets flags of the training procedure. It sets no data set, path, output, seed or device. A
file of a recipe has one `--name=value` on each line, as `--flagfile` reads. A comment begins with
`#`. The built-in recipes are the files in the folder `recipes`.
"""

import difflib
import functools
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from input_pipeline import augment_spec, user_code
from input_pipeline.errors import UsageError
from input_pipeline.system import regular_files, typed_json
from input_pipeline.text import summarize_error
from loops.config import local_paths
from loops.config.flag_fields import FlagField

_FOLDER = pathlib.Path(__file__).with_name("recipes")
_MAX_BYTES = 2**20

Flags: TypeAlias = Mapping[str, FlagField]


@functools.cache
def names() -> tuple[str, ...]:
    """Returns the names of the built-in recipes, and `none`."""
    return ("none", *sorted(file.stem for file in _FOLDER.glob("*.txt")))


def read(recipe: str, flags: Flags) -> dict[str, Any]:
    """Reads a recipe.

    Args:
      recipe: a value of `--recipe`: a name, a file, or the folder of a run.
      flags: all flags of the program by name.

    Returns:
      the values of the flags that it sets, in order.

    Raises:
      UsageError: the file cannot be read, or a line sets no flag of a recipe.
    """
    if recipe == "none":
        return {}
    if recipe in names():
        return _read_file(_FOLDER / f"{recipe}.txt", f"--recipe={recipe}", flags)
    path = pathlib.Path(local_paths.expand("recipe", recipe))
    if path.is_dir():
        return _read_run(path, f"--recipe={recipe}", flags)
    return _read_file(path, f"--recipe={recipe}", flags)


def format_lines(values: Mapping[str, Any], flags: Flags) -> Iterator[str]:
    """Yields the lines of a recipe: each flag that a recipe may set and that is not the default.

    Args:
      values: of all flags by name.
      flags: all flags of the program by name.
    """
    for name, flag in flags.items():
        value = values[name]
        if not flag.in_recipe or value in (None, flag.default):
            continue
        if flag.accepts_code and user_code.is_typed(value):
            yield f"# Give --{name}={user_code.display_name(value)} on the command line."
        elif flag.type is bool:
            yield f"--{name}" if value else f"--no{name}"
        else:
            yield f"--{name}={value}"


def _read_file(path: pathlib.Path, where: str, flags: Flags) -> dict[str, Any]:
    try:
        text = regular_files.read_bytes(path, _MAX_BYTES).decode("utf-8-sig")
    except FileNotFoundError:
        raise UsageError(f"{where}: there is no such file or folder") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{where}: {summarize_error(error)}") from None
    values: dict[str, Any] = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if line and not line.startswith(("#", "//")):
            name, value = _parse_line(line, f"{where}, line {number}", flags)
            if name in values:
                raise UsageError(f"{where}, line {number}: --{name} is set twice")
            values[name] = value
    return values


def _parse_line(line: str, where: str, flags: Flags) -> tuple[str, Any]:
    """Returns the name and the value of a line `--name=value`, `--name` or `--noname`."""
    dashes, equals, text = line.partition("=")
    if not dashes.startswith("-"):
        raise UsageError(f"{where}: {line!r} is not a flag: write --name=value")
    name = dashes.lstrip("-")
    if not equals:
        is_negated = name not in flags and name.startswith("no")
        name, text = (name[2:], "false") if is_negated else (name, "true")
    if name not in flags:
        similar = difflib.get_close_matches(name, [*filter(lambda n: flags[n].in_recipe, flags)], 1)
        hint = f"; did you mean --{similar[0]}?" if similar else ""
        raise UsageError(f"{where}: there is no flag --{name}{hint}")
    flag = flags[name]
    if not flag.in_recipe:
        raise UsageError(
            f"{where}: a recipe cannot set --{name}, only how to train; give it on the command line"
        )
    if not equals and flag.type is not bool:
        raise UsageError(f"{where}: --{name} has no value: write --{name}=value")
    try:
        value = flag.convert(text)
    except ValueError as error:
        raise UsageError(f"{where}: --{name}={text}: {error}") from None
    if flag.accepts_code and user_code.is_typed(value):
        raise UsageError(
            f"{where}: a recipe cannot name code, as in --{name}={value}; give it on the command"
            " line"
        )
    _check(flag, value, where)
    return name, value


def _read_run(path: pathlib.Path, where: str, flags: Flags) -> dict[str, Any]:
    """Returns the flags of a run folder's config.json that a recipe may set, without defaults."""
    file = path / "config.json"
    try:
        record = typed_json.convert(regular_files.read_json(file), dict[str, Any], "the record")
        config = typed_json.convert(record.get("config"), dict[str, Any], "config")
        code = typed_json.convert(
            record.get("code", {}), dict[str, user_code.FileFacts], "the record's code"
        )
        leaves = dict(_iter_leaves(config))
        values = {
            name: typed_json.convert(leaves[name], flag.type | None, name)
            for name, flag in flags.items()
            if flag.in_recipe and name in leaves
        }
    except FileNotFoundError:
        raise UsageError(f"{where}: is not a run folder, it has no config.json") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{where}: {file} is not the record of a run ({error})") from None
    user_code.read_copies(path, values.values(), code)
    values = {
        name: value for name, value in values.items() if value not in (None, flags[name].default)
    }
    for name, value in values.items():
        _check(flags[name], value, f"{where}, {file}")
    return values


def _iter_leaves(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in config.items():
        if isinstance(value, dict):
            yield from _iter_leaves(value)
        else:
            yield name, value


def _check(flag: FlagField, value: Any, where: str) -> None:
    """Raises UsageError for a value that the flag does not accept."""
    try:
        flag.check_choice(value)
        flag.check_range(None if isinstance(value, (str, bool)) else value)
        if flag.name == "augment":
            augment_spec.parse(value)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None
