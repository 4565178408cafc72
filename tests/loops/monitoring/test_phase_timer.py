"""Where the time of a run goes."""

import time

import pytest

from loops.monitoring.phase_timer import PhaseTimer


def test_seconds_add_up_also_where_something_fails():
    spending = PhaseTimer()
    for _ in range(2):
        with spending.phase("saving"):
            time.sleep(0.02)
    with pytest.raises(OSError), spending.phase("logging"):
        raise OSError
    values = spending.values()
    assert values.keys() == {"time/total", "time/saving", "time/logging"}
    assert 0.04 <= values["time/saving"] <= values["time/total"]
    assert spending.seconds("saving", "logging", "evaluation") >= 0.04
    assert "s of training, of which saving " in spending.summary()
