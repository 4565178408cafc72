"""Accuracies of our networks and the commands that reproduce them.

`python -m benchmarks.accuracy_page` writes RESULTS.md.
"""
