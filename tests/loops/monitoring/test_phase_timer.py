"""Wall time by phase."""

import time

import pytest

from loops.monitoring.phase_timer import PhaseTimer


def test_phases_add_up_also_after_an_error():
    timer = PhaseTimer()
    for _ in range(2):
        with timer.phase("saving"):
            time.sleep(0.02)
    with pytest.raises(OSError), timer.phase("logging"):
        raise OSError
    values = timer.values()
    assert values.keys() == {"system/time/total", "system/time/saving", "system/time/logging"}
    assert 0.04 <= values["system/time/saving"] <= values["system/time/total"]
    assert values["system/time/saving"] + values["system/time/logging"] >= 0.04
    assert "s of training, of which saving " in timer.summary()
