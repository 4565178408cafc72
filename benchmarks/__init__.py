"""Side-by-side runs against peers: each one command, each writing JSON."""

from loops.runtime import tensorflow_startup

# Before any side loads TensorFlow, so that all of them have the kernels that main.py has.
tensorflow_startup.enable_onednn()
