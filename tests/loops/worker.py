"""One worker of a training of a tiny net, for tests that start several: a process of its own.

The net, what is poisoned, and what the child does at which step are said in JSON on the command
line; no switch for tests is in the product.
"""

import json
import os
import signal
import sys
import threading

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
os.environ["OMP_NUM_THREADS"] = "1"


def use_tiny_net():
    """Puts two convolutions in place of the registered nets, with dropout where it is asked for."""
    import keras

    from nets import registry
    from nets.layers.kit import Kit

    def build(config):
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
    """Images with these sample numbers become NaN or infinity in front of the net."""
    import tensorflow as tf

    from input_pipeline.augmentation import batch_augment

    make_prepare = batch_augment.make_preprocess_fn

    def make(*arguments):
        prepare = make_prepare(*arguments)

        def poisoned(batch):
            images, targets = prepare(batch)
            hit = tf.reduce_any(batch["sample"][:, None] == tf.constant(samples, tf.int64), axis=1)
            return tf.where(hit[:, None, None, None], float(value), images), targets

        return poisoned

    batch_augment.make_preprocess_fn = make


def at_step(step, action):
    """Sends this process a signal once it has logged a step."""
    from loops.monitoring import step_intervals

    is_due = step_intervals.StepIntervals.is_due

    def is_due_and_act(self, name, done):
        if done >= step and name == "log_every" and action:
            os.kill(os.getpid(), getattr(signal, action))
        return is_due(self, name, done)

    step_intervals.StepIntervals.is_due = is_due_and_act


def kill_at(function, at):
    """Kills this process at its n-th call of a function of os, before it is done."""
    real, calls = getattr(os, function), []

    def count(*arguments, **options):
        calls.append(function)
        if len(calls) == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **options)

    setattr(os, function, count)


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
        at_step(*plan["signal"])
    if "kill_at" in plan:
        kill_at(*plan["kill_at"])
    return program.main(["main.py", *argv])


if __name__ == "__main__":
    sys.exit(main())
