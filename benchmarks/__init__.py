"""Benchmarks against peers: each is one command that prints a table and writes JSON."""

from loops.runtime import tensorflow_startup

# Set before any side imports TensorFlow, so that all sides use the same kernels as main.py.
tensorflow_startup.set_environment()
