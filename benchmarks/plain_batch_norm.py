"""Trains with Keras's batch norm in place of the fused one, to measure what the fused one gains.

    python -m benchmarks.plain_batch_norm --mode=train --model=resnetv2_18 ...

Takes the flags of `main.py`. Variables have the same names, so `main.py --mode=eval` can evaluate
the run.
"""

import sys
from collections.abc import Sequence
from typing import Any

import keras

import flags
from input_pipeline.errors import UserError
from loops import train
from loops.runtime import log_format
from nets.layers import kit


class PlainBatchNorm(keras.layers.BatchNormalization):
    """Keras's layer with the arguments of `nets.layers.batch_norm.BatchNorm`."""

    def __init__(
        self,
        momentum: float,
        epsilon: float,
        gamma_initializer: Any,
        synchronized: bool,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            momentum=momentum,
            epsilon=epsilon,
            gamma_initializer=gamma_initializer,
            synchronized=synchronized,
            **kwargs,
        )


def main(argv: Sequence[str]) -> None:
    """Runs the training of a command line of `main.py`."""
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
