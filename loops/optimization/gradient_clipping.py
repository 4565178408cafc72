"""Adaptive gradient clipping and gradient norms."""

from collections.abc import Sequence

import tensorflow as tf

# Lower bound on the norm of the weights. Weights initialized with zeros could not move without it.
_MIN_WEIGHT_NORM = 1e-3


def adaptive_grad_clip(
    gradients: Sequence[tf.Tensor], weights: Sequence[tf.Tensor], clip_factor: float
) -> list[tf.Tensor]:
    """Applies adaptive gradient clipping (Brock et al. 2021, section 4.1, equation 3).

    Limits the gradient norm of each unit to `clip_factor` * max(norm of its weights, 0.001). A
    unit produces one output: it is a slice of a kernel along its last axis. Each bias, scale or
    offset vector is one unit.

    Args:
      gradients: float32 tensors.
      weights: tensors of the same shapes.
      clip_factor: maximum ratio of the two norms.
    """
    clipped = []
    for gradient, weight in zip(gradients, weights, strict=True):
        gradient_norms, weight_norms = _unitwise_norms(gradient), _unitwise_norms(weight)
        max_norms = clip_factor * tf.maximum(weight_norms, _MIN_WEIGHT_NORM)
        scale = max_norms / tf.maximum(gradient_norms, 1e-12)
        clipped.append(gradient * tf.where(gradient_norms > max_norms, scale, 1.0))
    return clipped


def _unitwise_norms(tensor: tf.Tensor) -> tf.Tensor:
    """Returns the norm of each unit, in a shape that broadcasts to the tensor."""
    axes = list(range(len(tensor.shape) - 1)) if len(tensor.shape) > 1 else None
    return tf.sqrt(tf.reduce_sum(tf.square(tensor), axis=axes, keepdims=True))


def compute_norms(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    """Returns the L2 norm of each tensor: float32 [number of tensors]."""
    return tf.stack([tf.sqrt(2.0 * tf.nn.l2_loss(t)) for t in tensors])
