"""Side-by-side runs against peers: each one command, each writing JSON."""

from loops.run import start

# Before any side loads TensorFlow, so that all of them have the kernels that main.py has.
start.choose_kernels()
