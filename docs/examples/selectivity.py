"""Metrics: one of all predictions, and one of each image."""

from loops.metrics import metrics


@metrics.metric(label="classes predicted", template="{:.0f}")
def num_predicted(probs, labels):
    """Counts the classes that are predicted at least once."""
    return len(set(probs.argmax(axis=1)))


@metrics.per_image(template="{:.2%}")
def label_probability(probs, labels):
    """Returns the probability of the label."""
    return probs[range(len(labels)), labels]
