"""Checks one net, of the registry or in a file: `python -m tests.nets FILE.py:FUNCTION`.

Prints the number of parameters and of multiply-adds. Then it checks that every tensor gets a
gradient, that half precision agrees with float32, and that the net memorizes 64 images.
"""

import sys

import numpy as np

from input_pipeline import user_code
from input_pipeline.errors import UserError
from loops.optimization import optimizers
from nets.macs import count_multiply_adds
from tests.nets import test_all_nets


def main(arguments):
    """Runs the checks on the net that the only argument names; returns the exit code."""
    if len(arguments) != 1:
        sys.stderr.write("give one net: python -m tests.nets FILE.py:FUNCTION\n")
        return 2
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


def check(model):
    """Checks a net; raises AssertionError if it fails."""
    size = test_all_nets.SIZE
    net = test_all_nets.build(model)
    count = sum(int(np.prod(v.shape)) for v in net.trainable_variables)
    print(f"trainable parameters with 42 classes: {count:_}")
    print(f"multiply-adds at {size} px: {count_multiply_adds(net, size):_}")
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
