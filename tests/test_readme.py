"""Every command in README.md and docs: parsed and checked here, run by `make faults`."""

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
OF_THE_SHELL = {"export", "cd", "test", "code=$?", "exit"}
# What a command may begin with, besides `python main.py`, `python -m MODULE` and `make TARGET`.
KNOWN = {"pip", "tensorboard", ".", "find", "srun", "git", *OF_THE_SHELL}
PYTHONS = {"python", "python3", ".venv/bin/python"}
NEEDS = re.compile(r"# needs (ILSVRC 2012|mini-ImageNet|the file)\b")


class Command:
    """One line of a page: its words, and what the comment behind it says."""

    def __init__(self, page, text):
        self.where = f"{page.relative_to(ROOT)}: {text}"
        code, _, self.comment = text.partition("  #")
        code = code.partition("   #")[0]
        self.words = shlex.split(code)
        self.needs_data = bool(NEEDS.search(text))

    def after(self, *start):
        """The words that follow a beginning, or None; any Python will do."""
        words = ["python" if word in PYTHONS else word for word in self.words]
        for at in range(len(words) - len(start) + 1):
            if words[at : at + len(start)] == list(start):
                return words[at + len(start) :]
        return None


def commands(page):
    """Lines of the blocks marked `sh`, and inline code that begins like a command."""
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
            yield Command(page, code)


COMMANDS = [command for page in PAGES for command in commands(page)]


def test_there_are_commands_on_every_page():
    assert len(COMMANDS) > 60
    pages = {command.where.partition(":")[0] for command in COMMANDS}
    assert pages == {str(page.relative_to(ROOT)) for page in PAGES}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.where)
def test_command(command):
    """It is of a kind that is known here, and what it names exists."""
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
        assert command.words[0] in KNOWN, "a command that no test knows"


def check_main(words):
    """The flags parse; those of a training fit together."""
    if words == ["--help"]:
        return
    config = flags.parse(["main.py", *(word for word in words if word != "...")])
    if not any(word.endswith("=...") for word in words):  # one that prose names as refused
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


def test_the_table_of_reliability_names_tests_that_are_there():
    """Files and folders exist, and each word behind -k is in the name of one of their tests."""
    assert len(RELIABILITY) > 20
    for words in (shlex.split(" ".join(code)) for code in RELIABILITY):
        paths = [ROOT / word for word in words if word.startswith("tests/")]
        files = [f for path in paths for f in ([path] if path.is_file() else path.rglob("*.py"))]
        assert paths and files and all(path.exists() for path in paths), words
        text = "\n".join(file.read_text() for file in files)
        tests = re.findall(r"^def (test_\w+)", text, re.M)
        wanted = words[words.index("-k") + 1].replace(" or ", " ").split() if "-k" in words else []
        for word in wanted:
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
    if "flags.parse(argv)" in source:  # takes the flags of main.py
        flags.parse(["main.py", *options])
        return
    named = {option.partition("=")[0] for option in options if option.startswith("--")}
    missing = [option for option in named if f'"{option}"' not in source]
    shared = (ROOT / "benchmarks/harness.py").read_text()
    assert [option for option in missing if f'"{option}"' not in shared] == []


def check_make(words):
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M)
    assert [word for word in words if "=" not in word and word not in targets] == []


def test_exit_codes_are_those_of_the_errors():
    def codes(error):
        return {error.exit_code}.union(*map(codes, error.__subclasses__()))

    (told,) = re.findall(r"^Exit codes: (.*?)\n\n", (ROOT / "README.md").read_text(), re.M | re.S)
    known = codes(UserError) | {0, 128 + signal.SIGINT, 128 + signal.SIGTERM, 128 + signal.SIGPIPE}
    assert {train_failures.WorkerLost.exit_code, worker_watchdog.ServiceLost.exit_code} == {1}
    assert {int(number) for number in re.findall(r"\d+", told)} == known


def test_links_lead_somewhere():
    broken = []
    for page in [*PAGES, ROOT / "CONTRIBUTING.md"]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            if not (page.parent / target).exists():
                broken.append(f"{page.name}: {target}")
    assert broken == []


def test_pictures_are_small():
    pictures = list((ROOT / "docs/pictures").iterdir())
    assert [p.name for p in pictures if p.stat().st_size > 150_000] == []


# What README's commands are given so that each takes seconds. In this order: later ones use what
# earlier ones made.
SMALL = {
    "train": ["--steps=2", "--batch_size=8", "--model=resnetv2_18", "--crops=1"],
    "eval": ["--crops=1"],
    "predict": ["--crops=1"],
    "repro": ["--steps=1"],
}


def write_images(folder):
    """Class folders of noise, and one photo."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 9), ("val", 4)):
        for name in ("cat", "dog"):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (60, 70, 3)).astype(np.uint8)
                cv2.imwrite(str(folder / split / name / f"{number}.jpg"), pixels)
        lines = [f"{split}/{n}/{i}.jpg {k}\n" for k, n in enumerate(("cat", "dog")) for i in (0, 1)]
        (folder / f"{split}.txt").write_text("".join(lines))
    for name in ("cat", "dog"):
        (folder.parent / "PICTURES" / name).mkdir(parents=True)
        for number in range(12):
            cv2.imwrite(str(folder.parent / "PICTURES" / name / f"{number}.jpg"), pixels)
    cv2.imwrite(str(folder.parent / "PHOTO.jpg"), pixels)


def runnable():
    """Commands of README.md that ask for nothing that is not here."""
    for command in COMMANDS:
        words = command.after("python", "main.py")
        here = not command.needs_data and "$REAL_IMAGES_DIR" not in command.where
        if words and words != ["--help"] and command.where.startswith("README.md: ") and here:
            yield command, words


@pytest.mark.faults
def test_readme_top_to_bottom(tmp_path):
    """Each command of README.md, in its order, in an empty folder, with small settings."""
    write_images(tmp_path / "DIR")
    ran = []
    for command, words in runnable():
        mode = flags.parse(["main.py", *words]).mode
        names = {word.partition("=")[0] for word in SMALL.get(mode, [])}
        words = [word for word in words if word.partition("=")[0] not in names]
        words = [*words, *SMALL.get(mode, [])]
        if any(word.startswith("--ckpt=checkpoints/nette") for word in words):
            continue  # of the runs on real images
        process = subprocess.run(
            [sys.executable, str(ROOT / "main.py"), *words],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert process.returncode == 0, f"{command.where}\n{process.stderr[-2000:]}"
        ran.append(mode)
    assert {"train", "eval", "predict", "repro", "verify"} <= set(ran)
    assert (tmp_path / "first.html").is_file()


def test_published_errors_are_those_of_the_table():
    published = json.loads((ROOT / "benchmarks/published_errors.json").read_text())
    rows = re.findall(
        r"^\| `(\w+)` \| .* G \| (.*?) \| .*\|$", (ROOT / "README.md").read_text(), re.M
    )
    assert [name for name, _ in rows] == list(registry.names())
    for name, told in rows:
        assert told == model_table.format_published_error(published, name), name
