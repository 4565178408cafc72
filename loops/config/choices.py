"""The optimizers, losses and schedules by name. TensorFlow-free, so that `--help` is fast."""

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerSpec:
    """What is known about an optimizer.

    Attributes:
      decay_kind: what `--decay_kind=auto` stands for: l2 or decoupled.
      learning_rate: default per 256 images; None for the default of the data set.
      fine_tuning_learning_rate: default per 256 images of `--init_from`.
    """

    decay_kind: Literal["l2", "decoupled"]
    learning_rate: float | None = None
    fine_tuning_learning_rate: float


OPTIMIZERS = {
    "sgd": OptimizerSpec(decay_kind="l2", fine_tuning_learning_rate=0.03),
    # The learning rate of "ResNet strikes back" (Wightman et al. 2021), procedure A3.
    "lamb": OptimizerSpec(
        decay_kind="decoupled", learning_rate=1e-3, fine_tuning_learning_rate=1e-4
    ),
    "lars": OptimizerSpec(decay_kind="l2", learning_rate=0.6, fine_tuning_learning_rate=0.06),
    "adamw": OptimizerSpec(
        decay_kind="decoupled", learning_rate=5e-4, fine_tuning_learning_rate=5e-5
    ),
}
# The function of each loss in losses.py.
LOSSES = {"softmax": "cross_entropy", "bce": "binary_cross_entropy"}
# The function of each schedule in lr_schedules.py.
SCHEDULES = {"cosine": "cosine", "step": "step_decay", "constant": "constant", "linear": "linear"}


def optimizer_names() -> tuple[str, ...]:
    """Returns the values of `--optimizer`."""
    return tuple(OPTIMIZERS)


def loss_names() -> tuple[str, ...]:
    """Returns the values of `--loss`."""
    return tuple(LOSSES)


def schedule_names() -> tuple[str, ...]:
    """Returns the values of `--schedule`."""
    return tuple(SCHEDULES)
