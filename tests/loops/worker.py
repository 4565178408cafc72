"""Runs main.py with a tiny net and injected faults, in a process that a test starts.

The first argument is a plan in JSON: batches to poison, and when to send a signal. The product has
no switches for tests, so this module replaces functions of it.
"""

import json
import os
import signal
import sys
import threading

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
os.environ["OMP_NUM_THREADS"] = "1"


def use_tiny_net():
    """Replaces every registered net by two convolutions, with dropout if the config has it."""
    import keras

    from nets import registry
    from nets.layers.kit import Kit

    def build(config, random_weights=True):
        random = {"dropout": config.dropout, "stochastic_depth": config.stochastic_depth}
        kit = Kit(config.compute_dtype, config.sync_batch_norm, **random)
        image = kit.image()
        x = kit.batch_norm_relu(kit.conv(image, 8, 3, "conv1", stride=2), "conv1")
        x = kit.batch_norm_relu(kit.conv(x, 16, 3, "conv2", stride=2), "conv2")
        if config.stochastic_depth:
            x = kit.begin_residual_blocks(x, 1)
            x = kit.add(kit.conv(x, 16, 3, "conv3"), x, "sum")
        x = kit.dropout(kit.global_average_pool(x, "pool"), "dropout")
        return keras.Model(image, kit.logits(x, config.num_classes))

    registry.build_model = build


def poison(samples, value):
    """Sets all pixels of these sample numbers to NaN or infinity before they enter the net."""
    import tensorflow as tf

    from input_pipeline.augmentation import batch_augment

    make_preprocess_fn = batch_augment.make_preprocess_fn

    def make_poisoned_fn(*arguments):
        preprocess = make_preprocess_fn(*arguments)

        def preprocess_and_poison(batch):
            images, targets = preprocess(batch)
            matches = batch["sample"][:, None] == tf.constant(samples, tf.int64)
            is_poisoned = tf.reduce_any(matches, axis=1)[:, None, None, None]
            return tf.where(is_poisoned, float(value), images), targets

        return preprocess_and_poison

    batch_augment.make_preprocess_fn = make_poisoned_fn


def send_signal_at(step, name):
    """Sends this process a signal after each step from `step` on, before the step is logged."""
    from loops.monitoring import step_intervals

    is_due = step_intervals.StepIntervals.is_due

    def send_signal_and_check(self, event, current_step):
        if current_step >= step and event == "log_every" and name:
            os.kill(os.getpid(), getattr(signal, name))
        return is_due(self, event, current_step)

    step_intervals.StepIntervals.is_due = send_signal_and_check


def kill_at(function, at):
    """Kills this process when it calls a function of os for the n-th time."""
    original, calls = getattr(os, function), []

    def count_or_kill(*arguments, **options):
        calls.append(function)
        if len(calls) == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **options)

    setattr(os, function, count_or_kill)


def main():
    plan, argv = json.loads(sys.argv[1]), sys.argv[2:]
    watchdog = threading.Timer(plan.get("seconds", 280), lambda: os._exit(99))
    watchdog.daemon = True
    watchdog.start()
    import main as program

    program.mode_function("train")  # loads TensorFlow
    use_tiny_net()
    if "poison" in plan:
        poison(*plan["poison"])
    if "signal" in plan:
        send_signal_at(*plan["signal"])
    if "kill_at" in plan:
        kill_at(*plan["kill_at"])
    return program.main(["main.py", *argv])


if __name__ == "__main__":
    sys.exit(main())
