"""Checks one net, of the registry or in a file: `python -m tests.nets FILE.py:FUNCTION`.

Prints the number of parameters and of multiply-adds. Then it checks that every tensor gets a
gradient, that half precision agrees with float32, and that the net memorizes 64 images.
"""

import importlib.util
import sys

from input_pipeline import user_code
from input_pipeline.errors import UserError
from loops.runtime import tensorflow_startup


def main(arguments):
    """Runs the checks on the net that the only argument names; returns the exit code."""
    if len(arguments) != 1:
        sys.stderr.write("give one net: python -m tests.nets FILE.py:FUNCTION\n")
        return 2
    if importlib.util.find_spec("pytest") is None:
        sys.stderr.write("error: the check needs the packages of the tests; run make test-venv\n")
        return 2
    tensorflow_startup.load_tensorflow()
    try:
        with user_code.errors_in_one_line():
            check(user_code.adopt("model", arguments[0]))
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except AssertionError as error:
        sys.stderr.write(f"failed: {error}\n")
        return 1
    return 0


def computes_in_float32(layer):
    """Returns whether a layer with weights, the classifier included, ignores half precision."""
    return bool(layer.weights) and layer.compute_dtype == "float32"


def check(model):
    """Checks a net; raises AssertionError if it fails."""
    import numpy as np

    from loops.optimization import optimizers
    from nets.macs import count_multiply_adds
    from tests.nets import test_all_nets

    size = test_all_nets.SIZE
    net = test_all_nets.build(model)
    count = sum(int(np.prod(v.shape)) for v in net.trainable_variables)
    print(f"trainable parameters with 42 classes: {count:_}")
    print(f"multiply-adds at {size} px: {count_multiply_adds(net, size):_}")
    half = test_all_nets.build(model, compute_dtype="bfloat16")
    single = [layer.name for layer in half.layers if computes_in_float32(layer)]
    print(f"in float32 with --mixed_precision: {', '.join(single)}")
    kernels = optimizers.get_trainable_kernels(net)
    print(f"weight decay: {len(kernels)} of {len(net.trainable_variables)} tensors")
    # A factor that starts at zero stops the gradients of the first step.
    missing = test_all_nets.find_tensors_without_gradient(model, steps=2)
    assert not missing, f"these tensors get no gradient in two steps: {', '.join(missing)}"
    print("gradients: of every tensor")
    expected = test_all_nets.compute_logits(model)
    for dtype in ("float16", "bfloat16"):
        test_all_nets.check_half_precision(model, dtype, np.array(expected))
        print(f"{dtype}: agrees with float32")
    test_all_nets.test_memorizes_64_images(model)
    print("memorizes 64 images")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
