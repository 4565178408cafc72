"""Tries many examples, counts the kinds of faults, and shrinks one example of each kind."""

import collections
import contextlib

import hypothesis
from hypothesis import strategies as st

from tests.fuzz.box import Box, Example

_MAX_SHRUNK = 5
# The same examples each time, and no files of its own in the tree.
_SETTINGS = {
    "derandomize": True,
    "database": None,
    "deadline": None,
    "phases": [hypothesis.Phase.generate, hypothesis.Phase.shrink],
    "suppress_health_check": list(hypothesis.HealthCheck),
    "report_multiple_bugs": False,
    "verbosity": hypothesis.Verbosity.quiet,
}


class _Fault(Exception):
    """An example has the kind of fault that is being shrunk."""


def run(box: Box, examples: st.SearchStrategy[Example], count: int) -> str:
    """Tries `count` examples.

    The first pass tries all. For each kind of fault, a further pass repeats the results of the
    first one until the fault occurs, and Hypothesis shrinks the example.

    Returns:
      A report: each kind of fault with its number and a command that shows it. "" without faults.
    """
    results: dict[Example, str] = {}
    shrunk: dict[str, Example] = {}
    kinds: collections.Counter[str] = collections.Counter()
    wanted = None

    @hypothesis.settings(max_examples=count, **_SETTINGS)
    @hypothesis.given(examples)
    def attempt(example: Example) -> None:
        if example not in results:
            _, results[example] = box.run(example)
        fault = results[example]
        if wanted is None:
            kinds[fault] += 1
            shrunk.setdefault(fault, example)
        elif fault == wanted:
            shrunk[fault] = example
            raise _Fault

    attempt()
    total, without_fault = kinds.total(), kinds.pop("", 0)
    for kind, _ in kinds.most_common(_MAX_SHRUNK):
        wanted = kind
        with contextlib.suppress(_Fault):
            attempt()
    lines = [f"{number} x {kind}\n    {shrunk[kind]}" for kind, number in kinds.most_common()]
    return "\n".join([f"{without_fault} of {total} without a fault", *lines]) if lines else ""
