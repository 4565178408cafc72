"""Checks that a mode uses every flag that was typed: a flag without effect is an error."""

from input_pipeline.errors import UsageError
from loops.config.config import Config, all_flags


def check_flags(config: Config) -> None:
    """Raises UsageError for a typed flag that the mode does not use.

    `benchmark` is exempt. It checks its flags itself, because they depend on what is measured.
    """
    if config.mode == "benchmark":
        return
    for name in sorted(config.typed):
        flag = all_flags()[name]
        if config.mode in flag.modes:
            continue
        users = ", ".join(flag.modes or ("benchmark",))
        hint = flag.hints.get(config.mode, "leave it out")
        raise UsageError(f"--{name}: --mode={config.mode} does not use it, only {users}; {hint}")
