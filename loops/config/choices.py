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
      takes_model: the optimizer treats the layers of the model differently.
    """

    decay_kind: Literal["l2", "decoupled"]
    learning_rate: float | None = None
    fine_tuning_learning_rate: float | None = None
    applies_decay: bool = False
    takes_model: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoFacts:
    """What is said about losses and training steps: nothing."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MetricFacts:
    """What `@metrics.metric(...)` and `@metrics.per_image(...)` say about a metric.

    Attributes:
      per_image: the function returns a value for each image, and the metric is their mean.
      label: in tables; the name of the function by default.
      template: format of its value.
      tensorboard_group: prefix of its TensorBoard tag; empty for no tag.
      higher_is_better: for `--best`.
    """

    per_image: bool = False
    label: str = ""
    template: str = "{:.4f}"
    tensorboard_group: str = "metrics"
    higher_is_better: bool = True


_OPTIMIZATION, _METRICS = "loops.optimization", "loops.metrics"
OPTIMIZERS = Registry(
    "optimizers.optimizer",
    OptimizerFacts,
    {
        name: f"{_OPTIMIZATION}.optimizers:{name}"
        for name in ("sgd", "lamb", "lars", "adamw", "muon")
    },
)
LOSSES = Registry(
    "losses.loss",
    NoFacts,
    {
        "softmax": f"{_OPTIMIZATION}.losses:cross_entropy",
        "bce": f"{_OPTIMIZATION}.losses:binary_cross_entropy",
    },
)
METRICS = Registry(
    "metrics.metric",
    MetricFacts,
    {
        # Every evaluation has these three. The tag of nll is `loss/cross_entropy`.
        "nll": f"{_METRICS}.classification:nlls",
        "brier": f"{_METRICS}.classification:brier_scores",
        "ece": f"{_METRICS}.calibration:expected_error",
        **{
            name: f"{_METRICS}.metrics:{name}"
            for name in ("macro_precision", "macro_recall", "macro_f1", "balanced_accuracy")
        },
    },
)
STEPS = Registry("train_step.step", NoFacts, {"standard": "loops.train_step:TrainStep"})
SCHEDULES = ("cosine", "step", "constant", "linear")  # see lr_schedules.py


def best_names() -> tuple[str, ...]:
    """Returns the values of `--best`."""
    return ("top1", *METRICS.names())


def schedule_names() -> tuple[str, ...]:
    """Returns the values of `--schedule`."""
    return tuple(SCHEDULES)
