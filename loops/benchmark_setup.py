"""What the benchmarks of a net start from: their config, strategy, and state with its batch."""

import dataclasses

from input_pipeline import batch_augment, datasets, shapes, source
from input_pipeline.errors import UsageError
from loops import benchmark_batch, benchmark_machine, image_folders, recipes, validation
from loops import config as configs
from loops.step import distribution, precision, workers
from loops.step.state import TrainState
from nets.multiply_adds import multiply_adds

# Operations of a forward pass in multiply-adds; gradients by inputs and by kernels take as many.
OF_FORWARD, OF_TRAINING = 2, 6
_NEVER = "1000000000"  # steps between two evaluations or saves
ENDLESS = 100_000


def synthetic(config, given):
    """The config for made-up images: those of ILSVRC 2012 unless a data set is named."""
    data = image_folders.with_dataset(config.data, given)
    if not given & {"dataset", "data_dir"}:
        data = dataclasses.replace(data, dataset="ilsvrc2012")
    return resolved(dataclasses.replace(config, data=data), given)


def resolved(config, given):
    """Takes what a recipe says, without its schedule of sizes, and never saves or evaluates."""
    config = recipes.apply(config, given)
    changes = {"image_size_schedule": "", "save_every": _NEVER, "eval_every": _NEVER}
    changes |= {"epochs": None, "steps": ENDLESS}
    return validation.resolve(configs.replace(config, changes))


def make_strategy(config):
    """The strategy of a benchmark, which is one process; UsageError where there are more."""
    strategy = distribution.make_strategy(config.distribution)
    if workers.Workers(strategy).number > 1:
        raise UsageError(
            f"--strategy={config.distribution.strategy}: --mode=benchmark measures one process"
        )
    return strategy


def num_classes_of(data):
    """How many classes a data set has; images are looked for only where nothing else tells."""
    if data.dataset == "shapes":
        return len(shapes.CLASSES)
    table = datasets.class_table(data.dataset)
    return len(table) or len(source.open_split(data, "train").class_names)


def make_state(strategy, config, given, num_classes):
    """The TrainState, and the config with a batch where none is typed."""
    replicas, parts = strategy.num_replicas_in_sync, config.optimization.accumulate
    typed = "batch_size" in given
    if typed:
        distribution.require_even_parts(config.data.batch_size, strategy, parts)
    state = TrainState(strategy, config, num_classes)
    if typed:
        return state, config
    pairs = 2 if batch_augment.is_mixing(config.data) else 1
    dtype = precision.compute_dtype(config.precision)
    batch_size = benchmark_batch.choose(
        config.data.batch_size,
        OF_TRAINING * multiply_adds(state.model, config.data.image_size),
        benchmark_machine.matrix_rate(dtype, sides=(1024,))["operations_per_second"],
        replicas * parts * pairs,
        replicas,
    )
    return state, configs.replace(config, {"batch_size": batch_size})
