"""What GPUs are asked to do, as far as a machine without one can tell."""

import pytest
import tensorflow as tf

from input_pipeline.augmentation import batch_augment
from input_pipeline.config import DataConfig
from loops.config.training import DistributionConfig
from loops.distribution import cluster_resolver, strategies
from loops.tools.data import prepare, stats, verify
from tests.command_line import parse


@pytest.mark.parametrize(("gpus", "way"), [(["GPU:0"], "NCCL"), ([], "AUTO")])
def test_gpus_of_several_workers_meet_by_nccl(monkeypatch, gpus, way):
    """Of itself TensorFlow would send their gradients round by gRPC."""

    class Told(Exception):
        pass

    def strategy(resolver, options):
        raise Told(options.implementation.name)

    monkeypatch.setattr(tf.distribute, "MultiWorkerMirroredStrategy", strategy)
    monkeypatch.setattr(cluster_resolver, "make_resolver", lambda: None)
    monkeypatch.setattr(strategies, "set_up_gpus", lambda: gpus)
    with pytest.raises(Told, match=f"^{way}$"):
        strategies.make_strategy(DistributionConfig(strategy="multi_worker"))


@pytest.mark.parametrize(
    ("gpus", "xla", "compiled"), [([], False, True), (["GPU"], False, False), (["GPU"], True, True)]
)
def test_who_compiles_the_stages_on_batches(monkeypatch, gpus, xla, compiled):
    told = []
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: gpus)
    monkeypatch.setattr(tf, "function", lambda **words: told.append(words) or (lambda f: f))
    batch_augment.make_preprocess_fn(DataConfig(mean=(1.0,) * 3, std=(2.0,) * 3), 0, xla)
    assert [words["jit_compile"] for words in told] == [compiled]


@pytest.mark.parametrize("mode", [prepare, stats, verify])
def test_tools_that_look_at_images_leave_the_gpus_alone(monkeypatch, tiny_folder, tmp_path, mode):
    told = []
    monkeypatch.setattr(tf.config, "set_visible_devices", lambda *words: told.append(words))
    mode.run(*parse("--dataset=folder", f"--data_dir={tiny_folder}", f"--out={tmp_path / 'out'}"))
    assert told == [([], "GPU")]
