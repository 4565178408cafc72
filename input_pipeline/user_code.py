"""Functions by name: those of the program, and those in a Python file of the user's.

The value of a flag names a function in a file as `path/to/FILE.py:FUNCTION` or as
`package.module:FUNCTION`. `adopt` reads the file of a typed value and returns a reference,
`FILE.py:FUNCTION@1f3a9c0e52d4`. The digits are the first ones of the file's SHA-256, so equal
configs have equal code. A run folder holds the reference in config.json and a copy of the file, see
`save_copies` and `read_copies`. `load` executes the file, once per content.

Reading never executes code. `load` executes only files that this user has typed on a command line,
now or earlier, or all files after `trust_all`. The hashes of typed files are kept in the user's
folder of settings. A run folder from a stranger therefore cannot execute code.

Imports no TensorFlow, so that the command line is parsed quickly.
"""

import contextlib
import dataclasses
import difflib
import hashlib
import importlib
import importlib.util
import os
import pathlib
import re
import sys
import traceback
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Generic, TypedDict, TypeVar

from input_pipeline.errors import UsageError
from input_pipeline.system import atomic_files, regular_files
from input_pipeline.text import summarize_error

Facts = TypeVar("Facts")

FOLDER = "code"  # in a run folder
_MAX_BYTES = 2**20
_MAX_TRUSTED_BYTES = 2**24
_TYPED = re.compile(r"([^,:()@]+):([A-Za-z_]\w*)(?:@([0-9a-f]+))?")
_REFERENCE = re.compile(r"([\w.-]+\.py):([A-Za-z_]\w*)@([0-9a-f]{12})")
_FILE_NAME = re.compile(r"[\w.-]+\.py")
_ATTRIBUTE = "_registered"  # of a decorated function


class FileFacts(TypedDict):
    """What config.json records of a file.

    Attributes:
      sha256: of its content.
      origin: the file that was typed.
    """

    sha256: str
    origin: str


@dataclasses.dataclass(frozen=True)
class _File:
    """A Python file that a value names.

    Attributes:
      path: where it was read.
      content: all of it.
      origin: the file that was typed.
    """

    path: str
    content: bytes
    origin: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


# The files that were read, by file name and first digits of the SHA-256; the executed ones.
_files: dict[tuple[str, str], _File] = {}
_modules: dict[tuple[str, str], types.ModuleType] = {}
_trusted: set[str] = set()
_ALL = "all"  # in `_trusted`: every file


def is_typed(value: object) -> bool:
    """Returns whether a value has the form of code: FILE.py:FUNCTION or package.module:FUNCTION."""
    return isinstance(value, str) and _TYPED.search(value) is not None


def adopt(flag: str, value: str) -> str:
    """Reads the files that a typed value names, and trusts them from now on.

    Args:
      flag: name of the flag, for error messages.
      value: names, separated by commas. Those without a colon are not changed.

    Returns:
      the value with references for what it names in files.

    Raises:
      UsageError: a file cannot be read, or is not the one that a reference means.
    """

    def replace(match: re.Match[str]) -> str:
        where, function, digits = match.groups()
        if (where, digits) in _files:  # a reference from a run folder that was read
            return match[0]
        file = _read(f"--{flag}={match[0]}", where)
        name = os.path.basename(file.origin)
        if digits and not file.sha256.startswith(digits):
            raise UsageError(
                f"--{flag}={match[0]}: {file.path} has changed, its SHA-256 begins with"
                f" {file.sha256[:12]}; restore the file, or drop @{digits}"
            )
        _trust(file.sha256)
        return f"{name}:{function}@{_add(name, file)}"

    return _TYPED.sub(replace, value)


def display_name(value: str) -> str:
    """Returns a value without the digits of its references, as the user has typed it."""
    return _REFERENCE.sub(r"\1:\2", value)


def function_names(value: str) -> str:
    """Returns a value with the bare function in place of each reference, for names of files."""
    return _REFERENCE.sub(r"\2", value)


def trust_all() -> None:
    """Lets this process execute the code of any run folder, see `--trust_code`."""
    _trusted.add(_ALL)


def load(reference: str) -> Any:
    """Executes the file of a reference, unless it was executed before; returns the function.

    Raises:
      UsageError: the file is not trusted, cannot be imported, or has no such function.
    """
    match = _REFERENCE.fullmatch(reference)
    file = _files.get((match[1], match[3])) if match else None
    if match is None or file is None:
        raise UsageError(f"{reference}: its file is unknown; name it as path/FILE.py:FUNCTION")
    _require_trust(file)
    module = _execute(match[1], match[3], file)
    try:
        return getattr(module, match[2])
    except AttributeError:
        names = [name for name in vars(module) if not name.startswith("_")]
        similar = difflib.get_close_matches(match[2], names, 1)
        hint = f"; did you mean {similar[0]}?" if similar else ""
        raise UsageError(f"{file.path}: has no function {match[2]}{hint}") from None


def list_files(values: Iterable[object]) -> dict[str, FileFacts]:
    """Returns what config.json records of the files of all references in the values of flags.

    Raises:
      UsageError: two files have the same name.
    """
    facts: dict[str, FileFacts] = {}
    for name, file in _find_files(values):
        if name in facts and facts[name]["sha256"] != file.sha256:
            raise UsageError(f"{name}: two files have this name; rename one of them")
        facts[name] = {"sha256": file.sha256, "origin": file.origin}
    return facts


def save_copies(run_dir: pathlib.Path, values: Iterable[object]) -> None:
    """Writes the files of all references in the values of flags into the run folder."""
    for name, file in _find_files(values):
        atomic_files.make_folder(run_dir / FOLDER)
        atomic_files.write_bytes(run_dir / FOLDER / name, file.content)


def read_copies(
    run_dir: pathlib.Path, values: Iterable[object], files: Mapping[str, FileFacts]
) -> None:
    """Reads the copies in a run folder of the files of all references; executes nothing.

    Args:
      run_dir: the run folder.
      values: of the flags in the run's config.
      files: what config.json records of the files.

    Raises:
      UsageError: a copy is missing or was changed.
    """
    for value in values:
        for name, _, digits in _REFERENCE.findall(value) if isinstance(value, str) else ():
            path = run_dir / FOLDER / name
            try:
                content = regular_files.read_bytes(path, _MAX_BYTES)
            except OSError as error:
                reason = error.strerror or error
                raise UsageError(f"{path}: the run's code cannot be read ({reason})") from None
            recorded = files.get(name, {"sha256": digits, "origin": str(path)})
            file = _File(str(path), content, recorded["origin"])
            if digits != file.sha256[:12] or not file.sha256.startswith(recorded["sha256"]):
                raise UsageError(
                    f"{path}: was changed, its SHA-256 begins with {file.sha256[:12]} and that of"
                    f" the run with {digits}; put the file of the run back"
                )
            _add(name, file)


def find_changed(values: Iterable[object]) -> list[str]:
    """Returns the typed files that have changed since a run began, whose copies were read."""
    changed = []
    for _, file in _find_files(values):
        with contextlib.suppress(OSError):  # the file need not exist any more
            if regular_files.read_bytes(file.origin, _MAX_BYTES) != file.content:
                changed.append(file.origin)
    return changed


def to_json(values: Iterable[object]) -> list[list[str]]:
    """Returns the files of all references, for a process of the same user; see `from_json`."""
    return [
        [name, file.origin, file.content.decode(errors="surrogateescape")]
        for name, file in _find_files(values)
        if _is_trusted(file.sha256)
    ]


def from_json(files: list[list[str]]) -> None:
    """Adds and trusts files that the process which started this one has adopted."""
    for name, origin, text in files:
        file = _File(origin, text.encode(errors="surrogateescape"), origin)
        _trusted.add(file.sha256)
        _add(name, file)


@contextlib.contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Turns an exception in a user's file into a UsageError with the user's line.

    Exceptions that do not come through such a file, and errors that are one line, pass.
    """
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        line = describe_error(error)
        if line is None:
            raise
        raise UsageError(line) from error


def describe_error(error: BaseException) -> str | None:
    """Returns `FILE:LINE: TYPE: MESSAGE` of an error in a user's file; None for other errors."""
    paths = {file.path for file in _files.values()}
    if isinstance(error, SyntaxError) and error.filename in paths:
        return f"{error.filename}:{error.lineno}: {type(error).__name__}: {error.msg}"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [f"{frame.filename}:{frame.lineno}" for frame in frames if frame.filename in paths]
    if not lines:
        return None
    # Keras puts its own lines in front of and behind the message of an exception in a layer.
    text = " ".join(str(error).replace("\x1b[1m", "").replace("\x1b[0m", "").split())
    return f"{lines[-1]}: {type(error).__name__}: {text[:300]}".rstrip(": ")


@dataclasses.dataclass(frozen=True)
class Entry(Generic[Facts]):
    """A registered function.

    Attributes:
      function: the function, or the class.
      facts: what its decorator says about it.
    """

    function: Any
    facts: Facts


class Registry(Generic[Facts]):
    """The functions of one kind, such as losses: those of the program, and those in any file.

    Called, it is the decorator of a function of this kind, with or without facts in parentheses.

    Args:
      decorator: how a file writes the decorator, as in `losses.loss`.
      facts: dataclass of what is said about a function.
      functions: of the program, `package.module:function` by name. They are imported when they are
        used, so that `--help` needs no TensorFlow.
    """

    def __init__(self, decorator: str, facts: Callable[..., Facts], functions: Mapping[str, str]):
        self._decorator = decorator
        self._facts = facts
        self._functions = functions

    def __call__(self, function: Any = None, /, **facts: Any) -> Any:
        """Registers a function: `@losses.loss`, or with facts `@losses.loss(...)`."""
        if function is None:
            return lambda function: self(function, **facts)
        setattr(function, _ATTRIBUTE, (self, Entry(function, self._facts(**facts))))
        return function

    def names(self) -> tuple[str, ...]:
        """Returns the names of the program's functions."""
        return tuple(self._functions)

    def get(self, name: str) -> Entry[Facts]:
        """Returns the function with a name, or the function of a reference.

        Raises:
          UsageError: it cannot be loaded, or is not of this kind.
        """
        if name in self._functions:
            module, _, function = self._functions[name].partition(":")
            found = getattr(importlib.import_module(module), function)
        else:
            found = load(name)
        registry, entry = getattr(found, "__dict__", {}).get(_ATTRIBUTE, (None, None))
        if registry is not self:
            raise UsageError(
                f"{display_name(name)}: has no decorator for this flag; write @{self._decorator}"
                " in the line above it"
            )
        return entry


def _read(value: str, where: str) -> _File:
    """Reads a file that was typed, as a path or as a module."""
    path = os.path.expanduser(where)
    if not path.endswith(".py") and "/" not in path:
        path = _find_module(value, where)
    if not _FILE_NAME.fullmatch(os.path.basename(path)):
        raise UsageError(f"{value}: {path} must be a .py file named with letters, digits and -_.")
    try:
        content = regular_files.read_bytes(path, _MAX_BYTES)
    except FileNotFoundError:
        raise UsageError(f"{value}: there is no file {path}") from None
    except OSError as error:
        raise UsageError(f"{value}: {path}: {error.strerror or error}") from None
    return _File(path, content, os.path.abspath(path))


def _find_module(value: str, name: str) -> str:
    """Returns the source file of an installed module."""
    try:
        spec = importlib.util.find_spec(name)
    except Exception as error:  # importing its packages executes their code
        reason = summarize_error(error)
        raise UsageError(f"{value}: the module {name} cannot be found: {reason}") from None
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        raise UsageError(
            f"{value}: there is no Python module {name}; name a file as path/FILE.py:FUNCTION"
        )
    return spec.origin


def _add(name: str, file: _File) -> str:
    """Remembers a file; returns the digits of its references."""
    digits = file.sha256[:12]
    known = _files.setdefault((name, digits), file)
    if known.content != file.content:
        raise UsageError(f"{file.path}: differs from {known.path}, but their hashes begin alike")
    return digits


def _find_files(values: Iterable[object]) -> Iterator[tuple[str, _File]]:
    """Yields the name and file of each reference in the values of flags."""
    for value in values:
        for name, _, digits in _REFERENCE.findall(value) if isinstance(value, str) else ():
            if (name, digits) in _files:
                yield name, _files[name, digits]


def _execute(name: str, digits: str, file: _File) -> types.ModuleType:
    """Executes a file as a module that `import` does not find."""
    if (name, digits) in _modules:
        return _modules[name, digits]
    module = types.ModuleType(f"{name.removesuffix('.py').replace('.', '_')}_{digits}")
    module.__file__ = file.path
    sys.modules[module.__name__] = module  # dataclasses and pickle look there
    try:
        exec(compile(file.content, file.path, "exec", dont_inherit=True), module.__dict__)
    except (Exception, SystemExit) as error:
        del sys.modules[module.__name__]
        line = describe_error(error) or f"{file.path}: cannot be imported: {summarize_error(error)}"
        raise UsageError(line) from error
    _modules[name, digits] = module
    return module


def _trusted_path() -> pathlib.Path:
    folder = os.environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")
    return pathlib.Path(folder, "imagenet-loops", "trusted_code")


def _is_trusted(sha256: str) -> bool:
    if sha256 in _trusted or _ALL in _trusted:
        return True
    try:
        lines = regular_files.read_bytes(_trusted_path(), _MAX_TRUSTED_BYTES).split()
    except OSError:
        return False
    return sha256.encode() in lines


def _trust(sha256: str) -> None:
    """Trusts a file in this process, and in later ones if the folder of settings is writable."""
    if not _is_trusted(sha256):
        path = _trusted_path()
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_files.open_to_append(path) as file:
                file.write(f"{sha256}\n".encode())
    _trusted.add(sha256)


def _require_trust(file: _File) -> None:
    if not _is_trusted(file.sha256):
        raise UsageError(
            f"{file.path}: this code was not named on a command line of yours, and could do"
            " anything; read it, then give --trust_code to execute it"
        )
