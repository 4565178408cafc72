"""The measurements of `benchmarks.growth`; each runs in a new process."""

import argparse
import contextlib
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping

from benchmarks import harness
from benchmarks.workloads import input_format_workloads

_CLASSES = 1000
_WORKERS_IMAGES = 2000
_WARM_UP = 2
_STEPS_PER_CALL = 2


def measure(args: argparse.Namespace, axis: str, value: int) -> dict[str, float]:
    """Measures one value of an axis of `benchmarks.growth.AXES`.

    Returns:
      A dict: images_per_second (not for checkpoints), peak_mb, start_seconds.
    """
    return _MEASUREMENTS[axis](args, value)


def _measure_step(
    args: argparse.Namespace, size: int = 0, batch: int = 0, classes: int = _CLASSES
) -> dict[str, float]:
    from benchmarks.workloads.bare_step import BareStep

    argv = ["main.py", f"--model={args.model}", "--strategy=one"]
    argv += [f"--image_size={size or args.size}", f"--batch_size={batch or args.batch}"]
    step = BareStep(argv, classes)
    step(1)
    start_seconds = harness.get_seconds_since_start()
    speed = step.measure_speed(_WARM_UP, args.steps, _STEPS_PER_CALL)
    return {
        "images_per_second": speed["images_per_second"],
        "peak_mb": harness.peak_memory_mb(),
        "start_seconds": start_seconds,
    }


def link_images(args: argparse.Namespace, count: int) -> None:
    """Makes a data set of class folders whose images are hard links to a few photographs."""
    copies, root = pathlib.Path(args.work, "photographs"), _images_folder(args, count)
    if not copies.exists():
        copies.mkdir()
        for number, file in enumerate(input_format_workloads.list_files(args.data_dir)):
            shutil.copyfile(file, copies / f"{number}.JPEG")
    files = sorted(copies.iterdir())
    folders = [root / f"train/c{number:04d}" for number in range(min(_CLASSES, count))]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        name = folders[number % len(folders)] / f"photograph_{number}.JPEG"
        os.link(files[number % len(files)], name)


def _images_folder(args: argparse.Namespace, count: int) -> pathlib.Path:
    return pathlib.Path(args.work, f"images-{count}")


def _measure_input(
    args: argparse.Namespace, images: int, data_service: str = ""
) -> dict[str, float]:
    from input_pipeline.config import DataConfig

    config = DataConfig(
        dataset="folder",
        data_dir=str(_images_folder(args, images)),
        batch_size=input_format_workloads.BATCH,
        data_service=data_service,
        **input_format_workloads.get_classic_fields("folder", os.cpu_count() or 1),
    )
    batches = input_format_workloads.load_batches(config)
    next(batches)
    start_seconds = harness.get_seconds_since_start()
    return {
        **input_format_workloads.time_batches(batches, config.batch_size, args.seconds),
        "peak_mb": harness.peak_memory_mb(),
        "start_seconds": start_seconds,
    }


def _measure_workers(args: argparse.Namespace, workers: int) -> dict[str, float]:
    if not workers:
        return _measure_input(args, _WORKERS_IMAGES)
    with _data_service(workers) as dispatcher:
        return _measure_input(args, _WORKERS_IMAGES, dispatcher)


@contextlib.contextmanager
def _data_service(workers: int) -> Iterator[str]:
    """Yields the address of a dispatcher with ready workers; stops them at the end."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(workers + 1)]
        for free in sockets:
            free.bind(("", 0))
        host = socket.gethostname()
        dispatcher, *names = (f"{host}:{free.getsockname()[1]}" for free in sockets)
    processes = []
    try:
        for role, own in [("dispatcher", ",".join(names)), *(("worker", name) for name in names)]:
            words = [f"--role={role}", f"--data_service={dispatcher}", f"--workers={own}"]
            command = [sys.executable, "-u", "main.py", "--mode=data_service", *words]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            processes.append(process)
            if process.stdout is None or "ready" not in process.stdout.readline():
                raise RuntimeError(f"the {role} of the data service has ended")
        yield dispatcher
    finally:
        for process in processes:
            process.kill()
            process.wait()


def make_run(args: argparse.Namespace, count: int) -> None:
    """Trains a run whose folder has `count` step folders."""
    _train(args, count, count)


def _measure_checkpoints(args: argparse.Namespace, count: int) -> dict[str, float]:
    """Resumes the run of `make_run` for one more step than in the round before."""
    steps = len(list(pathlib.Path(args.work, f"run-{count}").glob("step-*"))) + 1
    started = time.perf_counter()
    peak_mb = _train(args, count, steps)
    return {"peak_mb": peak_mb, "start_seconds": time.perf_counter() - started}


def _train(args: argparse.Namespace, count: int, steps: int) -> float:
    """Trains to a step and saves every step; returns the peak memory in 10^6 bytes."""
    command = [sys.executable, "main.py", "--mode=train", "--dataset=shapes", "--crops=1"]
    command += [f"--model={args.model}", "--image_size=32", "--batch_size=8", "--save_every=1"]
    command += ["--eval_every=1000epochs", "--log_every=100000", f"--keep={10 * count}"]
    command += [f"--checkpoint_dir={args.work}", f"--run_name=run-{count}", f"--steps={steps}"]
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, stdout=quiet, stderr=quiet)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"{' '.join(command)}: exit code {os.waitstatus_to_exitcode(status)}")
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


_MEASUREMENTS: dict[str, Callable[[argparse.Namespace, int], dict[str, float]]] = {
    "images": _measure_input,
    "classes": lambda args, value: _measure_step(args, classes=value),
    "image size": lambda args, value: _measure_step(args, size=value),
    "batch size": lambda args, value: _measure_step(args, batch=value),
    "workers": _measure_workers,
    "checkpoints": _measure_checkpoints,
}


# Makes what an axis needs, by axis.
PREPARATIONS: dict[str, Callable[[argparse.Namespace, int], None]] = {
    "images": link_images,
    "workers": lambda args, value: None if value else link_images(args, _WORKERS_IMAGES),
    "checkpoints": make_run,
}


def write_picture(
    path: pathlib.Path,
    axis: str,
    results: Mapping[int, Mapping[str, float]],
    titles: Mapping[str, str],
) -> None:
    """Writes a PNG file with one plot for each quantity.

    Args:
      path: the file; its folder is created.
      axis: name of the horizontal axis.
      results: quantities of each value on the axis.
      titles: titles of the plots, by quantity; those without results are left out.
    """
    import cv2
    import numpy as np

    from loops.monitoring import plots

    drawn = [
        plots.draw_curves(
            {"": [(place, quantities[name]) for place, quantities in enumerate(results.values())]},
            title,
            top=1.1 * max(quantities[name] for quantities in results.values()),
            width=300,
            height=180,
            x_title=axis,
            x_ticks=[f"{value:,}" for value in results],
        )
        for name, title in titles.items()
        if all(name in quantities for quantities in results.values())
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.hstack(drawn)[:, :, ::-1])
