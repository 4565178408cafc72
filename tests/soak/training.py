"""The training that a soak disturbs: its images, its command, its processes, its end."""

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
_BROKEN = 2  # of the train images: below the share at which training stops
_FLAGS = (
    *("--dataset=folder", "--model=resnetv2_18", "--image_size=32", "--batch_size=8"),
    *("--crops=1", "--strategy=one", "--schedule=constant", "--warmup_epochs=0", "--ema=0.99"),
    *("--learning_rate=0.05", f"--save_every={SAVE_EVERY}", "--eval_every=2000", "--log_every=50"),
)


@dataclasses.dataclass(frozen=True)
class Images:
    """A folder of images and what is in it."""

    folder: pathlib.Path
    facts: dict


def make_images(folder):
    """Writes three classes of small noisy JPEG files; two of the train files are cut short."""
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
      images: Images.
      root: folder of runs and logs.
      name: of the run.
    """

    def __init__(self, images, root, name):
        self._images = images
        self._root = root
        self._name = name
        self.run_dir = root / name
        self.log = root / f"{name}.log"

    def start(self, mode, *words):
        """Starts a command on the run, with a tiny net; returns its process."""
        if mode == "train":
            words = (
                *_FLAGS,
                f"--data_dir={self._images.folder}",
                f"--run_name={self._name}",
                *words,
            )
            words = (*words, f"--checkpoint_dir={self._root}")
        else:
            words = (f"--ckpt={self.run_dir}", *words)
        plan = json.dumps({"seconds": 10**6})
        command = [sys.executable, "-m", "tests.loops.worker", plan, f"--mode={mode}", *words]
        with open(self.log, "a") as log:
            environment = {k: v for k, v in os.environ.items() if k != "TF_CONFIG"}
            return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)

    def step(self):
        """The newest intact step, 0 where there is none."""
        newest = checkpoint.find_newest_intact(self.run_dir) if self.run_dir.exists() else None
        return checkpoint.parse_step(newest) if newest else 0

    def tensors(self):
        """sha256 of each file of the newest step: equal where every variable is, bit for bit."""
        newest = checkpoint.find_newest_intact(self.run_dir)
        files = json.loads((newest / "manifest.json").read_text())["files"]
        return {name: facts["sha256"] for name, facts in files.items() if ".data-" in name}

    def replay(self):
        """The verdict of `--mode=repro`."""
        facts = self._root / f"{self._name}-replay.json"
        self.start("repro", f"--json={facts}").wait(timeout=600)
        return json.loads(facts.read_text())["verdict"] if facts.exists() else "none"

    def last_words(self):
        """The end of what its processes said."""
        return self.log.read_text(errors="replace").splitlines()[-20:]
