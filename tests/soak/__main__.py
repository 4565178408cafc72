"""Runs one training under random disturbances and checks that it recovers by itself (`make soak`).

    python -m tests.soak --minutes=45 --json=soak.json

A tiny model trains on a data set with two broken images. At random moments the training gets
SIGTERM, SIGUSR1 or SIGKILL, and is started again with the same command. Between the starts, the
newest checkpoint is damaged at random, and evaluations run.

Then one undisturbed process runs the same number of steps, while its memory and its file
descriptors are measured. Both trainings must end with bit-identical weights.
"""

import argparse
import json
import pathlib
import sys
import tempfile
from collections.abc import Mapping
from typing import Any

from tests.soak import disturbed, undisturbed
from tests.soak.training import Training, make_images


def soak(root: pathlib.Path, minutes: float, seed: int) -> dict[str, Any]:
    """Runs both trainings in a folder and returns the report."""
    images = make_images(root / "images")
    disturbed_training = Training(images, root, "disturbed")
    undisturbed_training = Training(images, root, "undisturbed")
    report = {"minutes": minutes, "seed": seed, "images": images.counts}
    report |= disturbed.run(disturbed_training, 60 * minutes, seed)
    if report["manual_actions"] == 0:
        report |= undisturbed.run(undisturbed_training, report["steps"])
        report["final_weights_equal"] = (
            disturbed_training.hash_tensors() == undisturbed_training.hash_tensors()
        )
        report["replay"] = undisturbed_training.replay()
    report["passed"] = is_passed(report)
    return report


def is_passed(report: Mapping[str, Any]) -> bool:
    """Returns whether a report fulfills R19 of the reliability guarantees."""
    return bool(
        report["manual_actions"] == 0
        and report["most_steps_lost"] <= report["save_every"]
        and report["memory_growth"] is not None
        and report["memory_growth"] < 0.05
        and report["descriptors_growth"] <= 0
        and report["final_weights_equal"]
        and report["replay"] == "bitwise"
    )


def main() -> int:
    """Runs the soak test, prints the report, and returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=45.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", default="")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = soak(pathlib.Path(folder), arguments.minutes, arguments.seed)
    text = json.dumps(report, indent=1)
    if arguments.json:
        pathlib.Path(arguments.json).write_text(text + "\n")
    print(text)
    return 0 if report["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
