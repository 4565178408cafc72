"""What is done to the gradients once they are summed over replicas, before the optimizer."""

import tensorflow as tf

# Weights that start at zero could otherwise never move.
_MIN_WEIGHT_NORM = 1e-3


def clip_by_global_norm(gradients, clip_norm):
    """Scales all gradients alike so that their norm together is at most `clip_norm`.

    Args:
      gradients: float32 tensors, finite (Pascanu et al. 2013, algorithm 1).
      clip_norm: largest norm.

    Returns:
      list of tensors.
    """
    return tf.clip_by_global_norm(gradients, clip_norm)[0]


def adaptive_grad_clip(gradients, weights, clip_factor):
    """Adaptive gradient clipping (Brock et al. 2021, section 4.1, equation 3).

    The norm of each unit's gradient is at most `clip_factor` times the norm of its weights, or
    times 0.001 where those are smaller. A unit is what makes one output: all of a kernel but its
    last axis; biases, scales and offsets are one unit each.

    Args:
      gradients: float32 tensors.
      weights: tensors of the same shapes.
      clip_factor: largest ratio of the norms.

    Returns:
      list of tensors.
    """
    clipped = []
    for gradient, weight in zip(gradients, weights, strict=True):
        of_gradient, of_weight = _unitwise_norms(gradient), _unitwise_norms(weight)
        most = clip_factor * tf.maximum(of_weight, _MIN_WEIGHT_NORM)
        factor = tf.where(of_gradient > most, most / tf.maximum(of_gradient, 1e-12), 1.0)
        clipped.append(gradient * factor)
    return clipped


def _unitwise_norms(tensor):
    axes = list(range(len(tensor.shape) - 1)) if len(tensor.shape) > 1 else None
    return tf.sqrt(tf.reduce_sum(tf.square(tensor), axis=axes, keepdims=True))


def compute_norms(tensors):
    """Euclidean norm of each tensor: float32 [number of tensors]."""
    return tf.stack([tf.sqrt(2.0 * tf.nn.l2_loss(t)) for t in tensors])
