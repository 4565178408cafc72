"""A folder with all that the program reads, in which commands run and are checked.

`python -m tests.fuzz.box EXAMPLE` runs one example, as a failed test prints it.
"""

import dataclasses
import json
import os
import pathlib
import re
import shlex
import shutil
import stat
import sys
import tempfile

import cv2
import numpy as np
from safetensors.numpy import save_file

from loops.config.config import select_flags
from tests.fuzz import damage
from tests.fuzz.fork_server import ROOT, ForkServer, Outcome

_EXIT_CODES = (0, 2, 3, 4, 130, 143)
_CLASSES = ("n01532829", "n01558993", "n01704323")  # in ilsvrc2012 and in mini_imagenet
_CARD = {
    "architecture": "resnet18",
    "num_classes": 3,
    "label_names": _CLASSES,
    "pretrained_cfg": {
        "input_size": [3, 64, 64],
        "crop_pct": 0.9,
        "interpolation": "bicubic",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "test_input_size": [3, 96, 96],
        "test_crop_pct": 1.0,
        "license": "apache-2.0",
    },
}
_CODE = """from input_pipeline.augmentation import augmentations

@augmentations.batch
def dark(images, draws, factor):
    return images * factor
"""
_IMAGES = {"train": 2, "val": 1, "test": 1}
FORMATS = ("jpg", "png", "webp", "bmp", "gif")
_DATA = "--dataset=folder --data_dir=folder"
# Commands that make the rest of the folder, and their exit codes.
_BUILD = (
    (
        f"--mode=train {_DATA} --model=resnetv2_18 --image_size=32 --batch_size=2 --steps=2"
        " --crops=1 --save_every=1 --checkpoint_dir=runs --run_name=a"
        " --augment=standard,own.py:dark(0.5)",
        0,
    ),
    ("--mode=export --ckpt=runs/a --format=weights_h5 --out=a.weights.h5", 0),
    (f"--mode=prepare {_DATA} --out=shards", 0),
    (f"--mode=prepare {_DATA} --out=prepared_lists --format=lists", 0),
    ("--mode=prepare --dataset=folder --data_dir=broken --short_side=8 --out=unfinished", 3),
    (f"--mode=verify {_DATA}", 0),
    (f"--mode=stats {_DATA}", 0),
)
# Flags that name what a command writes, besides --ckpt.
_NAMES_OUTPUT = {"out", "data_dir", *select_flags(is_output_file=True)}
_INDEX = ".index"  # any mode may write it next to the images
_INDEX_FILE = re.compile(r"split\.txt|[\w-]+\.(npz|unfinished)")
_SIDECAR = ".sha256.json"
# What may run as long as its flags say, or until it is stopped: seconds after which it is stopped.
_STOP_AFTER = {"--mode=train": 10, "--mode=benchmark": 3, "--mode=data_service": 1, "--watch": 3}


@dataclasses.dataclass(frozen=True)
class Example:
    """One command, and the damages that are done before it runs, see `damage.apply`."""

    argv: tuple[str, ...]
    damages: tuple[tuple[str, str, int, str], ...] = ()

    def __str__(self) -> str:
        return f"python -m tests.fuzz.box {shlex.quote(json.dumps([self.argv, self.damages]))}"


class Box:
    """The folder, which is built once and copied for each example; a context manager."""

    def __enter__(self) -> "Box":
        self._root = pathlib.Path(tempfile.mkdtemp(prefix="fuzz-"))
        self._server = ForkServer().__enter__()
        self._original = self._root / "original"
        work = self._original / "work"
        for name in ("home", "tmp", "work"):
            (self._original / name).mkdir(parents=True)
            (self._root / "box" / name).mkdir(parents=True)
        _write_inputs(work)
        for command, code in _BUILD:
            outcome = self._server.run(command.split(), self._original)
            assert outcome.code == code, outcome.err
        shutil.copytree(work / "runs/a", work / "runs/b")
        return self

    def __exit__(self, *_) -> None:
        self._server.__exit__()
        shutil.rmtree(self._root)

    def run(self, example: Example) -> tuple[Outcome, str]:
        """Runs an example; returns how it ended and the kind of fault, or ""."""
        box = self._root / "box"
        self._restore(box)
        for one in example.damages:
            damage.apply(box / "work", *one)
        before = _list_files(box)
        stop_after = next((_STOP_AFTER[w] for w in _STOP_AFTER if w in example.argv), None)
        outcome = self._server.run(list(example.argv), box, stop_after)
        named = [pathlib.PurePath(os.path.normpath(f"work/{p}")) for p in _list_outputs(example)]
        changed = {path.removesuffix(_SIDECAR) for path, _ in before ^ _list_files(box)}
        paths = [
            path
            for path in map(pathlib.PurePath, sorted(changed))
            if not is_index(self._original, path)
        ]
        other = [str(path) for path in paths if not any(map(path.is_relative_to, named))]
        return outcome, find_fault(outcome, other)

    def _restore(self, box: pathlib.Path) -> None:
        """Makes the box equal to the original, without touching what is equal already."""
        original = _list_files(self._original)
        changed = sorted({path for path, _ in original ^ _list_files(box)})
        for path in map(box.joinpath, reversed(changed)):
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            else:
                path.unlink(missing_ok=True)
        kinds = {path: facts[0] for path, facts in original}
        for path in changed:
            if kinds.get(path) == stat.S_IFDIR:
                (box / path).mkdir()
            elif kinds.get(path) == stat.S_IFCHR:
                damage.make_zero(box / path)
            elif path in kinds:
                shutil.copy2(self._original / path, box / path, follow_symlinks=False)


def _list_outputs(example: Example) -> list[str]:
    """Returns the files and folders that a command may write."""
    outputs = ["checkpoints", "data"]
    for name, _, text in (word.removeprefix("--").partition("=") for word in example.argv):
        if name == "ckpt":  # the results are in the run folder
            outputs += [
                re.sub(r"/(best|step-\d+)/*$", "", path) for path in text.split(",") if path
            ]
        elif name == "checkpoint_dir" or (text and name in _NAMES_OUTPUT):
            outputs.append(text)
    return outputs


def is_index(root: pathlib.Path, path: pathlib.PurePath) -> bool:
    """Returns whether a path below a root is an index next to images, or its folder."""
    if path.name != _INDEX:
        if path.parent.name != _INDEX or not _INDEX_FILE.fullmatch(path.name):
            return False
        path = path.parent
    folder = root / path.parent
    return any(file.suffix[1:] in (*FORMATS, "JPEG") for file in folder.rglob("*"))


def find_fault(outcome: Outcome, changed: list[str]) -> str:
    """Returns the kind of fault, or "".

    Args:
      outcome: how the command ended.
      changed: what it has written besides its outputs.
    """
    lines = outcome.err.splitlines() or [""]
    frames = re.findall(rf'File "{ROOT}/((?!\.venv|tests/)\S+)", line (\d+)', outcome.err)
    if outcome.exceeded:  # faulthandler prints the innermost frame first
        return f"too much {outcome.exceeded} in {':'.join(frames[0] if frames else '?')}"
    if "Traceback" in outcome.err:
        errors = re.findall(r"^([\w.]+)(?::|$)", outcome.err, re.MULTILINE)
        return f"{errors[-1]} at {':'.join(frames[-1] if frames else '?')}"
    errors = [line for line in lines if line.startswith("error:")]
    if outcome.code not in _EXIT_CODES:
        return f"exit code {outcome.code}: {lines[-1]}"[:120]
    if outcome.code in (2, 3, 4) and errors != lines[-1:]:
        return f"exit code {outcome.code} with {len(errors)} error lines, or more lines"
    return "wrote " + re.sub(r"\d+", "N", changed[0]) if changed else ""


def _list_files(box: pathlib.Path) -> set[tuple[str, tuple[int, ...]]]:
    """Returns (path, type) of everything in the box, with size and time of regular files."""
    files = set()
    for top in ("home", "tmp", "work"):
        for folder, folders, others in os.walk(box / top):
            for path in (os.path.join(folder, name) for name in folders + others):
                info = os.lstat(path)
                is_file = stat.S_ISREG(info.st_mode)
                facts = (info.st_size, info.st_mtime_ns) if is_file else ()
                files.add((os.path.relpath(path, box), (stat.S_IFMT(info.st_mode), *facts)))
    return files


def _write_inputs(work: pathlib.Path) -> None:
    """Writes images in each format, as folders and as downloaded, lists, tables and weights."""
    rng = np.random.default_rng(0)
    number = 0
    for split, count in _IMAGES.items():
        lines = []
        for label, name in enumerate(_CLASSES):
            folder = work / "folder" / split / name
            folder.mkdir(parents=True)
            for _ in range(count):
                path = folder / f"{name}_{number}.{FORMATS[number % len(FORMATS)]}"
                assert cv2.imwrite(str(path), rng.integers(0, 256, (36, 40, 3)).astype(np.uint8))
                lines.append(f"{path.relative_to(work / 'folder')} {label}\n")
                number += 1
        (work / f"{split}.txt").write_text("".join(lines))
    shutil.copytree(work / "folder", work / "broken")
    next((work / "broken/val").rglob("*.*")).write_bytes(b"\xff\xd8\xff")
    shutil.copytree(work / "folder/train", work / "flat/train")
    shutil.copytree(work / "folder/train", work / "unsplit")
    (work / "packed").mkdir()
    paths = sorted(path.relative_to(work / "unsplit") for path in (work / "unsplit").rglob("*.*"))
    (work / "unsplit/.index").mkdir()
    lines = [f"{path} {number % 3}\n" for number, path in enumerate(paths)]
    (work / "unsplit/.index/split.txt").write_text("".join(lines))
    shutil.make_archive(str(work / f"flat/train/{_CLASSES[0]}"), "tar", work / "folder/train")
    shutil.make_archive(str(work / "packed/a"), "gztar", work / "folder")
    for name in ("flat/val", "devkit", "csv"):
        (work / name).mkdir()
    jpeg = next((work / "folder").rglob("*.jpg"))
    for index, split in enumerate(_IMAGES, 1):
        shutil.copy(jpeg, work / f"flat/val/ILSVRC2012_val_{index:08d}.JPEG")
        names = [f"{_CLASSES[index - 1]}{number:04d}0001.jpg" for number in range(10)]
        rows = [f"{name},{_CLASSES[index - 1]}\n" for name in names]
        (work / f"csv/{split}.csv").write_text("".join(["filename,label\n", *rows]))
    (work / "devkit/ILSVRC2012_validation_ground_truth.txt").write_text("1\n2\n3\n")
    rows = "".join(f"{index + 1} {name}\n" for index, name in enumerate(_CLASSES))
    (work / "devkit/devkit_classes.txt").write_text(rows)
    rows = "".join(f"{label} {name} name\n" for label, name in enumerate(_CLASSES))
    (work / "classes.txt").write_text(rows)
    (work / "real.json").write_text(json.dumps([[0, 1]] * 50_000))
    (work / "recipe.txt").write_text("# short\n--epochs=1\n--nonesterov\n--augment=hsv(9)\n")
    (work / "own.py").write_text(_CODE)
    (work / "words.txt").write_text("--crops=1\n--top_k=1\n")
    (work / "loop").symlink_to("loop")
    damage.make_zero(work / "zero")
    head = {"fc.weight": np.ones((3, 4), np.float32), "fc.bias": np.ones(3, np.float32)}
    save_file(head, work / "a.safetensors")
    (work / "weights").mkdir()
    save_file(head, work / "weights" / "model.safetensors")
    (work / "weights" / "config.json").write_text(json.dumps(_CARD))
    facts = {"dataset": "ilsvrc2012", "split": "val", "fingerprint": "f"}
    model = {"model": "a", "step": 2, "image_size": 32}
    meta = {"format": 1, "models": [model], "class_names": _CLASSES, **facts}
    np.savez(
        work / "logits.npz",
        labels=np.arange(3, dtype=np.int32),
        names=np.array([f"ILSVRC2012_val_{n:08d}.JPEG".encode() for n in (1, 2, 3)]),
        meta=np.frombuffer(json.dumps(meta).encode(), np.uint8),
        logits_0=rng.normal(size=(3, 10, 3)).astype(np.float32),
    )


def main() -> None:
    """Runs the example of the command line and prints how it ended."""
    argv, damages = json.loads(sys.argv[1])
    with Box() as box:
        outcome, fault = box.run(Example(tuple(argv), tuple(map(tuple, damages))))
    print(outcome.out, outcome.err, f"exit code {outcome.code}, {outcome.seconds:.1f} s", sep="")
    print(fault or "no fault")


if __name__ == "__main__":
    main()
