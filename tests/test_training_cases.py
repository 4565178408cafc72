"""Whole commands that once trained wrongly, hung or ended in a traceback, one of each kind.

`python -m tests.test_training_cases FOLDER [NUMBER ...]` prints a line for each case; what it
writes is in the folder. As tests, they run with `make faults`.
"""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import traceback

import cv2
import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[1]
SECONDS = 300
CASES = {}

NO_FLOCK = """
#include <errno.h>
int flock(int fd, int op) { errno = ENOSYS; return -1; }
"""
# Starts main.py with a clock whose names of unnamed runs are all the same.
SAME_SECOND = """
import runpy, sys, time
real = time.strftime
time.strftime = lambda form, *a: "20260101-000000" if form == "%Y%m%d-%H%M%S" else real(form, *a)
sys.path.insert(0, ".")
runpy.run_path("main.py", run_name="__main__")
"""


def case(text):
    """Registers a case: a function of the work folder that asserts what is right."""

    def register(function):
        CASES[text] = function
        return function

    return register


def data_folder(work):
    """Returns a folder of four classes with 16 train and 4 val images each."""
    folder = work / "data"
    if not folder.exists():
        rng = np.random.default_rng(0)
        for split, count in (("train", 16), ("val", 4)):
            for label in range(4):
                (folder / split / f"class{label}").mkdir(parents=True)
                for number in range(count):
                    image = rng.integers(0, 60, (40, 40, 3)) + 45 * label
                    path = folder / split / f"class{label}" / f"{number}.png"
                    cv2.imwrite(str(path), image.astype(np.uint8))
    return folder


def small(work, *flags):
    """Returns the flags of a small training."""
    words = ["--mode=train", "--dataset=folder", f"--data_dir={data_folder(work)}", "--crops=1"]
    words += ["--model=resnetv2_18", "--image_size=32", "--batch_size=16"]
    return [*words, f"--checkpoint_dir={work / 'runs'}", *flags]


def start(words, script=("main.py",), cwd=ROOT, **environment):
    """Starts the program in the background; its output is one stream."""
    return subprocess.Popen(
        [sys.executable, *script, *map(str, words)],
        cwd=cwd,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1", **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # Under nohup it is ignored, and would be in the program too.
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    )


def finish(process, seconds=SECONDS):
    """Returns (exit code, output) of a process; one that hangs is killed."""
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
        raise AssertionError(f"hangs: {output[-500:]}") from None
    return process.returncode, output


def run(words, **options):
    return finish(start(words, **options))


def assert_refused(result, *texts):
    """Asserts that a command ended with exit code 2 and one line of error that has the texts."""
    code, output = result
    errors = [line for line in output.splitlines() if line.startswith("error: ")]
    assert (code, len(errors)) == (2, 1) and "Traceback" not in output, output[-1000:]
    assert all(text in errors[0] for text in texts), errors[0]


def assert_trained(result, *texts):
    """Asserts that a command ended with exit code 0 and that its output has the texts."""
    code, output = result
    assert code == 0, output[-1000:]
    assert all(text in output for text in texts), output[-2000:]


def steps(run_dir):
    return sorted(int(path.name[5:]) for path in run_dir.glob("step-*"))


def metrics(run_dir):
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


@case("1 top-1 under mixup asks for the class of the larger share")
def _(work):
    words = ["--mode=train", "--dataset=shapes", f"--data_dir={work / 'shapes'}", "--crops=1"]
    words += ["--model=resnetv2_18", "--image_size=32", "--epochs=3", "--log_every=1epochs"]
    words += ["--mixup=1", f"--checkpoint_dir={work / 'runs'}", "--run_name=mixed"]
    assert_trained(run(words))
    trained = [
        line["accuracy/top1"]
        for line in metrics(work / "runs/mixed")
        if "optim/learning_rate" in line
    ]
    # By the first label alone, a perfect net has 52 %; images of two classes remain hard.
    assert trained[-1] > 0.5, trained


@case("2 a worker that waits says for whom and ends on a signal")
def _(work):
    workers = ["localhost:23451", "localhost:23452"]
    config = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": 0}}
    for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        words = small(work, "--strategy=multi_worker", "--steps=2", "--run_name=alone")
        process = start(words, TF_CONFIG=json.dumps(config))
        time.sleep(40)
        process.send_signal(number)
        result = finish(process, 30)
        assert result[0] == code and workers[1] in result[1], result


@case("3 workers that were started with different flags refuse to train")
def _(work):
    workers = ["localhost:23461", "localhost:23462"]
    processes = []
    for index, rate in enumerate(("0.2", "2")):
        config = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
        words = small(work, "--strategy=multi_worker", "--steps=2", "--run_name=two")
        words.append(f"--learning_rate={rate}")
        processes.append(start(words, TF_CONFIG=json.dumps(config)))
    for process in processes:
        assert_refused(finish(process), "--learning_rate", "0.2", "2.0")


@case("4 ~ in a path is the home folder")
def _(work):
    home = work / "home"
    (home / "here").mkdir(parents=True)
    words = [*small(work), "--checkpoint_dir=~/runs", "--run_name=t", "--steps=1"]
    assert_trained(run(words, script=(str(ROOT / "main.py"),), cwd=home / "here", HOME=str(home)))
    assert steps(home / "runs/t") == [1]
    assert list((home / "here").iterdir()) == []


@case("5 a closed terminal saves the step")
def _(work):
    words = small(work, "--steps=100000", "--run_name=hup", "--log_every=1")
    process = start([*words, "--save_every=1000000", "--eval_every=1000000"])
    for _ in range(SECONDS):
        time.sleep(1)
        if (work / "runs/hup/metrics.jsonl").exists() and len(metrics(work / "runs/hup")) > 5:
            break
    process.send_signal(signal.SIGHUP)
    code, output = finish(process)
    assert code == 129 and len(steps(work / "runs/hup")) == 1, output[-1000:]


@case("6 KERAS_BACKEND of another project changes nothing")
def _(work):
    losses = []
    for backend in ("jax", "numpy", ""):
        name = f"backend{backend}"
        environment = {"KERAS_BACKEND": backend} if backend else {}
        words = small(work, f"--run_name={name}", "--steps=1", "--log_every=1")
        assert_trained(run(words, **environment))
        losses.append(metrics(work / "runs" / name)[0]["loss/total"])
    assert len(set(losses)) == 1, losses


@case("7 several workers in a Slurm allocation without srun")
def _(work):
    words = small(work, "--strategy=multi_worker", "--steps=1", "--run_name=slurm")
    slurm = {"SLURM_NTASKS": "2", "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-2]"}
    assert_refused(run(words, **slurm), "srun")


@case("8 a file system without flock")
def _(work):
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    library = work / "noflock.so"
    command = ["gcc", "-shared", "-fPIC", "-o", str(library), "-x", "c", "-"]
    subprocess.run(command, input=NO_FLOCK, text=True, check=True)
    words = small(work, "--steps=1", "--run_name=noflock")
    assert_trained(run(words, LD_PRELOAD=str(library)), "warning: ")
    assert steps(work / "runs/noflock") == [1]


@case("9 a run name with brackets")
def _(work):
    name = "lr[0.1]"
    assert_trained(run(small(work, "--steps=2", f"--run_name={name}")))
    assert steps(work / "runs" / name) == [2]
    words = ["--mode=eval", f"--ckpt={work / 'runs' / name}", "--crops=1"]
    assert_trained(run(words))


@case("10 a recipe trains at the typed image size")
def _(work):
    words = small(work, "--recipe=rsb_a3", "--steps=1", "--run_name=recipe")
    assert_trained(run([*words, "--image_size=64"]), "--image_size_schedule=0:160 left out")
    data = json.loads((work / "runs/recipe/config.json").read_text())["config"]["data"]
    assert (data["image_size"], data["image_size_schedule"]) == (64, "")


@case("11 two unnamed runs in one second")
def _(work):
    words = [word for word in small(work, "--steps=2") if "checkpoint_dir" not in word]
    words.append(f"--checkpoint_dir={work / 'unnamed'}")
    pair = [
        start([*words, f"--learning_rate={rate}"], script=("-c", SAME_SECOND))
        for rate in (0.1, 0.2)
    ]
    for process in pair:
        assert_trained(finish(process))
    folders = sorted((work / "unnamed").iterdir())
    assert [steps(folder) for folder in folders] == [[2], [2]]


@case("12 batch norm over one value")
def _(work):
    words = small(work, "--steps=1", "--run_name=one")
    assert_refused(run([*words, "--batch_size=4", "--accumulate=4"]), "--batch_size=4", "1 value")
    assert not (work / "runs/one").exists()


@case("13 TF_CONFIG with a worker that is no list")
def _(work):
    text = '{"cluster":{"worker":"localhost:23451"},"task":{"type":"worker","index":0}}'
    words = small(work, "--strategy=multi_worker", "--steps=1", "--run_name=text")
    assert_refused(run(words, TF_CONFIG=text), "TF_CONFIG", "not of the form")


@case("14 --auto_batch next to a folder called loops")
def _(work):
    folder = work / "neighbor"
    (folder / "loops").mkdir(parents=True)
    (folder / "loops/__init__.py").write_text("")
    words = small(work, "--auto_batch", "--steps=1", "--run_name=auto")
    assert_trained(run(words, script=(str(ROOT / "main.py"),), cwd=folder))


@case("15 the best evaluation is saved, also where the intervals never meet")
def _(work):
    intervals = ["--steps=7", "--eval_every=2", "--save_every=3", "--keep=9"]
    assert_trained(run(small(work, *intervals, "--run_name=unmet")))
    run_dir = work / "runs/unmet"
    top1 = {
        line["step"]: line["accuracy/top1"] for line in metrics(run_dir) if line["split"] == "eval"
    }
    best = max(top1.values())
    assert min(step for step in top1 if top1[step] == best) in steps(run_dir), (
        top1,
        steps(run_dir),
    )


@case("16 a warm-up that is cut is said")
def _(work):
    words = small(work, "--epochs=2", "--warmup_epochs=2", "--schedule=constant")
    assert_trained(
        run([*words, "--run_name=warm"]), "warning: --warmup_epochs=2 is 8 steps: cut to 4"
    )


@case("17 --cpu_devices=2 alone is two replicas")
def _(work):
    words = small(work, "--steps=1", "--cpu_devices=2", "--run_name=replicas")
    assert_trained(run(words), " on 2 CPUs")


@case("18 a finished run that is named again writes nothing new")
def _(work):
    run_dir = work / "runs/done"
    words = small(work, "--steps=2", "--run_name=done")
    assert_trained(run(words))
    before = (metrics(run_dir), sorted(p.name for p in run_dir.rglob("*tfevents*")))
    assert_trained(run(words))
    assert (metrics(run_dir), sorted(p.name for p in run_dir.rglob("*tfevents*"))) == before


@pytest.mark.faults
@pytest.mark.parametrize("name", CASES)
def test_case(name, tmp_path):
    CASES[name](tmp_path)


def main():
    """Prints a line for each case; exits with 1 if one of them fails."""
    work, *words = sys.argv[1:]
    failed = 0
    for number, (name, function) in enumerate(CASES.items(), 1):
        if words and name.split()[0] not in words:
            continue
        folder = pathlib.Path(work).absolute() / str(number)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        started = time.monotonic()
        try:
            function(folder)
            text = "ok  "
        except (AssertionError, pytest.skip.Exception) as error:
            text = "FAIL" if isinstance(error, AssertionError) else "skip"
            failed += text == "FAIL"
            traceback.print_exc()
        sys.stdout.write(f"{text} {name} [{time.monotonic() - started:.0f} s]\n")
        sys.stdout.flush()
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
