"""`make soak`: one training, disturbed for so many minutes, and nobody there to help it.

A tiny net trains on a set with two broken images. SIGTERM, SIGUSR1 and kill -9 come at random
moments, the newest checkpoint is damaged at random while nothing runs, an evaluation is started in
between, and each time the same command goes on. After these minutes one undisturbed process makes
as many steps, while its memory and its file descriptors are watched, and must end at the same bits.

    python -m tests.soak --minutes=45 --json=soak.json
"""

import argparse
import json
import pathlib
import sys
import tempfile

from tests.soak import disturbed, undisturbed
from tests.soak.training import Training, make_images


def soak(root, minutes, seed):
    """Runs both trainings in a folder; returns the report."""
    images = make_images(root / "images")
    upset, calm = Training(images, root, "disturbed"), Training(images, root, "undisturbed")
    report = {"minutes": minutes, "seed": seed, "images": images.facts}
    report |= disturbed.run(upset, 60 * minutes, seed)
    if report["manual_actions"] == 0:
        report |= undisturbed.run(calm, report["steps"])
        report["final_weights_equal"] = upset.tensors() == calm.tensors()
        report["replay"] = calm.replay()
    report["passed"] = passed(report)
    return report


def passed(report):
    """Whether a report is what is promised: R19 of the reliability goals."""
    return bool(
        report["manual_actions"] == 0
        and report["most_steps_lost"] <= report["save_every"]
        and report["memory_growth"] is not None
        and report["memory_growth"] < 0.05
        and report["descriptors_growth"] <= 0
        and report["final_weights_equal"]
        and report["replay"] == "bitwise"
    )


def main():
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
