"""Determines the steps at which to log, evaluate and save, and the steps per call of the step."""

import math
from collections.abc import Iterable

from loops.config import flag_parsers
from loops.config.training import RunConfig

# Signals and the progress bar are handled only between two calls of the training step.
_SECONDS_PER_CALL = 2.0


class StepIntervals:
    """The logging, evaluation and saving intervals of a run.

    Event n is due at step round(n * interval). With this rule, events every two epochs coincide
    with every second event of those every epoch. An event less than one step before the end is due
    at the end, because the end of the last epoch is rounded up.

    Args:
      run_config: its `log_every`, `eval_every` and `save_every` are the intervals.
      steps_per_epoch: converts intervals in epochs to steps.
      total_steps: steps of the whole run.
      stops: further steps at which a call must end, such as changes of the image size.
    """

    def __init__(
        self,
        run_config: RunConfig,
        steps_per_epoch: float,
        total_steps: int,
        stops: Iterable[int] = (),
    ) -> None:
        self._intervals = {
            name: flag_parsers.parse_interval(
                getattr(run_config, name), steps_per_epoch, f"--{name}"
            )
            for name in ("log_every", "eval_every", "save_every")
        }
        self._stops = sorted({*stops, total_steps})
        self._total = total_steps
        # Unknown until a call has run without tracing.
        self.seconds_per_step: float | None = None

    def is_due(self, name: str, step: int) -> bool:
        """Returns whether an event, such as "log_every", is due after `step` completed steps.

        All events are due at the end of the run.
        """
        return step == self._total or (step > 0 and self._next_due_step(name, step - 1) == step)

    @property
    def next_call_traces(self) -> bool:
        """Whether the next call traces the training step."""
        return self.seconds_per_step is None

    def steps_until_due(self, step: int) -> int:
        """Returns the number of steps until the next event, limited to about two seconds."""
        if self.next_call_traces:
            return 1
        by_time = max(1, int(_SECONDS_PER_CALL / self.seconds_per_step))
        until_due = min(self._next_due_step(name, step) - step for name in self._intervals)
        until_stop = min(stop - step for stop in self._stops if stop > step)
        return min(by_time, until_due, until_stop)

    def reset_timing(self) -> None:
        """Discards the measured step time, because the next call traces."""
        self.seconds_per_step = None

    def record_call(self, seconds: float, steps: int) -> bool:
        """Records the duration of a call.

        Returns:
          whether the call is a valid measurement, which a call that traces is not.
        """
        is_measurement = self.seconds_per_step is not None
        self.seconds_per_step = seconds / steps if is_measurement else _SECONDS_PER_CALL
        return is_measurement

    def _next_due_step(self, name: str, step: int) -> int:
        """Returns the first step of an event after `step`."""
        interval = self._intervals[name]
        times = int(step / interval)
        while True:
            # Removes float errors: 3 x 2.5 epochs must equal 5 x 1.5 epochs.
            exact = round(times * interval, 6)
            due = self._total if math.ceil(exact) == self._total else round(exact)
            if due > step:
                return due
            times += 1
