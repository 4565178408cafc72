"""The training loss of each example."""

from collections.abc import Callable

import tensorflow as tf

from loops.optimization import registry


def cross_entropy(targets, logits, label_smoothing=0.0):
    """Softmax cross-entropy with label smoothing (Szegedy et al. 2016, section 7).

    Args:
      targets: `batch_augment.Targets`; a mixed image has the mixture of its two classes' losses.
      logits: float32 [B, C].
      label_smoothing: share e of the target that is spread evenly over all C classes; the true
        class gets 1 - e + e / C.

    Returns:
      float32 [B], in nats.
    """
    of_label, of_partner = (
        tf.nn.sparse_softmax_cross_entropy_with_logits(classes, logits)
        for classes in (targets.label, targets.partner)
    )
    of_label = targets.share * of_label + (1.0 - targets.share) * of_partner
    if not label_smoothing:
        return of_label
    # Against the even target: mean over classes of -log p = logsumexp - mean(logits).
    of_all = tf.reduce_logsumexp(logits, axis=1) - tf.reduce_mean(logits, axis=1)
    return (1.0 - label_smoothing) * of_label + label_smoothing * of_all


# A class counts as in the picture from this share of it on, as in the authors' runs.
_PRESENCE_THRESHOLD = 0.2


def binary_cross_entropy(targets, logits, label_smoothing=0.0):
    """Every class is a question of its own (Wightman et al. 2021, "ResNet strikes back").

    A mixed image shows both its classes: the target of each is 1 if its share is over 0.2.

    Args:
      targets: `batch_augment.Targets`.
      logits: float32 [B, C].
      label_smoothing: share e; targets y become y (1 - e) + e / C.

    Returns:
      float32 [B], the mean over classes of the binary cross-entropies, in nats.
    """
    classes = logits.shape[-1]
    shares = tf.one_hot(targets.label, classes) * targets.share[:, None]
    shares += tf.one_hot(targets.partner, classes) * (1.0 - targets.share[:, None])  # [B, C]
    wanted = tf.cast(shares > _PRESENCE_THRESHOLD, tf.float32)
    wanted = wanted * (1.0 - label_smoothing) + label_smoothing / classes
    return tf.reduce_mean(
        tf.nn.sigmoid_cross_entropy_with_logits(labels=wanted, logits=logits), axis=1
    )


def get_loss(name: str) -> Callable[..., tf.Tensor]:
    """Returns the function of a value of `--loss`."""
    return globals()[registry.LOSSES[name]]


def l2_penalty(kernels, weight_decay):
    """The penalty weight_decay / 2 * sum of squares: a float32 scalar. Its gradient is
    weight_decay * w, which the step adds to the reduced gradients."""
    squares = [tf.nn.l2_loss(tf.convert_to_tensor(kernel)) for kernel in kernels]
    return weight_decay * tf.add_n(squares)


def label_ranks(labels, logits):
    """How many classes score higher than the label: float32 [B]; top-k holds where it is below k.

    Not of whole numbers, which TensorFlow adds up on the host where the logits are on a GPU.
    """
    of_label = tf.gather(logits, labels, axis=1, batch_dims=1)  # [B]
    return tf.reduce_sum(tf.cast(logits > of_label[:, None], tf.float32), axis=1)
