"""The modes of the program, and groups of modes that read the same flags."""

from typing import NamedTuple


class Mode(NamedTuple):
    """One value of `--mode`.

    Attributes:
      module: its function `run(config)` does the work.
      help: what the mode does.
    """

    module: str
    help: str


MODES = {
    "train": Mode("loops.train", "Train a net, or resume the run that --run_name names."),
    "eval": Mode("loops.evaluate", "Measure the accuracy of trained nets."),
    "predict": Mode("loops.tools.predict.predict", "Classify images."),
    "import": Mode("loops.tools.weights.import_weights", "Import published weights."),
    "export": Mode("loops.tools.weights.export", "Write a net as SavedModel, TFLite or ONNX."),
    "average": Mode("loops.tools.weights.average", "Average the weights of several checkpoints."),
    "prepare": Mode("loops.tools.data.prepare", "Convert a data set to TFRecords or lists."),
    "verify": Mode("loops.tools.data.verify", "Read every image of a data set and report faults."),
    "stats": Mode("loops.tools.data.stats", "Measure mean and deviation of the pixels."),
    "preview": Mode("loops.tools.predict.augmentation_page", "Draw a page of augmented images."),
    "data_service": Mode("loops.tools.data.data_service", "Load images for other machines."),
    "benchmark": Mode("loops.tools.benchmark.benchmark", "Measure speed."),
    "repro": Mode(
        "loops.tools.replay.replay", "Replay the start of a run; exit code 3 if it differs."
    ),
    "recipe": Mode("loops.tools.print_recipe", "Print the flags of a run as a file for --recipe."),
}

# Modes that build a model.
MODEL_MODES = ("train", "eval", "predict", "import", "export", "average", "repro")
# Modes that read a run; its config decides most of what they do.
RUN_MODES = ("eval", "predict", "export", "average", "repro", "recipe")
# Modes that write their result as JSON.
RESULT_MODES = (*MODEL_MODES, "prepare", "verify", "stats")


def names() -> tuple[str, ...]:
    """Returns the values of `--mode`."""
    return tuple(MODES)
