"""Training losses, per example, and the L2 penalty."""

from collections.abc import Sequence

import keras
import tensorflow as tf

from input_pipeline.augmentation.batch_augment import Targets
from input_pipeline.errors import UsageError
from input_pipeline.user_code import display_name
from loops.config.choices import LOSSES

# The decorator of losses: `loss(targets, logits, label_smoothing)` returns float32 [B].
loss = LOSSES


@loss
def cross_entropy(targets: Targets, logits: tf.Tensor, label_smoothing: float = 0.0) -> tf.Tensor:
    """Computes softmax cross-entropy with label smoothing (Szegedy et al. 2016, section 7).

    Args:
      targets: classes and their shares. The loss of a mixed image is the weighted sum of the
        losses of its two classes.
      logits: float32 [B, C].
      label_smoothing: fraction e of the target that is spread evenly over all C classes. The
        true class gets 1 - e + e / C.

    Returns:
      float32 [B], in nats.
    """
    label_loss, partner_loss = (
        tf.nn.sparse_softmax_cross_entropy_with_logits(classes, logits)
        for classes in (targets.label, targets.partner)
    )
    mixed = targets.share * label_loss + (1.0 - targets.share) * partner_loss
    if not label_smoothing:
        return mixed
    # Against the uniform target: mean over classes of -log p = logsumexp - mean(logits).
    uniform_loss = tf.reduce_logsumexp(logits, axis=1) - tf.reduce_mean(logits, axis=1)
    return (1.0 - label_smoothing) * mixed + label_smoothing * uniform_loss


# A class with a larger share than this is a positive target, as in the authors' runs.
_PRESENCE_THRESHOLD = 0.2


@loss
def binary_cross_entropy(
    targets: Targets, logits: tf.Tensor, label_smoothing: float = 0.0
) -> tf.Tensor:
    """Computes binary cross-entropy per class (Wightman et al. 2021, "ResNet strikes back").

    In a mixed image, each of the two classes is a positive target if its share is over 0.2.

    Args:
      targets: classes and their shares.
      logits: float32 [B, C].
      label_smoothing: fraction e. Targets y become y (1 - e) + e / C.

    Returns:
      float32 [B], mean over the classes, in nats.
    """
    num_classes = logits.shape[-1]
    shares = tf.one_hot(targets.label, num_classes) * targets.share[:, None]
    shares += tf.one_hot(targets.partner, num_classes) * (1.0 - targets.share[:, None])  # [B, C]
    labels = tf.cast(shares > _PRESENCE_THRESHOLD, tf.float32)
    labels = labels * (1.0 - label_smoothing) + label_smoothing / num_classes
    return tf.reduce_mean(
        tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=logits), axis=1
    )


def compute(name: str, targets: Targets, logits: tf.Tensor, label_smoothing: float) -> tf.Tensor:
    """Computes the loss with a name, a value of `--loss`.

    Args:
      name: one of the losses here, or in a user's file.
      targets, logits, label_smoothing: see `cross_entropy`.

    Returns:
      float32 [B].

    Raises:
      UsageError: the function returns something else.
    """
    values = LOSSES.get(name).function(targets, logits, label_smoothing)
    if not tf.is_tensor(values) or values.dtype != tf.float32 or values.shape != logits.shape[:1]:
        shape = f"{values.dtype.name} {values.shape}" if tf.is_tensor(values) else type(values)
        raise UsageError(
            f"--loss={display_name(name)}: returned {shape}, and must return float32, a loss for"
            f" each of the {logits.shape[0]} images"
        )
    return values


def l2_penalty(kernels: Sequence[keras.Variable], weight_decay: float) -> tf.Tensor:
    """Computes the penalty weight_decay / 2 * sum of squares: a float32 scalar.

    Its gradient is weight_decay * w, which the training step adds to the reduced gradients.
    """
    squares = [tf.nn.l2_loss(tf.convert_to_tensor(kernel)) for kernel in kernels]
    return weight_decay * tf.add_n(squares)


def label_ranks(targets: Targets, logits: tf.Tensor) -> tf.Tensor:
    """Counts the classes that rank before the label, by the rule of evaluation.

    A top-k prediction is correct if the rank is below k. The label of a mixed image is the class
    with the larger share. Ties go to the lower class index: see `classification.label_ranks`. The
    counts are floats, because TensorFlow would sum integers on the host even if the logits are on
    a GPU.

    Args:
      targets: classes and their shares.
      logits: float32 [B, C].

    Returns:
      float32 [B].
    """
    labels = tf.where(targets.share < 0.5, targets.partner, targets.label)
    label_logits = tf.gather(logits, labels, axis=1, batch_dims=1)[:, None]  # [B, 1]
    classes = tf.range(float(logits.shape[-1]))
    has_lower_index = classes < tf.cast(labels, tf.float32)[:, None]  # [B, C]
    ranks_before = (logits > label_logits) | ((logits == label_logits) & has_lower_index)
    return tf.reduce_sum(tf.cast(ranks_before, tf.float32), axis=1)
