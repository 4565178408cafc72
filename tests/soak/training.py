"""The training of a soak test: its images, its commands and its results."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import cv2
import numpy as np

from loops.checkpointing import checkpoint

ROOT = pathlib.Path(__file__).resolve().parents[2]
SAVE_EVERY = 200
_COUNTS = {"train": 3001, "val": 53}
_BROKEN = 2  # of the train images: fewer than the share at which training aborts
_FLAGS = (
    *("--dataset=folder", "--model=resnetv2_18", "--image_size=32", "--batch_size=8"),
    *("--crops=1", "--strategy=one", "--schedule=constant", "--warmup_epochs=0", "--ema=0.99"),
    *("--learning_rate=0.05", f"--save_every={SAVE_EVERY}", "--eval_every=2000", "--log_every=50"),
)


@dataclasses.dataclass(frozen=True)
class Images:
    """A folder of images.

    Attributes:
      folder: contains train/ and val/ with class folders.
      counts: number of images of each split, and of broken ones.
    """

    folder: pathlib.Path
    counts: dict[str, int]


def make_images(folder: pathlib.Path) -> Images:
    """Writes three classes of small noisy JPEG files; two of the train files are truncated."""
    rng = np.random.default_rng(0)
    for split, count in _COUNTS.items():
        for label in range(3):
            (folder / split / f"class{label}").mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 120, (40, 44, 3)).astype(np.uint8)
            pixels[..., number % 3] += 100
            data = cv2.imencode(".jpg", pixels)[1].tobytes()
            if split == "train" and number in range(500, 500 + _BROKEN):
                data = data[: len(data) // 3]
            (folder / split / f"class{number % 3}" / f"{number:04d}.jpg").write_bytes(data)
    return Images(folder, {**_COUNTS, "broken": _BROKEN})


class Training:
    """One run and the processes that work on it.

    Args:
      images: images to train on.
      root: folder of runs and logs.
      name: name of the run.

    Attributes:
      run_dir: run folder.
      log: file with the output of all processes.
    """

    def __init__(self, images: Images, root: pathlib.Path, name: str) -> None:
        self._images = images
        self._root = root
        self._name = name
        self.run_dir = root / name
        self.log = root / f"{name}.log"

    def start(self, mode: str, *words: str) -> subprocess.Popen:
        """Starts a command on the run, with a tiny model; returns its process."""
        if mode == "train":
            words = (
                *_FLAGS,
                f"--data_dir={self._images.folder}",
                f"--run_name={self._name}",
                *words,
                f"--checkpoint_dir={self._root}",
            )
        else:
            words = (f"--ckpt={self.run_dir}", *words)
        plan = json.dumps({"seconds": 10**6})
        command = [sys.executable, "-m", "tests.loops.worker", plan, f"--mode={mode}", *words]
        with open(self.log, "a") as log:
            environment = {k: v for k, v in os.environ.items() if k != "TF_CONFIG"}
            return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)

    def find_step(self) -> int:
        """Returns the step of the newest intact checkpoint, or 0 if there is none."""
        newest = checkpoint.find_newest_intact(self.run_dir) if self.run_dir.exists() else None
        return checkpoint.parse_step(newest) if newest else 0

    def hash_tensors(self) -> dict[str, str]:
        """Returns the sha256 of each data file of the newest checkpoint.

        Equal hashes mean that all variables are bit-identical.
        """
        newest = checkpoint.find_newest_intact(self.run_dir)
        files = json.loads((newest / "manifest.json").read_text())["files"]
        return {name: file["sha256"] for name, file in files.items() if ".data-" in name}

    def replay(self) -> str:
        """Returns the verdict of `--mode=repro`, or "none" if it wrote no report."""
        path = self._root / f"{self._name}-replay.json"
        self.start("repro", f"--json={path}").wait(timeout=600)
        return json.loads(path.read_text())["verdict"] if path.exists() else "none"

    def read_last_log_lines(self) -> list[str]:
        """Returns the last lines that the processes printed."""
        return self.log.read_text(errors="replace").splitlines()[-20:]
