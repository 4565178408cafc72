"""Fixtures with a tiny net, which is built and traced in a second."""

import numpy as np
import pytest

from loops import train_loop, train_statistics
from loops.checkpointing import checkpoint, restore, run_folder
from loops.config import resolve
from loops.config.config import Config
from nets import registry
from tests.loops import tiny_nets

TINY_CLASSES = ("disc", "grid", "stripes")


@pytest.fixture
def tiny_net(monkeypatch):
    """Replaces every registered net by two convolutions.

    In such a small net, no input of a ReLU is within rounding error of zero. In a deep net, one of
    them can change sign on two replicas, which changes weights by more than 1e-6.

    Batch norm's statistics are not measured, as after the first 1,000 steps, because another trace
    would take seconds, see `early_statistics`.
    """
    monkeypatch.setattr(registry, "build_model", tiny_nets.build)
    for module in (train_loop, train_statistics):
        monkeypatch.setattr(module, "EARLY_STEPS", 0)


@pytest.fixture
def early_statistics(tiny_net, monkeypatch):
    """Measures batch norm's statistics in the first 1,000 steps, as separate processes do."""
    for module in (train_loop, train_statistics):
        monkeypatch.setattr(module, "EARLY_STEPS", 1000)


@pytest.fixture(scope="session")
def make_run(one_device):
    """Returns a function that makes a run folder without training.

    The weights of the tiny net are random and give confident predictions. Keyword arguments are
    fields of the config, such as `image_size=40`.
    """

    def make(run, seed=0, class_names=TINY_CLASSES, **values):
        values = {"dataset": "folder", "data_dir": "nowhere", "image_size": 32, **values}
        config = resolve.resolve(Config().replace(**values))
        run.mkdir(parents=True)
        run_folder.write_record(run, run_folder.Record(config, tuple(class_names), {}))
        rng = np.random.default_rng(seed)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(registry, "build_model", tiny_nets.build)
            model = restore.build_model(one_device, config.net, len(class_names), "float32")
        for variable in model.trainable_variables:
            variable.assign(rng.normal(0, 0.5, variable.shape))
        checkpoint.save(run, 4, {"model": restore.variables_by_path(model)})
        return run

    return make
