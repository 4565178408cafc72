"""What is due after which step, and how many steps one call of the training step does."""

from loops.config import flag_parsers

# Between two calls of the step, signals and the progress bar are served.
_SECONDS_PER_CALL = 2.0


class StepIntervals:
    """Keeps the intervals of a run.

    The nth time that something is due is at n whole intervals, rounded to a step: what comes every
    two epochs then falls on every second of what comes every epoch.

    Args:
      run_config: RunConfig.
      steps_per_epoch: float.
      total_steps: steps of the whole run.
      stops: further steps at which a call must end, as where the size of the images changes.
    """

    def __init__(self, run_config, steps_per_epoch, total_steps, stops=()):
        self._every = {
            name: flag_parsers.parse_interval(
                getattr(run_config, name), steps_per_epoch, f"--{name}"
            )
            for name in ("log_every", "eval_every", "save_every")
        }
        self._stops = sorted({*stops, total_steps})
        self._total = total_steps
        self.seconds_per_step = None  # unknown until a call has run that did not trace

    def is_due(self, name, done):
        """Whether something is due after `done` steps; everything is at the end."""
        return done == self._total or (
            done > 0 and _next_due_step(self._every[name], done - 1) == done
        )

    def steps_until_due(self, done):
        """Steps until something is due, but not beyond about two seconds of work."""
        if self.seconds_per_step is None:
            return 1
        by_time = max(1, int(_SECONDS_PER_CALL / self.seconds_per_step))
        until_due = min(_next_due_step(every, done) - done for every in self._every.values())
        until_stop = min(stop - done for stop in self._stops if stop > done)
        return min(by_time, until_due, until_stop)

    def reset_timing(self):
        """The next call traces, and how long a step takes from then on is not known."""
        self.seconds_per_step = None

    def timed(self, seconds, steps):
        """Takes note of the duration of a call.

        Returns:
          whether it counts as a measurement; a call that traces does not.
        """
        counts = self.seconds_per_step is not None
        self.seconds_per_step = seconds / steps if counts else _SECONDS_PER_CALL
        return counts


def _next_due_step(every, done):
    """The first step after `done` at which that is due which comes every so many steps."""
    times = int(done / every)
    # The inner rounding is of the last bits: 3 x 2.5 epochs are 5 x 1.5.
    while (step := round(round(times * every, 6))) <= done:
        times += 1
    return step
