"""Runs one of two workers; the second has an infinite gradient.

`python -m tests.canaries.hanging_worker NUMBER`
"""

import os
import sys
import threading
import time

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
HANG_EXIT_CODE = 7


def main():
    import tensorflow as tf

    strategy = tf.distribute.MultiWorkerMirroredStrategy()  # before any other operation
    import keras

    with strategy.scope():
        dense = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")
        net = keras.Sequential([keras.Input((1,)), dense])
        optimizer = keras.optimizers.LossScaleOptimizer(
            keras.optimizers.SGD(0.1), initial_scale=8.0
        )
        optimizer.build(net.trainable_variables)

    @tf.function
    def step(gradient):
        def on_replica():
            optimizer.apply_gradients([(tf.reshape(gradient, [1, 1]), net.trainable_variables[0])])

        strategy.run(on_replica)

    step(tf.constant(8.0))
    infinite = int(sys.argv[1]) == 1
    watchdog = threading.Timer(15.0, lambda: os._exit(HANG_EXIT_CODE))
    watchdog.daemon = True
    watchdog.start()
    step(tf.constant(float("inf") if infinite else 8.0))
    watchdog.cancel()
    time.sleep(30.0)  # stay alive, so that the other worker gets no error
    os._exit(0)


if __name__ == "__main__":
    main()
