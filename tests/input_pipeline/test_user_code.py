"""Code of the user's: how it is named, recorded, trusted and loaded."""

import dataclasses
import hashlib

import pytest

from input_pipeline import user_code
from tests.command_line import refusal

CODE = b"def double(x):\n    return 2 * x\n"
DIGITS = hashlib.sha256(CODE).hexdigest()[:12]


@pytest.fixture(autouse=True)
def fresh(monkeypatch, tmp_path):
    """A process that knows no code, and a user who has trusted none."""
    for name in ("_files", "_modules"):
        monkeypatch.setattr(user_code, name, {})
    monkeypatch.setattr(user_code, "_trusted", set())
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))


@pytest.fixture
def forget(monkeypatch):
    """Returns a function that makes the process forget all but what is on disk."""

    def forget_all():
        monkeypatch.setattr(user_code, "_files", {})
        monkeypatch.setattr(user_code, "_modules", {})
        monkeypatch.setattr(user_code, "_trusted", set())

    return forget_all


def write(folder, code=CODE, name="mine.py"):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_bytes(code if isinstance(code, bytes) else code.encode())
    return path


def saved_run(tmp_path):
    """Returns a run folder with a copy of CODE, and the value and facts of its config."""
    path = write(tmp_path / "home")
    value = user_code.adopt("loss", f"{path}:double")
    facts = user_code.list_files([value])
    run = tmp_path / "run"
    run.mkdir()
    user_code.save_copies(run, [value])
    return run, value, facts


def test_a_typed_file_becomes_a_reference_and_is_executed(tmp_path):
    path = write(tmp_path)
    value = user_code.adopt("loss", f"{path}:double")
    assert value == f"mine.py:double@{DIGITS}"
    assert user_code.load(value)(21) == 42
    assert user_code.display_name(value) == "mine.py:double"
    assert user_code.function_names(value) == "double"
    assert user_code.adopt("loss", f"{path}:double@{DIGITS}") == value


def test_lists_arguments_and_modules(tmp_path, monkeypatch):
    write(tmp_path / "package", b"", "__init__.py")
    write(tmp_path / "package", CODE, "own.py")
    monkeypatch.syspath_prepend(str(tmp_path))
    value = user_code.adopt(
        "augment", f"standard,package.own:double(2,10),{tmp_path}/package/own.py:x"
    )
    assert value == f"standard,own.py:double@{DIGITS}(2,10),own.py:x@{DIGITS}"


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("{0}/none.py:f", "there is no file"),
        ("{0}/folder.py:f", "not a file"),
        ("{0}/a b.py:f", "must be a .py file"),
        ("{0}/text.txt:f", "must be a .py file"),
        ("no_such.module:f", "cannot be found"),
        ("no_such_module:f", "there is no Python module"),
        ("{0}/mine.py:f@123456789abc", "has changed"),
    ],
)
def test_unusable_names_are_one_line(tmp_path, typed, words):
    (tmp_path / "folder.py").mkdir()
    write(tmp_path)
    write(tmp_path, CODE, "a b.py")
    message = refusal(user_code.adopt, "model", typed.format(tmp_path))
    assert message.startswith("--model=") and words in message


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import os\nx = (", "{0}:2: SyntaxError: '(' was never closed"),
        ("import no_such_package", "{0}:1: ModuleNotFoundError: No module named 'no_such_package'"),
        ("\n\nraise ValueError('two\\nlines')", "{0}:3: ValueError: two lines"),
        ("import sys\nsys.exit(0)", "{0}:2: SystemExit: 0"),
        ("def doubl(x): pass", "{0}: has no function double; did you mean doubl?"),
        ("\0", "{0}: cannot be imported: source code string cannot contain null bytes"),
    ],
)
def test_code_that_cannot_be_loaded_is_one_line_with_its_place(tmp_path, code, message):
    path = write(tmp_path, code)
    value = user_code.adopt("loss", f"{path}:double")
    assert refusal(user_code.load, value) == message.format(path)


def test_an_exception_inside_the_code_shows_its_last_line_there(tmp_path):
    path = write(tmp_path, "def f(x):\n    return g(x)\ndef g(x):\n    return int(x)\n")
    function = user_code.load(user_code.adopt("loss", f"{path}:f"))

    def run(argument):
        with user_code.errors_in_one_line():
            function(argument)

    expected = f"{path}:4: ValueError: invalid literal for int() with base 10: 'x'"
    assert refusal(run, "x") == expected
    with pytest.raises(ZeroDivisionError), user_code.errors_in_one_line():
        1 / 0  # noqa: B018 - not in the user's file


def test_a_run_of_the_same_user_is_trusted_in_later_processes(tmp_path, forget):
    run, value, facts = saved_run(tmp_path)
    assert facts == {
        "mine.py": {
            "sha256": hashlib.sha256(CODE).hexdigest(),
            "origin": str(tmp_path / "home" / "mine.py"),
        }
    }
    forget()
    user_code.read_copies(run, [value, 3, None], facts)
    assert user_code.load(value)(2) == 4
    assert user_code.list_files([value]) == facts


def test_a_run_from_elsewhere_executes_nothing_without_trust(tmp_path, forget, monkeypatch):
    marker = tmp_path / "executed"
    path = write(tmp_path / "home", f"open({str(marker)!r}, 'w')\ndef double(x): return 2 * x\n")
    value = user_code.adopt("loss", f"{path}:double")
    run = tmp_path / "run"
    run.mkdir()
    user_code.save_copies(run, [value])
    facts = user_code.list_files([value])
    forget()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "another user"))
    user_code.read_copies(run, [value], facts)
    message = refusal(user_code.load, value)
    assert message.startswith(f"{run}/code/mine.py: ") and "--trust_code" in message
    assert not marker.exists()
    user_code.trust_all()
    assert user_code.load(value)(2) == 4
    assert marker.exists()


def test_changed_and_missing_copies_are_named(tmp_path, forget):
    run, value, facts = saved_run(tmp_path)
    forget()
    copy = run / "code" / "mine.py"
    copy.write_bytes(CODE + b"\n")
    assert f"{copy}: was changed" in refusal(user_code.read_copies, run, [value], facts)
    copy.unlink()
    assert f"{copy}: the run's code cannot be read" in refusal(
        user_code.read_copies, run, [value], facts
    )
    assert "its file is unknown" in refusal(user_code.load, value)


def test_a_changed_original_is_listed(tmp_path):
    _, value, _ = saved_run(tmp_path)
    origin = tmp_path / "home" / "mine.py"
    assert user_code.find_changed([value]) == []
    origin.write_bytes(b"")
    assert user_code.find_changed([value]) == [str(origin)]
    origin.unlink()
    assert user_code.find_changed([value]) == []


def test_two_files_with_one_name_are_refused(tmp_path):
    first = user_code.adopt("loss", f"{write(tmp_path / 'a')}:double")
    second = user_code.adopt("loss", f"{write(tmp_path / 'b', CODE * 2)}:double")
    assert user_code.load(first) is not user_code.load(second)
    assert "two files have this name" in refusal(user_code.list_files, [first, second])


def test_files_travel_to_a_process_of_the_same_user(tmp_path, forget):
    value = user_code.adopt("loss", f"{write(tmp_path)}:double")
    files = user_code.to_json([value, 1])
    forget()
    user_code.from_json(files)
    assert user_code.load(value)(3) == 6


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts:
    rate: float = 0.5


registry = user_code.Registry(
    "tests.registry", Facts, {"builtin": "tests.input_pipeline.test_user_code:builtin"}
)
other = user_code.Registry("tests.other", Facts, {})


@registry(rate=1.0)
def builtin():
    """A function of the program."""


def test_functions_of_the_program_and_of_files_are_registered_alike(tmp_path):
    head = "from tests.input_pipeline.test_user_code import registry, other\n"
    path = write(
        tmp_path, head + "@registry\ndef f(): pass\n@other\ndef g(): pass\ndef h(): pass\n"
    )
    assert registry.names() == ("builtin",)
    assert registry.get("builtin") == user_code.Entry(builtin, Facts(rate=1.0))
    entry = registry.get(user_code.adopt("loss", f"{path}:f"))
    assert entry.facts == Facts(rate=0.5) and entry.function.__name__ == "f"
    for name in "gh":
        message = refusal(registry.get, user_code.adopt("loss", f"{path}:{name}"))
        assert message.startswith(f"mine.py:{name}: ") and "@tests.registry" in message
