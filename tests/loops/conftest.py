"""A net that is built and traced in a second, for tests of what is around it."""

import numpy as np
import pytest

from loops.checkpointing import checkpoint, restore, run_folder
from loops.config import resolve
from loops.config.config import Config
from nets import registry
from tests.loops import tiny_nets

TINY_CLASSES = ("disc", "grid", "stripes")


@pytest.fixture
def tiny_net(monkeypatch):
    """Two convolutions in place of the registered net.

    Also small enough that no ReLU's input lies within rounding error of zero: in a deep net one
    such element goes the other way on two replicas and moves weights by more than 1e-6.
    """
    monkeypatch.setattr(registry, "build_model", tiny_nets.build)


@pytest.fixture(scope="session")
def make_run(one_device):
    """Returns the function that makes a run folder as training leaves it, in no time.

    The tiny net has random weights that make it sure of itself. Further arguments are leaves of
    the config, as `image_size=40`.
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
