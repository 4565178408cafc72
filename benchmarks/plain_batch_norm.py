"""`main.py --mode=train` with Keras's batch norm in place of the fused one: what that one is worth.

    python -m benchmarks.plain_batch_norm --mode=train --model=resnetv2_18 ...

takes the flags of `main.py`. Variables have the same names: `main.py --mode=eval` judges the run.
"""

import sys

import keras

import flags
from input_pipeline.errors import UserError
from loops import train
from loops.runtime import log_format
from nets.layers import kit


class PlainBatchNorm(keras.layers.BatchNormalization):
    """Keras's layer with the arguments of `nets.layers.batch_norm.BatchNorm`."""

    def __init__(self, momentum, epsilon, gamma_initializer, synchronized, **kwargs):
        super().__init__(
            momentum=momentum,
            epsilon=epsilon,
            gamma_initializer=gamma_initializer,
            synchronized=synchronized,
            **kwargs,
        )


def main(argv):
    """Trains as a command line says."""
    if "--help" in argv:
        sys.stdout.write(flags.format_help())
        return
    log_format.set_up()
    kit.BatchNorm = PlainBatchNorm
    try:
        train.run(flags.parse(argv))
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main(sys.argv)
