"""Tries many examples, counts the kinds of faults, and shrinks one example of each kind."""

import collections
import contextlib
from collections.abc import Callable

import hypothesis
from hypothesis import strategies as st

from tests.fuzz.box import Box, Example

# The same examples each time, and no files in the tree.
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
    """Tries `count` different examples.

    The first pass tries all. For each kind of fault, a further pass repeats the first one, whose
    results are known, until the fault occurs. Then Hypothesis shrinks the example.

    Returns:
      A report: each kind of fault with its number and a command that shows it. "" without faults.
    """
    results: dict[Example, str] = {}

    def make_pass(wanted: str = "") -> tuple[Callable[[], None], list[Example]]:
        seen, found = set(), []

        @hypothesis.settings(max_examples=count, **_SETTINGS)
        @hypothesis.given(examples)
        def attempt(example: Example) -> None:
            if not found:  # shrinking may repeat an example
                hypothesis.assume(example not in seen)
            if example not in results:
                _, results[example] = box.run(example)
            seen.add(example)
            if wanted and results[example] == wanted:
                found.append(example)
                raise _Fault

        return attempt, found

    make_pass()[0]()
    kinds = collections.Counter(results.values())
    total, without_fault = kinds.total(), kinds.pop("", 0)
    lines = [f"{without_fault} of {total} examples without a fault"]
    for kind, number in kinds.most_common():
        attempt, found = make_pass(kind)
        with contextlib.suppress(_Fault):
            attempt()
        lines.append(f"{number} x {kind}\n    {found[-1]}")
    return "\n".join(lines) if kinds else ""
