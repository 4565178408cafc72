"""The modes of the program, and groups of modes that read the same flags."""

# The module of each `--mode`. Its function `run(config)` does the work.
MODULES = {
    "train": "loops.train",
    "eval": "loops.evaluate",
    "predict": "loops.tools.predict.predict",
    "import": "loops.tools.weights.import_weights",
    "export": "loops.tools.weights.export",
    "average": "loops.tools.weights.average",
    "prepare": "loops.tools.data.prepare",
    "verify": "loops.tools.data.verify",
    "stats": "loops.tools.data.stats",
    "data_service": "loops.tools.data.data_service",
    "benchmark": "loops.tools.benchmark.benchmark",
    "preview": "loops.tools.predict.augmentation_page",
    "repro": "loops.tools.replay.replay",
    "recipe": "loops.tools.print_recipe",
}

# Modes that build a model.
MODEL_MODES = ("train", "eval", "predict", "import", "export", "average", "repro")
# Modes that write their result as JSON.
RESULT_MODES = (*MODEL_MODES, "prepare", "verify", "stats")


def names() -> tuple[str, ...]:
    """Returns the values of `--mode`."""
    return tuple(MODULES)
