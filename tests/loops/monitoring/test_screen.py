"""The screen of 80 columns: log lines above progress bars, and one row for each epoch."""

import logging
import re
import sys

import pytest
from absl import logging as absl_logging
from tensorflow.python.eager.polymorphic_function import polymorphic_function

import flags
from loops import train
from loops.monitoring import epoch_table, progress_bar
from loops.runtime import log_format
from tests import terminal


@pytest.fixture
def open_screen(monkeypatch):
    """Returns a function that makes a terminal, with stderr and the log of main.py on it.

    To be called in the test, because pytest sets stderr before it.
    """
    root, screen = logging.getLogger(), terminal.Terminal()
    handlers, verbosity = [*root.handlers], absl_logging.get_verbosity()
    monkeypatch.setenv("COLUMNS", str(terminal.WIDTH))

    def open_screen(verbose=False):
        monkeypatch.setattr(sys, "stderr", screen.stream)
        log_format.set_up(verbose)
        return screen

    yield open_screen
    root.handlers[:] = handlers
    absl_logging.set_verbosity(verbosity)
    monkeypatch.undo()
    screen.close()


def log(message, *arguments, level=logging.INFO):
    """Logs from a file of the product, as others are filtered."""
    name, line, function = log_format.__file__, 1, "f"
    record = absl_logging.get_absl_logger().makeRecord(
        "absl", level, name, line, message, arguments, None, function
    )
    absl_logging.get_absl_logger().handle(record)


def test_log_lines_replace_the_bars_and_the_bars_come_back(open_screen):
    screen = open_screen()
    outer = progress_bar.Progress("outer", 100)
    outer.advance(50)
    log("one of %d", 2)
    inner = progress_bar.Progress("inner", 10)
    log("two\nlines")
    text_so_far = "a warning of more than eighty columns, which is therefore wrapped between words"
    log("%s", f"{text_so_far} of the text", level=logging.WARNING)
    log("a detail", level=logging.DEBUG)
    command = "next: python main.py --mode=eval " + "--ckpt=checkpoints/" + "a" * 60
    log("%s", command)
    inner.close()
    outer.announce("waiting")
    log("three")
    outer.close()
    text = screen.close()
    assert "waiting ..." in text and "50%|" in text and "inner" in text
    *lines, end = terminal.show(text)
    assert (
        lines
        == [
            "one of 2",
            "two",
            "lines",
            "warning: a warning of more than eighty columns, which is therefore wrapped",
            "  between words of the text",
            command[:80],  # by the terminal
            command[80:],
            "three",
        ]
    )
    assert end == ""


def test_verbose_log_has_details_and_times(open_screen):
    screen = open_screen(verbose=True)
    log("a detail", level=logging.DEBUG)
    first, *_ = terminal.show(screen.close())
    assert re.fullmatch(r"\d\d:\d\d:\d\d a detail", first)


def test_log_file_also_has_what_was_logged_before(open_screen, tmp_path):
    screen = open_screen()
    log("early", level=logging.DEBUG)
    with log_format.copy_to_file(tmp_path):
        log("late", level=logging.DEBUG)
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert [line[9:] for line in lines] == ["early", "late"]
    assert re.fullmatch(r"\d\d:\d\d:\d\d early", lines[0])
    assert terminal.show(screen.close()) == [""]


def test_longest_rows_fit_the_terminal(caplog):
    caplog.set_level(logging.INFO, "absl")
    table = epoch_table.EpochTable(5004.5, 100, top_k=5)
    trained = {"loss/cross_entropy": 6.9, "accuracy/top1": 0.001, "speed/images_per_second": 22e3}
    scores = {"nll": 12345.0, "top1": 0.7613, "top5": 1.0}
    table.log_row(500_450, trained, scores, 3.125e-05, 3600.0 * 99, True)
    table.log_row(2502, {}, scores, 0.1, float("inf"), False)
    titles, names, full, empty = (line.rstrip() for line in caplog.messages)
    assert max(map(len, caplog.messages)) <= terminal.WIDTH
    assert full.split() == [
        *("100/100", "500450", "6.900", "0.10", "12345", "76.13", "100.00"),
        *("3.13e-05", "22000", "99:00:00", "best"),
    ]
    assert empty.split() == ["0.5/100", "2502", "-", "-", "12345", "76.13", "100.00"] + [
        *("0.1", "-", "?")
    ]
    assert titles.split() == ["train", "validation"]
    assert names.index("loss") + 4 == full.index("6.900") + 5
    assert epoch_table.EpochTable(5004.5, 7 / 5004.5, top_k=5).format_epoch(7) == "0.0014"


def test_training_shows_a_header_a_row_an_epoch_and_what_comes_next(
    open_screen, tiny_folder, tmp_path, tiny_net, monkeypatch
):
    screen = open_screen()
    monkeypatch.chdir(tmp_path)
    # TensorFlow warns if earlier tests of the process have traced the same functions.
    manager = polymorphic_function._FrequentTracingDetectorManager()
    monkeypatch.setattr(polymorphic_function, "_frequent_tracing_detector_manager", manager)
    words = [
        *("main.py", "--dataset=folder", f"--data_dir={tiny_folder}", "--model=resnet_18"),
        *("--image_size=32", "--batch_size=8", "--epochs=2", "--crops=1", "--strategy=one"),
        "--run_name=r",
    ]
    train.run(flags.parse(words))
    text = screen.close()
    assert "compiling the training step ..." in text and "epoch 1/2 " in text
    lines = terminal.show(text)
    assert max(map(len, lines)) <= terminal.WIDTH
    shown = [line for line in lines if not line.startswith(("warning", "  top-5"))]
    net, data, length, folder, compiled, titles, names, one, two, done, *end = shown
    assert re.fullmatch(r"resnet_18 with 0.0 M parameters in float32 on 1 CPU", net)
    assert data == "folder: 3 classes, 23 training and 11 validation images at 32 px"
    assert length.startswith("6 steps of 8 images, 2.9 per epoch; lr ")
    assert folder == "run folder checkpoints/r (tensorboard --logdir checkpoints)"
    assert compiled.startswith("compiled the training step and ran it in ")
    assert (titles.split(), len(names.split())) == (["train", "validation"], 10)
    assert one.split()[:2] == ["1/2", "3"] and "best" in one
    assert two.split()[:2] == ["2/2", "6"]
    assert done.startswith("done: ")
    best = "best checkpoint: checkpoints/r/best (step-0000000"
    assert end[0][:-2] == best and end[0][-2:] in ("3)", "6)")
    command = "python main.py --mode={} --ckpt=checkpoints/r/best"
    assert end[1:] == [
        f"next: {command.format('eval')}",
        f"  or: {command.format('predict')} --image=PHOTO",
        "",
    ]
    log_lines = (tmp_path / "checkpoints/r/log.txt").read_text()
    assert "eval step 3: loss " in log_lines and "normalization: " in log_lines
