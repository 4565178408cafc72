"""What the user can say about a run's folder and what is written into it."""

import dataclasses
from typing import Annotated


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Names and intervals. An interval is a number of steps, or of epochs as in `2epochs`."""

    checkpoint_dir: Annotated[str, "Folder of all run folders."] = "checkpoints"
    run_name: Annotated[
        str, "Name of the run folder; naming an existing run resumes it. Else model-dataset-time."
    ] = ""
    save_every: Annotated[str, "Steps between checkpoints, or epochs as in 2epochs."] = "1epochs"
    eval_every: Annotated[str, "Steps between evaluations, or epochs as in 2epochs."] = "1epochs"
    log_every: Annotated[str, "Steps between log lines, or epochs as in 0.5epochs."] = "20"
    keep: Annotated[int, "Checkpoints to keep besides the best one."] = 3
    keep_every: Annotated[
        str, "Also keep the checkpoint of every so many steps, or epochs as in 10epochs; 0: none."
    ] = "0"
    profile: Annotated[str, "Profile the steps from START to STOP, given as START,STOP."] = ""
    log_norms: Annotated[bool, "Log the norm of each variable and of its gradient."] = False
