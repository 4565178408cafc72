"""Parses and checks every command in README.md and docs; `make faults` also runs README.md."""

import json
import pathlib
import re
import shlex
import signal
import subprocess
import sys

import cv2
import numpy as np
import pytest

import flags
from benchmarks import model_table
from input_pipeline.errors import UserError
from input_pipeline.service import worker_watchdog
from loops import train_failures
from loops.config import mode_flags, resolve
from nets import registry

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGES = sorted(
    [
        ROOT / "README.md",
        ROOT / "checkpoints/README.md",
        ROOT / "benchmarks/README.md",
        *ROOT.glob("docs/*.md"),
    ]
)
SHELL_WORDS = {"export", "cd", "test", "code=$?", "exit"}
# First words of other commands than `python main.py`, `python -m MODULE` and `make TARGET`.
KNOWN = {"pip", "tensorboard", ".", "find", "srun", "git", *SHELL_WORDS}
PYTHONS = {"python", "python3", ".venv/bin/python"}
NEEDS = re.compile(r"# needs (ILSVRC 2012|mini-ImageNet|the file)\b")


class Command:
    """A command of a page: its words, and its comment. Inline commands may have placeholders."""

    def __init__(self, page, text, is_inline=False):
        self.is_inline = is_inline
        self.location = f"{page.relative_to(ROOT)}: {text}"
        code, _, self.comment = text.partition("  #")
        code = code.partition("   #")[0]
        self.words = shlex.split(code)
        self.needs_data = bool(NEEDS.search(text))

    def after(self, *start):
        """Returns the words after `start`, or None. All Python interpreters are equal."""
        words = ["python" if word in PYTHONS else word for word in self.words]
        for at in range(len(words) - len(start) + 1):
            if words[at : at + len(start)] == list(start):
                return words[at + len(start) :]
        return None


def commands(page):
    """Yields the lines of `sh` blocks, and inline code that starts like a command."""
    text = page.read_text()
    fenced = re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S)
    for block in fenced:
        for line in block.replace("\\\n", " ").splitlines():
            if line.strip() and not line.startswith("#"):
                yield Command(page, line)
    prose = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    for code in re.findall(r"`([^`]+)`", prose):
        code = " ".join(code.split())
        if code.startswith("--mode="):
            code = f"python main.py {code}"
        if re.match(r"(python|python3|make|pip|\.venv/bin/\S+) \S", code):
            yield Command(page, code, is_inline=True)


COMMANDS = [command for page in PAGES for command in commands(page)]


def test_every_page_has_commands():
    assert len(COMMANDS) > 60
    pages = {command.location.partition(":")[0] for command in COMMANDS}
    assert pages == {str(page.relative_to(ROOT)) for page in PAGES}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.location)
def test_documented_command_is_valid(command):
    """The command is of a known kind, and the files, flags and targets that it names exist."""
    if (words := command.after("python", "main.py")) is not None:
        check_main(words)
    elif (words := command.after("python", "-m")) is not None:
        check_module(words)
    elif (words := command.after("make")) is not None:
        check_make(words)
    elif (words := command.after("pip", "install")) is not None or (
        words := command.after(".venv/bin/pip", "install")
    ) is not None:
        files = [words[at + 1] for at, word in enumerate(words) if word == "-r"]
        assert [file for file in files if not (ROOT / file).is_file()] == []
    else:
        assert command.words[0] in KNOWN, "unknown kind of command"


def check_main(words):
    """Checks that the flags parse and, for a training, that they are consistent."""
    words = [word for word in words if word not in ("--help", "--helpfull")]
    if not words:
        return
    words = [re.sub(r"\$[A-Z_]+", "FOLDER", word) for word in words]  # as the shell does
    config = flags.parse(["main.py", *(word for word in words if word != "...")])
    if not any(word.endswith("=...") for word in words):  # the text names a refused flag
        mode_flags.check_flags(config)
    if config.mode == "train":
        resolve.resolve(config)
    assert config.typed, "no flag at all"


RELIABILITY = [
    code.split()
    for row in (ROOT / "docs/reliability.md").read_text().splitlines()
    if row.startswith("| ")
    for code in re.findall(r"`([^`]*tests/[^`]*)`", row)
]


def test_reliability_table_names_existing_tests():
    """Files and folders exist, and each word after -k is part of the name of a test in them."""
    assert len(RELIABILITY) > 20
    for words in (shlex.split(" ".join(code)) for code in RELIABILITY):
        paths = [ROOT / word for word in words if word.startswith("tests/")]
        files = [f for path in paths for f in ([path] if path.is_file() else path.rglob("*.py"))]
        assert paths and files and all(path.exists() for path in paths), words
        text = "\n".join(file.read_text() for file in files)
        tests = re.findall(r"^def (test_\w+)", text, re.M)
        keywords = words[words.index("-k") + 1] if "-k" in words else ""
        for word in keywords.replace(" or ", " ").split():
            assert any(word in test for test in tests), (words, word)


def check_module(words):
    module, *options = words
    if module in ("venv", "pytest"):
        paths = [word.partition("::")[0] for word in options if word.startswith("tests/")]
        assert [path for path in paths if not (ROOT / path).exists()] == []
        return
    path = ROOT / (module.replace(".", "/") + ".py")
    if not path.exists():
        path = ROOT / module.replace(".", "/") / "__main__.py"
    source = path.read_text()
    if "flags.parse(argv)" in source:  # accepts the flags of main.py
        flags.parse(["main.py", *options])
        return
    names = {option.partition("=")[0] for option in options if option.startswith("--")}
    missing = [option for option in names if f'"{option}"' not in source]
    shared = (ROOT / "benchmarks/harness.py").read_text()
    assert [option for option in missing if f'"{option}"' not in shared] == []


def check_make(words):
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
    assert [word for word in words if "=" not in word and word not in targets] == []


def test_documented_exit_codes_equal_the_errors():
    def codes(error):
        return {error.exit_code}.union(*map(codes, error.__subclasses__()))

    (section,) = re.findall(
        r"^## Exit codes\n(.*?)^## ", (ROOT / "docs/reference.md").read_text(), re.M | re.S
    )
    documented = " ".join(re.findall(r"^\| ([\d, ]+) \|", section, re.M))
    signals = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE)
    known = codes(UserError) | {0, *(128 + number for number in signals)}
    assert {train_failures.WorkerLost.exit_code, worker_watchdog.ServiceLost.exit_code} == {1}
    assert {int(number) for number in re.findall(r"\d+", documented)} == known


def test_links_point_to_existing_files():
    broken = []
    for page in [*PAGES, ROOT / "CONTRIBUTING.md"]:
        prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", prose):
            if not (page.parent / target).exists():
                broken.append(f"{page.name}: {target}")
    assert broken == []


def test_documentation_images_are_small():
    pictures = list((ROOT / "docs/pictures").iterdir())
    assert [p.name for p in pictures if p.stat().st_size > 150_000] == []


# Flags that reduce the commands of README.md to seconds.
SMALL = {
    "train": ["--steps=2", "--batch_size=8", "--model=resnetv2_18", "--crops=1"],
    "eval": ["--crops=1"],
    "predict": ["--crops=1"],
}


def write_images(folder):
    """Writes class folders of noise into DIR, and one photo."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 9), ("val", 4)):
        for name in ("cat", "dog"):
            (folder / "DIR" / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (60, 70, 3)).astype(np.uint8)
                cv2.imwrite(str(folder / "DIR" / split / name / f"{number}.jpg"), pixels)
    cv2.imwrite(str(folder / "PHOTO.jpg"), pixels)


def make_train():
    """Returns the words of the commands that `make train` runs."""
    command = ["make", "--dry-run", "train", "ARGS="]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    lines = printed.replace("\\\n", " ").splitlines()
    return [shlex.split(line.partition(" main.py ")[2]) for line in lines if " main.py " in line]


def runnable():
    """Yields the words of the commands of README.md that need no downloaded data."""
    for command in COMMANDS:
        if not command.location.startswith("README.md: ") or command.is_inline:
            continue
        words = command.after("python", "main.py")
        if command.after("make") == ["train"]:
            yield from make_train()
        elif words and not command.needs_data:
            yield words


@pytest.mark.faults
def test_readme_commands_run_in_order(tmp_path):
    """Later commands use what earlier ones have made. The folder is empty at the start."""
    write_images(tmp_path)
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    modes = []
    for words in runnable():
        mode = flags.parse(["main.py", *words]).mode
        typed = {word.partition("=")[0] for word in words if word.endswith(":rezero_18")}
        small = [word for word in SMALL.get(mode, []) if word.partition("=")[0] not in typed]
        names = {word.partition("=")[0] for word in small} | {"--epochs"}
        words = [word for word in words if word.partition("=")[0] not in names] + small
        process = subprocess.run(
            [sys.executable, str(ROOT / "main.py"), *words],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert process.returncode == 0, f"{words}\n{process.stderr[-2000:]}"
        modes.append(mode)
    assert sorted(modes) == ["eval", "predict", "predict", "train", "train", "train", "verify"]
    assert (tmp_path / "first.html").is_file()


def test_table_of_models_has_published_accuracies():
    published = json.loads((ROOT / "benchmarks/published_errors.json").read_text())
    rows = re.findall(
        r"^\| `(\w+)` \| .* G \| (.*?) \| .*\|$", (ROOT / "docs/models.md").read_text(), re.M
    )
    assert [name for name, _ in rows] == list(registry.names())
    for name, accuracy in rows:
        assert accuracy == model_table.format_published_accuracy(published, name), name
    top1, top5, *_ = published["resnet_50"]
    (resnet_50,) = (accuracy for name, accuracy in rows if name == "resnet_50")
    assert [float(x) for x in re.findall(r"[\d.]+", resnet_50)[:2]] == pytest.approx(
        [100 - top1, 100 - top5]
    )


def test_documented_code_evaluates_features(tmp_path, monkeypatch, capsys):
    """Two classes, whose features have different directions; one image has the wrong class."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name, count in (("train", 40), ("val", 10)):
        labels = np.arange(count) % 2
        features = rng.normal(0, 0.1, (count, 8)) + np.where(labels, 1, -1)[:, None]
        if name == "val":
            labels[0] = 1
        paths = [f"photos/{'ab'[label]}/{i}.jpg".encode() for i, label in enumerate(labels)]
        np.savez(f"{name}.npz", names=np.array(paths), features_0=features.astype(np.float32))
    page = (ROOT / "docs/predict_export.md").read_text()
    exec(re.search(r"```python\n(.*?)```", page, re.DOTALL)[1], {})
    assert capsys.readouterr().out.split() == ["0.9", "0.9"]
