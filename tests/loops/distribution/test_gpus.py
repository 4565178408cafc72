"""GPU settings, as far as a machine without a GPU can test them."""

import pytest
import tensorflow as tf

from input_pipeline.augmentation import batch_augment
from input_pipeline.config import DataConfig
from loops.config.training import DistributionConfig
from loops.distribution import cluster_resolver, rendezvous, strategies
from loops.tools.data import prepare, stats, verify
from tests.command_line import parse


@pytest.mark.parametrize(("gpus", "implementation"), [(["GPU:0"], "NCCL"), ([], "AUTO")])
def test_gpus_of_several_workers_use_nccl(monkeypatch, gpus, implementation):
    """By default TensorFlow would send their gradients by gRPC."""

    class StrategyMade(Exception):
        pass

    def make_strategy(resolver, options):
        raise StrategyMade(options.implementation.name)

    monkeypatch.setattr(tf.distribute, "MultiWorkerMirroredStrategy", make_strategy)
    cluster = cluster_resolver.Cluster("TF_CONFIG", {"worker": ("a:1", "b:1")}, "worker", 0)
    monkeypatch.setattr(cluster_resolver, "find_cluster", lambda: cluster)
    monkeypatch.setattr(cluster_resolver, "make_resolver", lambda _: None)
    monkeypatch.setattr(rendezvous, "call_while_waiting", lambda _, make: make())
    monkeypatch.setattr(strategies, "set_up_gpus", lambda: gpus)
    with pytest.raises(StrategyMade, match=f"^{implementation}$"):
        strategies.make_strategy(DistributionConfig(strategy="multi_worker"))


@pytest.mark.parametrize(
    ("gpus", "xla", "compiled"), [([], False, True), (["GPU"], False, False), (["GPU"], True, True)]
)
def test_batch_augmentation_is_compiled_on_cpu_or_with_xla(monkeypatch, gpus, xla, compiled):
    calls = []
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: gpus)
    monkeypatch.setattr(tf, "function", lambda **kwargs: calls.append(kwargs) or (lambda f: f))
    batch_augment.make_preprocess_fn(DataConfig(mean=(1.0,) * 3, std=(2.0,) * 3), 0, xla)
    assert [kwargs["jit_compile"] for kwargs in calls] == [compiled]


@pytest.mark.parametrize("mode", [prepare, stats, verify])
def test_data_tools_hide_the_gpus(monkeypatch, tiny_folder, tmp_path, mode):
    calls = []
    monkeypatch.setattr(tf.config, "set_visible_devices", lambda *args: calls.append(args))
    mode.run(parse("--dataset=folder", f"--data_dir={tiny_folder}", f"--out={tmp_path / 'out'}"))
    assert calls == [([], "GPU")]
