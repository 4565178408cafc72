"""Focal loss (Lin et al. 2017), which gives easy images a small weight."""

import tensorflow as tf

from loops.optimization import losses

GAMMA = 2.0


@losses.loss
def focal(targets, logits, label_smoothing):
    """Computes (1 - p)^gamma times the cross-entropy, where p = exp(-cross-entropy)."""
    cross_entropy = losses.cross_entropy(targets, logits, label_smoothing)
    return (1.0 - tf.exp(-cross_entropy)) ** GAMMA * cross_entropy
