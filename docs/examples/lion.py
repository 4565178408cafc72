"""Lion (Chen et al. 2023, "Symbolic discovery of optimization algorithms"): an optimizer."""

import keras

from loops.optimization import optimizers


@optimizers.optimizer(decay_kind="decoupled", learning_rate=5e-5)
def lion(config):
    """Makes Keras's Lion. The training step sets its learning rate and applies weight decay."""
    return keras.optimizers.Lion(0.0, beta_1=config.momentum, beta_2=0.99)
