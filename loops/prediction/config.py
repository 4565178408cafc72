"""What the user can say about prediction; flags are made from these fields."""

import dataclasses
from typing import Annotated


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """What is predicted, and what is written of it."""

    image: Annotated[
        str, "Image files, folders or globs, separated by commas; - reads paths from stdin."
    ] = ""
    seam_carving: Annotated[
        bool, "Predict: one more view, resized to a square by removing seams of little content."
    ] = False
    explain: Annotated[
        bool,
        "Predict: draw what the answer rests on (Grad-CAM, occlusion) into RUN/explain; --report "
        "has it anyway.",
    ] = False
    report: Annotated[
        str, "Predict: write a self-contained HTML page of the pictures to this file."
    ] = ""
    csv: Annotated[str, "Predict: write a table with one line per image to this file."] = ""
