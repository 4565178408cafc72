"""Kills processes that index a data set, at many lines of the program; see `test_killed_indexing`.

    python -m tests.input_pipeline.sources.killed_indexing FOLDER

Prints a line of JSON for an undisturbed run, then one for each kill and the run after it. The
processes are forked from this one, which loads TensorFlow once and runs no operation.
"""

import hashlib
import json
import os
import pathlib
import shutil
import signal
import sys
import tempfile

from input_pipeline.sources import index_folder, layout_splits, layouts, packed_images
from input_pipeline.system import atomic_files

_TRACED = {module.__file__ for module in (packed_images, atomic_files, index_folder)}
_NUM_KILLS = 15  # of each kind
_MAX_SECONDS = 60
_NEVER = -1


def _index_in_new_process(folder: pathlib.Path, kill_at: int, results: pathlib.Path) -> int:
    """Opens the train split in a new process, which kills itself at a line of the traced modules.

    Returns:
      The exit status. The process writes `facts` at its end, and after each part the number of
      parts that are on the disk into `num_written`.
    """
    (results / "num_written").write_text("0")
    if process := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    signal.alarm(_MAX_SECONDS)
    num_lines = num_scanned = 0
    lines_of_parts = []
    scan_parts = packed_images._scan_parts

    def count_parts(unfinished, facts, split, parts):
        def scan(part):
            nonlocal num_scanned
            num_scanned += 1
            return part.scan()

        counted = [part._replace(scan=lambda part=part: scan(part)) for part in parts]
        for number, entries in enumerate(scan_parts(unfinished, facts, split, counted), 1):
            (results / "num_written").write_text(str(number))
            yield entries

    def trace(frame, event, _):
        nonlocal num_lines
        if frame.f_code.co_filename not in _TRACED:
            return None
        num_lines += event == "line"
        if frame.f_code is scan_parts.__code__:
            lines_of_parts.append(num_lines)
        if num_lines == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace

    packed_images._scan_parts = count_parts
    layout = layouts.recognize(folder)
    sys.settrace(trace)
    images = layout_splits.open_split(layout, "ilsvrc2012", "train")
    sys.settrace(None)
    content = images.rows.tobytes() + images.names.lines + repr(images.files).encode()
    facts = {"num_lines": num_lines, "lines_of_parts": lines_of_parts, "num_scanned": num_scanned}
    facts["content"] = hashlib.sha256(content).hexdigest()
    (results / "facts").write_text(json.dumps(facts))
    os._exit(0)


def _index(folder, results):
    """Returns the facts of an undisturbed run."""
    if status := _index_in_new_process(folder, _NEVER, results):
        raise RuntimeError(f"indexing ended with {status}")
    return json.loads((results / "facts").read_text())


def _count_finished_parts(index):
    """Returns the number of complete lines of the unfinished index, without that of the files."""
    lines = sum(path.read_bytes().count(b"\n") for path in index.glob("*.unfinished"))
    return max(0, lines - 1)


def _kill(folder, kill_at, results):
    """Returns the facts of a killed run and of the run after it."""
    index = index_folder.in_data_set(layouts.recognize(folder).root)
    facts = {
        "kill_at": kill_at,
        "status": _index_in_new_process(folder, kill_at, results),
        "num_written": int((results / "num_written").read_text()),
        "num_finished": _count_finished_parts(index),
        "has_index": any(index.glob("*.npz")),
    }
    after = _index(folder, results)
    facts |= {key: after[key] for key in ("num_scanned", "content")}
    return facts | {"left": sorted(path.name for path in index.iterdir())}


def _choose_lines(facts):
    """Returns lines all over a run, and of the loop over parts."""
    everywhere, parts = range(1, facts["num_lines"] + 1), facts["lines_of_parts"]
    return [
        lines[number * (len(lines) - 1) // (_NUM_KILLS - 1)]
        for lines in (everywhere, parts)
        for number in range(_NUM_KILLS)
    ]


def main(folder: pathlib.Path) -> None:
    """Kills a first run at many lines, then a run that continues a killed one."""
    index = index_folder.in_data_set(layouts.recognize(folder).root)
    with tempfile.TemporaryDirectory() as work:
        results, half = pathlib.Path(work), pathlib.Path(work, "half")
        undisturbed = _index(folder, results)
        print(json.dumps(undisturbed))
        for kill_at in _choose_lines(undisturbed):
            shutil.rmtree(index)
            facts = _kill(folder, kill_at, results)
            print(json.dumps(facts))
            if 0 < facts["num_finished"] < undisturbed["num_scanned"]:
                half_at = kill_at
        shutil.rmtree(index)
        _index_in_new_process(folder, half_at, results)
        shutil.copytree(index, half)
        for kill_at in _choose_lines(_index(folder, results)):
            shutil.rmtree(index)
            shutil.copytree(half, index)
            print(json.dumps(_kill(folder, kill_at, results)))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
