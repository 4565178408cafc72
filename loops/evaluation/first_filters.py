"""The filters of a net's first convolution as a picture."""

import keras
import numpy as np
import tensorflow as tf

from loops.monitoring import plots


def draw(model: keras.Model) -> np.ndarray | None:
    """Returns the picture, uint8 [H, W, 3], or None for a net whose filters do not read colors."""
    for variable in model.trainable_variables:
        if variable.name == "kernel" and len(variable.shape) == 4:
            if variable.shape[2] != 3:
                return None
            # The conversion also works for a variable of several replicas.
            return plots.draw_filters(tf.convert_to_tensor(variable.value).numpy())
    return None
