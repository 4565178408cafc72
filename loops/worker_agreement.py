"""What all workers of a run must have in common: command, code, packages, environment, images.

Each worker computes its own update of the weights from the gradients of all. If these facts
differed, the weights of the workers would differ, without an error.
"""

import contextlib
import hashlib
import json
import os
import pathlib
from collections.abc import Iterator

import keras
import tensorflow as tf
from absl import logging

from input_pipeline.errors import UserError
from input_pipeline.sources.source import Source
from loops.checkpointing import checkpoint, run_folder
from loops.config import recipes
from loops.config.config import Config, all_flags
from loops.distribution import cluster_resolver, rendezvous, slurm, strategies
from loops.train_state import TrainState

# The flags that may differ between workers, and why. All others must be equal.
MAY_DIFFER = {
    "strategy": "auto and multi_worker mean the same if there are several workers",
    "data_dir": "a path; the lists of images and samples of the files are compared",
    "train_list": "likewise",
    "val_list": "likewise",
    "test_list": "likewise",
    "class_names": "a path; the names of the classes are compared",
    "checkpoint_dir": "a path; the loaded state is compared",
    "recipe": "perhaps a path; the flags that it sets are compared",
    "init_from": "a path; the loaded weights are compared",
    "ckpt": "paths; the names and manifests of the checkpoints are compared",
    "json": "only worker 0 writes it",
    "save_logits": "only worker 0 writes it",
    "cache": "the batches are the same",
    "data_service": "the batches are the same",
    "reader_threads": "the batches are the same",
    "verbose": "only the log differs",
}
# Environment variables with these prefixes change kernels, compilation or the order of sums.
_ENVIRONMENT = (
    *("TF_", "XLA_", "KERAS_", "ONEDNN_", "DNNL_", "CUBLAS_", "CUDNN_", "NVIDIA_TF32_"),
    *("OMP_NUM_THREADS", "MKL_", "EIGEN_"),
)
# Of these, the ones that say where a worker runs, what it logs, or how it uses memory.
_LOCAL_ENVIRONMENT = (
    *("TF_CONFIG", "TF_CPP_", "TF_FORCE_GPU_ALLOW_GROWTH", "TF_GPU_ALLOCATOR"),
    *("KERAS_HOME", "XLA_PYTHON_CLIENT_", "TF_PROFILER_"),
)
_ROOT = pathlib.Path(__file__).parents[1]
_CODE = ("main.py", "flags.py", "loops", "nets", "input_pipeline")
# Images of a split whose files are compared.
_NUM_SAMPLED = 32


@contextlib.contextmanager
def start_together(config: Config) -> Iterator[dict[str, str]]:
    """Prepares a start inside the context, then waits for the other workers, if there are any.

    Compares what they were started with. If one of them fails inside the context, all end.

    Args:
      config: config of the command line.

    Yields:
      dict for further facts that must be equal on all workers, by name.

    Raises:
      UserError: the workers differ, or are not named properly, or one has failed; on all workers.
      StoppedBySignal: a signal ended the wait.
    """
    if not strategies.is_multi_worker(config.distribution):
        yield {}
        return
    cluster = cluster_resolver.find_cluster()
    if cluster.source == "Slurm":
        slurm.restrict_visible_gpus()
    gpus = len(tf.config.list_physical_devices("GPU"))
    facts = {**describe_start(config), "the number of GPUs": str(gpus)}
    try:
        yield facts
    except UserError as error:
        logging.error("%s (the other workers are told)", error)
        rendezvous.meet(cluster, facts, error)
        raise
    rendezvous.meet(cluster, facts)


def describe_start(config: Config) -> dict[str, str]:
    """Describes what this process was started with: flags, code, packages, environment."""
    facts = _describe_config(config)
    facts["the code (SHA-256)"] = _hash_code()
    facts["the commit"] = run_folder.get_git_commit().rstrip("+")
    versions = run_folder.get_package_versions()
    facts |= {f"the version of {package}": version for package, version in versions.items()}
    settings = (keras.config.floatx(), keras.config.epsilon(), keras.config.image_data_format())
    facts["floatx, epsilon and format in keras.json"] = " ".join(map(str, settings))
    for name, value in sorted(os.environ.items()):
        if name.startswith(_ENVIRONMENT) and not name.startswith(_LOCAL_ENVIRONMENT):
            facts[name] = _show(value)
    return facts


def _describe_config(config: Config) -> dict[str, str]:
    flags = all_flags()
    return {
        f"--{name}" if name in flags else name: _show(value)
        for name, value in config.leaves().items()
        if name not in MAY_DIFFER
    }


def describe_recipe(config: Config) -> dict[str, str]:
    """Describes the flags that the recipe of a command line sets.

    Raises:
      UsageError: the recipe cannot be read.
    """
    values = recipes.read(config.optimization.recipe, all_flags())
    return {"what --recipe sets": ", ".join(f"--{name}={v}" for name, v in values.items())}


def describe_images(config: Config, **splits: Source | None) -> dict[str, str]:
    """Describes splits and their preprocessing.

    Args:
      config: resolved config; the images may have completed it.
      **splits: the splits by name; None if one is not used.
    """
    facts = _describe_config(config)
    for name, split in splits.items():
        if split is not None:
            facts["the names of the classes (SHA-256)"] = _hash("\n".join(split.class_names))
            facts[f"the number of {name} images"] = str(split.num_examples)
            flag = f"--{name}_list" if config.data.dataset == "lists" else "--data_dir"
            facts[f"the list of {name} images of {flag} (SHA-256)"] = split.fingerprint[:16]
            facts[f"the content of {name} images of {flag} (SHA-256)"] = _hash_sample(split)
    return facts


def _hash_sample(split: Source) -> str:
    """Returns a hash of the files of evenly spaced images."""
    digest = hashlib.sha256()
    for index in sorted({i * split.num_examples // _NUM_SAMPLED for i in range(_NUM_SAMPLED)}):
        try:
            digest.update(split.read_file(tf.constant(index, tf.int64))[0].numpy())
        except tf.errors.OpError:  # only training decides whether this is an error
            digest.update(b"unreadable")
    return digest.hexdigest()[:16]


def describe_state(state: TrainState) -> dict[str, str]:
    """Describes the state that training starts from."""
    digest = hashlib.sha256()
    for group, variables in sorted(state.variables().items()):
        for name, variable in sorted(variables.items()):
            digest.update(f"{group}/{name}".encode())
            digest.update(variable.numpy().tobytes())
    return {
        "the step to resume from in --checkpoint_dir": str(int(state.step)),
        "the compute type": state.compute_dtype,
        "the state from --init_from or --checkpoint_dir (SHA-256)": digest.hexdigest()[:16],
    }


def describe_checkpoint(step_dir: pathlib.Path) -> str:
    """Describes a checkpoint: run, step and a hash of its files."""
    files = json.dumps(checkpoint.verify(step_dir)["files"], sort_keys=True)
    return f"{step_dir.parent.name}/{step_dir.name} {_hash(files)}"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:16]


def _show(value: object) -> str:
    return rendezvous.NOT_SET if value is None or value == "" else str(value)


def _hash_code() -> str:
    digest = hashlib.sha256()
    for name in _CODE:
        path = _ROOT / name
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(f"{file.relative_to(_ROOT)}\n".encode() + file.read_bytes())
    return digest.hexdigest()[:16]
