"""One setup for every training, and a training step of one's choice."""

import numpy as np
import pytest
import tensorflow as tf

from loops.train_setup import TrainSetup
from loops.train_step import TrainStep
from tests.command_line import refusal, resolve
from tests.loops.small_steps import BATCH, batches, make_state, random_images, settings, weights

pytestmark = pytest.mark.usefixtures("tiny_net")


class TripleLossStep(TrainStep):
    """Optimizes three times the loss."""

    def loss_and_gradients(self, images, targets, scale):
        loss, logits, gradients = super().loss_and_gradients(images, targets, scale)
        return 3.0 * loss, logits, [3.0 * gradient for gradient in gradients]


def run_one_step(step_class, strategy, **changes):
    """Returns (loss, update of each weight) of one step of plain gradient descent."""
    state = make_state(strategy, "--momentum=0", "--nonesterov")
    before = weights(state)
    plain = {"weight_decay": 0.0, "learning_rate": lambda step: tf.constant(0.01)}
    step = step_class(state, settings(**plain, **changes))
    sums = step(batches(strategy, random_images(1)), tf.constant(1, tf.int64))
    return float(sums["loss"]), {k: v - before[k] for k, v in weights(state).items()}


@pytest.mark.parametrize("accumulate", [1, 2])
def test_overridden_loss_and_gradients_are_what_is_optimized(mirrored, accumulate):
    loss, updates = run_one_step(TrainStep, mirrored, accumulate=accumulate)
    triple_loss, triple_updates = run_one_step(TripleLossStep, mirrored, accumulate=accumulate)
    assert triple_loss == pytest.approx(3 * loss, rel=1e-5)
    for path, update in updates.items():
        np.testing.assert_allclose(triple_updates[path], 3 * update, atol=1e-6, err_msg=path)


@pytest.mark.parametrize("clip_norm", [0.125, 1e6])
def test_gradients_are_clipped_to_their_global_norm(mirrored, clip_norm):
    """Pascanu et al. 2013, algorithm 1."""
    _, plain = run_one_step(TrainStep, mirrored)
    _, clipped = run_one_step(TrainStep, mirrored, clip_norm=clip_norm)
    norm = np.sqrt(sum((update.astype(np.float64) ** 2).sum() for update in plain.values())) / 0.01
    assert 0.125 < norm < 1e6
    for path, update in plain.items():
        expected = update * min(1.0, clip_norm / norm)
        np.testing.assert_allclose(clipped[path], expected, rtol=1e-3, atol=1e-7, err_msg=path)


def make_config(folder, *words):
    words = ["--dataset=folder", f"--data_dir={folder}", f"--batch_size={BATCH}", *words]
    return resolve("--model=resnetv2_18", "--image_size=32", "--strategy=one", *words)


def test_setup_opens_the_data_and_then_builds_the_step(tiny_folder):
    setup = TrainSetup(make_config(tiny_folder, "--steps=5"))
    assert (setup.train_split.num_examples, setup.val_split.num_examples) == (23, 11)
    assert setup.schedule.total_steps == 5
    assert setup.state is None and setup.step is None
    setup.build()
    assert isinstance(setup.step, TrainStep)
    assert setup.state.model.output_shape == (None, 3)


def test_setup_without_val_needs_no_val_images(tiny_folder, tmp_path):
    (tmp_path / "train").symlink_to(tiny_folder / "train")
    config = make_config(tmp_path)
    assert TrainSetup(config, with_val=False).val_split is None
    assert "val" in refusal(TrainSetup, config)


def test_batch_size_that_replicas_cannot_share_is_refused(tiny_folder):
    config = make_config(tiny_folder, "--batch_size=9", "--accumulate=2")
    assert "--batch_size=9" in refusal(TrainSetup, config)


@pytest.mark.parametrize("batch_size", [23, 24])
def test_a_batch_larger_than_the_split_is_named(tiny_folder, caplog, batch_size):
    TrainSetup(make_config(tiny_folder, f"--batch_size={batch_size}"), with_val=False)
    message = "--batch_size=24: a batch repeats images, because train has only 23"
    assert (message in caplog.messages) is (batch_size == 24)


def test_one_class_is_refused(tiny_folder, tmp_path):
    (tmp_path / "train").mkdir()
    first = sorted((tiny_folder / "train").iterdir())[0]
    (tmp_path / "train" / first.name).symlink_to(first)
    error = refusal(TrainSetup, make_config(tmp_path), with_val=False)
    assert f"train has only the class {first.name}" in error


@pytest.mark.parametrize(
    ("words", "count"),
    [
        (("--batch_size=8", "--accumulate=8"), 1),
        (("--batch_size=1", "--image_size=64", "--image_size_schedule=0:32"), 1),
        (("--batch_size=2",), 2),
        (("--batch_size=1", "--image_size=64"), 4),  # a last map of 2 x 2
        (("--batch_size=8",), 8),
    ],
)
def test_batch_norm_over_one_value_is_refused(tiny_folder, monkeypatch, caplog, words, count):
    """Of one value x, x - mean is 0: the output and the gradient do not depend on x."""
    monkeypatch.undo()  # of the tiny net, whose maps are larger
    config = make_config(tiny_folder, *words)
    setup = TrainSetup(config, with_val=False)
    if count == 1:
        assert "batch norm has 1 value per channel" in refusal(setup.build)
        return
    setup.build()
    warned = [m for m in caplog.messages if f"batch norm has {count} values per channel" in m]
    assert len(warned) == (count < 8)
