"""Tests the description of a run that TensorBoard shows as text."""

import types

from loops.checkpointing import run_folder, run_summary
from loops.config.config import Config


def test_description_begins_with_the_command_and_the_commit():
    config = Config().replace(model="resnet_18", epochs=3)
    facts = {"train": {"images": 23, "fingerprint": "f1"}}
    record = run_folder.Record(config, ("cat", "dog"), facts)
    model = types.SimpleNamespace(trainable_variables=[])
    argv = ["main.py", "--mode=train", "--run_name=two words"]
    text = run_summary.format_markdown(argv, "c0ffee", record, {"keras": "3"}, model, 7)
    assert text.splitlines()[:4] == [
        "```",
        "python main.py --mode=train '--run_name=two words'",
        "```",
        "commit c0ffee",
    ]
    for line in ("| train | 23 | f1 |", "| epochs | 3 |", "keras 3"):
        assert line in text.splitlines()
