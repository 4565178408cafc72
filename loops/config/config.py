"""The whole configuration: a tree of frozen dataclasses, made once from the command line."""

import dataclasses
import functools
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Self

from input_pipeline.config import DataConfig, PrepareConfig, ServiceConfig
from input_pipeline.errors import UsageError
from loops.config import flag_fields, modes
from loops.config.tools import (
    BenchmarkConfig,
    EvalConfig,
    ExportConfig,
    ImportConfig,
    PredictConfig,
)
from loops.config.training import (
    DistributionConfig,
    FineTuningConfig,
    LengthConfig,
    OptimizationConfig,
    PrecisionConfig,
    RunConfig,
)
from nets.registry import NetConfig

_ALL_BENCHMARKS = ("step", "input", "eval", "train")
_OPTIMIZED = {"modes": tuple(mode for mode in modes.MODEL_MODES if mode != "import")}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that a mode needs.

    Each branch is a group of flags with the title that `--help` shows.

    Attributes:
      typed: names of the flags on the command line; not part of a saved config.
    """

    mode: Annotated[
        str,
        " ".join(f"{name}: {mode.help}" for name, mode in modes.MODES.items()),
        {
            "other_values": {
                "test": "eval",
                "validate": "eval",
                "val": "eval",
                "infer": "predict",
                "inference": "predict",
                "classify": "predict",
                "finetune": "train",
            },
            "choices": modes.names,
            "modes": modes.names(),
            "benchmarks": _ALL_BENCHMARKS,
            "on_resume": True,
            "with_logits": True,
        },
    ] = "train"
    net: Annotated[NetConfig, "Architecture"] = NetConfig()
    data: Annotated[
        DataConfig,
        "Data",
        {"modes": (*modes.MODEL_MODES, "preview"), "benchmarks": _ALL_BENCHMARKS},
    ] = DataConfig()
    length: Annotated[LengthConfig, "Length of training"] = LengthConfig()
    optimization: Annotated[OptimizationConfig, "Optimization", _OPTIMIZED] = OptimizationConfig()
    precision: Annotated[PrecisionConfig, "Precision"] = PrecisionConfig()
    distribution: Annotated[DistributionConfig, "Devices"] = DistributionConfig()
    run: Annotated[RunConfig, "Run folder"] = RunConfig()
    evaluation: Annotated[EvalConfig, "Evaluation"] = EvalConfig()
    prediction: Annotated[PredictConfig, "Prediction"] = PredictConfig()
    importing: Annotated[ImportConfig, "Published weights"] = ImportConfig()
    fine_tuning: Annotated[FineTuningConfig, "Fine-tuning"] = FineTuningConfig()
    export: Annotated[ExportConfig, "Export, averaging, prepared sets"] = ExportConfig()
    prepare: Annotated[PrepareConfig, "Preparing data"] = PrepareConfig()
    service: Annotated[ServiceConfig, "Data service"] = ServiceConfig()
    measurement: Annotated[BenchmarkConfig, "Benchmarks"] = BenchmarkConfig()
    typed: frozenset[str] = dataclasses.field(default=frozenset(), compare=False)

    def replace(self, **leaves: Any) -> Self:
        """Returns this config with new values of some leaves, wherever in the tree they are.

        Raises:
          TypeError: there is no such leaf.
        """
        if unknown := leaves.keys() - self.leaves().keys():
            raise TypeError(f"unknown names: {', '.join(sorted(unknown))}")
        return _replace(self, leaves)

    def leaves(self) -> dict[str, Any]:
        """Returns the value of every leaf by its name, flags and hidden fields alike."""
        return dict(_iter_leaves(self))


@functools.cache
def all_flags() -> dict[str, flag_fields.FlagField]:
    """Returns every flag of the program by name."""
    return {flag.name: flag for _, group in flag_fields.iter_groups(Config) for flag in group}


def select_flags(**facts: Any) -> frozenset[str]:
    """Returns the names of the flags with these facts, e.g. `select_flags(on_resume=True)`."""
    return frozenset(
        name
        for name, flag in all_flags().items()
        if all(getattr(flag, fact) == value for fact, value in facts.items())
    )


class RunConflict(UsageError):
    """A typed flag has another value than in the run."""


def merge(saved: Config, config: Config, may_change: Iterable[str], action: str) -> Config:
    """Overrides the config of a run with the typed flags of a command.

    Args:
      saved: config of the run.
      config: config of the command line.
      may_change: names of the flags that may differ from the run.
      action: what is being done, for the message.

    Raises:
      RunConflict: a typed flag conflicts with the run.
    """
    old, new = saved.leaves(), config.leaves()
    for name in sorted(config.typed - {*may_change}):
        if new[name] != old[name]:
            raise RunConflict(
                f"--{name}={new[name]} conflicts with the run, which has {old[name]}: leave the"
                f" flag out to {action} it, or start a new run"
            )
    # A command does not inherit the output files of the run.
    changed = dict.fromkeys(select_flags(is_output_file=True), "")
    if config.typed & (lengths := select_flags(is_length=True)):
        changed |= dict.fromkeys(lengths)
    changed |= {name: new[name] for name in config.typed if name in old}
    return dataclasses.replace(saved.replace(**changed), typed=config.typed)


def _iter_leaves(node: Any) -> Iterator[tuple[str, Any]]:
    for field in dataclasses.fields(node):
        value = getattr(node, field.name)
        if dataclasses.is_dataclass(value):
            yield from _iter_leaves(value)
        elif field.name != "typed":
            yield field.name, value


def _replace(node: Any, leaves: dict[str, Any]) -> Any:
    changes = {}
    for field in dataclasses.fields(node):
        value = getattr(node, field.name)
        if dataclasses.is_dataclass(value):
            changes[field.name] = _replace(value, leaves)
        elif field.name in leaves:
            changes[field.name] = leaves[field.name]
    return dataclasses.replace(node, **changes)
