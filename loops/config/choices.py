"""The optimizers, losses, metrics, steps and schedules by name.

TensorFlow-free, so that `--help` is fast: a function is imported when it is used. Its decorator has
the facts about it. A file of the user's uses the same decorators, see `input_pipeline.user_code`.
"""

import dataclasses
from typing import Literal

from input_pipeline.user_code import Registry


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerFacts:
    """What `@optimizers.optimizer(...)` says about a function that makes an optimizer.

    Attributes:
      decay_kind: what `--decay_kind=auto` stands for: l2 or decoupled.
      learning_rate: default per 256 images; None for the default of the data set.
      fine_tuning_learning_rate: default per 256 images of `--init_from`; None for a tenth of
        `learning_rate`.
      applies_decay: the optimizer applies the weight decay, because it affects the learning rate
        of a layer. Otherwise the training step does.
    """

    decay_kind: Literal["l2", "decoupled"]
    learning_rate: float | None = None
    fine_tuning_learning_rate: float | None = None
    applies_decay: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossFacts:
    """A loss needs no facts."""


_OPTIMIZATION = "loops.optimization"
OPTIMIZERS = Registry(
    "optimizers.optimizer",
    OptimizerFacts,
    {name: f"{_OPTIMIZATION}.optimizers:{name}" for name in ("sgd", "lamb", "lars", "adamw")},
)
LOSSES = Registry(
    "losses.loss",
    LossFacts,
    {
        "softmax": f"{_OPTIMIZATION}.losses:cross_entropy",
        "bce": f"{_OPTIMIZATION}.losses:binary_cross_entropy",
    },
)
# The function of each schedule in lr_schedules.py.
SCHEDULES = {"cosine": "cosine", "step": "step_decay", "constant": "constant", "linear": "linear"}


def schedule_names() -> tuple[str, ...]:
    """Returns the values of `--schedule`."""
    return tuple(SCHEDULES)
