"""Checks the structure of the code: import directions, homes of concepts, dead config fields.

Each rule is a function that maps sources to complaints. The last tests show that every rule can
fail: they apply it to a source that breaks it.
"""

import ast
import dataclasses
import pathlib
import re
import subprocess
import sys
import typing

import pytest

from input_pipeline.datasets import DatasetSpec
from loops.config.config import Config

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGES = ("nets", "input_pipeline", "loops", "benchmarks")

# What each package may import from the project.
MAY_IMPORT = {
    "main": ("flags", "loops", "input_pipeline"),
    "flags": (
        r"\w+(\.\w+)*\.config",
        "loops.config.flag_fields",
        "nets.registry",
        r"input_pipeline.(datasets|errors|text|user_code|system\.regular_files)",
    ),
    "nets": ("nets", "input_pipeline.(errors|user_code)"),
    "input_pipeline": ("input_pipeline",),
    "loops": ("loops", "nets", "input_pipeline"),
    "benchmarks": ("benchmarks", "flags", "loops", "nets", "input_pipeline"),
}
# The rooms and files of each folder, from the lowest floor up. A room may import from the floors
# below it, not from its own floor or from above.
FLOORS = {
    "loops": (
        ("runtime",),
        ("config",),
        ("distribution", "metrics"),
        ("monitoring",),
        ("checkpointing", "optimization"),
        ("train_state", "train_input", "train_failures", "evaluator"),
        ("train_step", "evaluation", "worker_agreement"),
        ("train_setup",),
        ("train_statistics",),
        ("train_loop",),
        ("train", "evaluate", "tools"),
    ),
    "input_pipeline": (
        ("arithmetic", "errors", "synthetic", "text"),
        ("system",),
        ("datasets", "user_code"),
        ("augment_spec",),
        ("config", "sample_order", "threads", "decoding"),
        ("sources", "augmentation"),
        ("pipeline", "pixel_statistics"),
        ("service", "preparation"),
    ),
    "nets": (
        ("layers",),
        ("registry",),
        ("alexnet", "alexnet_owt", "resnet"),
        ("zfnet", "resnetv2"),
        ("macs",),
        ("torch_names", "published_weights"),
    ),
    "loops/tools": (
        ("weights",),
        ("predict", "benchmark", "data", "replay", "auto_batch_trial", "print_recipe"),
        ("notebook",),
    ),
}
# Third-party packages that it may use. Benchmarks may use any.
MAY_USE = {
    "main": ("absl",),
    "flags": ("absl",),
    "nets": ("keras", "tensorflow"),
    "loops": (
        *("tensorflow", "keras", "numpy", "cv2", "tqdm", "absl.logging"),
        *("h5py", "safetensors", "tensorboard", r"google\.protobuf\.message"),
        "huggingface_hub",
        *("tf2onnx", "onnxruntime"),  # extras, for `--mode=export`
    ),
    "input_pipeline": (
        *("tensorflow", "numpy", "cv2", "tqdm", "absl.logging", r"scipy\.io"),
        "grpc",  # protocol of TensorFlow's data service
        "pyarrow",  # an extra, for Parquet files
        "array_record",  # likewise
    ),
    "benchmarks": (".*",),
}
# Names that only these files may mention.
HOMES = {
    r"absl\.(flags|app)\b.*": ("flags.py",),
    r"(.*\.)?FLAGS\b.*": ("flags.py",),
    r"tensorflow\.summary\b.*": ("loops/monitoring/metric_writer.py",),
    r"tensorboard\b.*": ("loops/monitoring/metric_writer.py",),
    r"tensorflow\.train\.(\w*Checkpoint\w*|\w*_checkpoint)\b.*": (
        "loops/checkpointing/checkpoint.py",
    ),
    r"tensorflow\.distribute\.(\w+\.)*\w+Strategy\b.*": ("loops/distribution/strategies.py",),
    r"tensorflow\.(io|data|train)\..*(TFRecord|Example|parse_\w*example|Feature)\w*\b.*": (
        "input_pipeline/sources/tfrecord.py",
    ),
    r"(builtins\.)?print": ("loops/monitoring/console.py", "benchmarks/harness.py"),
}


def product_sources():
    """Returns {path: text} of every Python file outside `tests/`."""
    files = [
        *ROOT.glob("*.py"),
        *(file for package in PACKAGES for file in (ROOT / package).rglob("*.py")),
    ]
    return {str(file.relative_to(ROOT)): file.read_text(encoding="utf-8") for file in files}


SOURCES = product_sources()


def module_of(path):
    """Returns the dotted name of a module, or of the package for an `__init__.py`."""
    return path.removesuffix(".py").replace("/", ".").removesuffix(".__init__")


def imports(tree):
    """Yields imported dotted names, also inside functions: `from a import b` gives `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where a name comes from"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported_modules(tree, modules):
    """Yields the modules of the project that a file imports."""
    for name in imports(tree):
        while name and name not in modules:
            name = name.rpartition(".")[0]
        if name:
            yield name


def mentions(tree):
    """Returns the dotted names that a file uses, without aliases: `tf.io` is `tensorflow.io`."""
    aliases = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                aliases[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0]
                )
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                aliases[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    names = set(imports(tree))
    for node in ast.walk(tree):
        parts = []
        inner = node
        while isinstance(inner, ast.Attribute):
            parts.append(inner.attr)
            inner = inner.value
        if isinstance(inner, ast.Name):
            names.add(".".join([aliases.get(inner.id, inner.id), *reversed(parts)]))
    return {re.sub(r"\.compat\.v[12]\b|\.python\b", "", name) for name in names}


def covered(name, patterns):
    """Returns whether a dotted name, or a parent of it, matches one of the patterns."""
    return any(re.fullmatch(rf"{pattern}(\..*)?", name) for pattern in patterns)


def package_of(path):
    return path.split("/")[0].removesuffix(".py")


def import_complaints(sources):
    """Yields imports in a forbidden direction, and third-party packages that are not listed."""
    modules = {module_of(path) for path in sources}
    for path, text in sources.items():
        tree, package = ast.parse(text), package_of(path)
        for name in imports(tree):
            root = name.split(".")[0]
            if root in {m.split(".")[0] for m in modules}:
                module = next(iter(imported_modules(ast.parse(f"import {name}"), modules)), name)
                if not covered(module, MAY_IMPORT.get(package, ())):
                    yield f"{path} imports {module}"
            elif root not in sys.stdlib_module_names and not covered(
                name, MAY_USE.get(package, ())
            ):
                yield f"{path} uses {name}"


def floor_complaints(sources):
    """Yields imports that do not go down the floors of a folder, and rooms without a floor."""
    modules = {module_of(path) for path in sources}
    for folder, floors in FLOORS.items():
        level = {room: number for number, rooms in enumerate(floors) for room in rooms}
        prefix = folder + "/"
        for path, text in sources.items():
            if not path.startswith(prefix) or path == f"{prefix}__init__.py":
                continue
            room = path.removeprefix(prefix).split("/")[0].removesuffix(".py")
            if room not in level:
                yield f"{path}: {room} has no floor in {folder}"
                continue
            for name in imported_modules(ast.parse(text), modules):
                inside = name.replace(".", "/")
                if not inside.startswith(prefix):
                    continue
                other = inside.removeprefix(prefix).split("/")[0]
                if other != room and level.get(other, 0) >= level[room]:
                    yield f"{path} imports {name}, which is not below it"


def cycle_complaints(sources):
    """Yields import cycles. The `__init__.py` of packages are empty."""
    modules = {module_of(path) for path in sources}
    edges = {
        module_of(path): set(imported_modules(ast.parse(text), modules)) - {module_of(path)}
        for path, text in sources.items()
    }
    finished = set()

    def visit(module, trail):
        if module in trail:
            yield " -> ".join([*trail[trail.index(module) :], module])
        elif module not in finished:
            for other in sorted(edges[module]):
                yield from visit(other, [*trail, module])
            finished.add(module)

    for module in sorted(edges):
        yield from visit(module, [])


def home_complaints(sources):
    """Yields names that are used outside their home module."""
    for path, text in sources.items():
        for name in sorted(mentions(ast.parse(text))):
            for pattern, homes in HOMES.items():
                if re.fullmatch(pattern, name) and path not in homes:
                    yield f"{path} mentions {name}, whose home is {homes[0]}"


def naming_complaints(sources):
    """Yields modules and packages with meaningless names."""
    for path in sources:
        for part in module_of(path).split("."):
            if re.fullmatch(r"_?(utils?|common|helpers?|misc)", part):
                yield f"{path} is called {part}"


def text_complaints(sources):
    """Yields modules without a docstring, and TODO comments."""
    for path, text in sources.items():
        if text.strip() and not ast.get_docstring(ast.parse(text)):
            yield f"{path} has no docstring"
        for number, line in enumerate(text.splitlines(), 1):
            if re.search(r"\b(TO" r"DO|FIX" r"ME|X" r"XX)\b", line):
                yield f"{path}, line {number}: {line.strip()}"


# Dead flags. A field counts as read if product code contains `<holder>.field`. A holder is
# `config`, the name of the branch, or `<branch>_config`, also with leading underscores. Other
# attributes of the same name, as in `text.split(",")`, do not count. A getattr on a holder with a
# computed name reads the fields whose names are strings in the same function. These functions are
# excluded, because they visit all fields or only check ranges and would hide dead flags:
WALKERS = ("check", "from_json", "leaves", "merge", "replace", "resolve")


def fields_read(sources, class_name, holders, walkers=WALKERS):
    """Returns the attributes that are read from the holders, outside the class itself."""
    read = set()
    for text in sources.values():
        tree = ast.parse(text)
        for node in _outside(tree, class_name, walkers):
            is_read = isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
            if is_read and _last_name(node.value) in holders:
                read.add(node.attr)
        for function in ast.walk(tree):
            if not isinstance(function, ast.FunctionDef) or function.name in walkers:
                continue
            for node in ast.walk(function):
                if _is_getattr(node) and _last_name(node.args[0]) in holders:
                    constants = ast.walk(function)
                    read |= {c.value for c in constants if isinstance(c, ast.Constant)}
    return read


def _outside(node, class_name, walkers):
    """Yields all nodes outside the class and outside the walkers."""
    yield node
    for child in ast.iter_child_nodes(node):
        skipped = (isinstance(child, ast.ClassDef) and child.name == class_name) or (
            isinstance(child, ast.FunctionDef) and child.name in walkers
        )
        if not skipped:
            yield from _outside(child, class_name, walkers)


def _is_getattr(node):
    return (
        isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "getattr"
    )


def _last_name(node):
    """Returns `data` for `self._data`, `config.data`, `data` and `data(...)`, otherwise None."""
    if isinstance(node, ast.Call):
        return _last_name(node.func)
    name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", None)
    return name and name.lstrip("_")


def config_classes():
    """Returns (class, names of variables that hold it) for each dataclass of the config tree."""
    hints = typing.get_type_hints(Config)
    branches = [(c, n) for n, c in hints.items() if dataclasses.is_dataclass(c)]
    of_branches = [(cls, {"config", name, f"{name}_config"}) for cls, name in branches]
    return [(Config, {"config"}), *of_branches]


def dead_fields(sources, cls, holders, walkers=WALKERS):
    read = fields_read(sources, cls.__name__, holders, walkers)
    return sorted(field.name for field in dataclasses.fields(cls) if field.name not in read)


def test_every_python_file_is_checked():
    listed = [path for path in tracked_files() if path.endswith(".py")]
    assert [p for p in listed if p not in SOURCES and not p.startswith(("tests/", "docs/"))] == []
    assert len(SOURCES) > 40


@pytest.mark.parametrize(
    "rule",
    [
        import_complaints,
        floor_complaints,
        cycle_complaints,
        home_complaints,
        naming_complaints,
        text_complaints,
    ],
)
def test_sources_follow_rule(rule):
    assert list(rule(SOURCES)) == []


@pytest.mark.parametrize(("cls", "holders"), config_classes())
def test_no_dead_config_field(cls, holders):
    assert dead_fields(SOURCES, cls, holders) == []


def test_no_dead_dataset_field():
    # Held as `spec` or as `datasets.get(name)`. No function is excluded, because `resolve` copies
    # the defaults of a data set to the config.
    assert dead_fields(SOURCES, DatasetSpec, {"spec", "get"}, walkers=()) == []


def test_field_names_are_unique_in_the_config_tree():
    """Field names become flags, and functions on leaves identify a field by its name."""
    names = [f.name for cls, _ in config_classes() for f in dataclasses.fields(cls)]
    assert len(names) == len(set(names))


def tracked_files():
    """Returns the files that git tracks or would add. Skips the test outside a checkout."""
    command = ["git", "-C", ROOT, "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [path for path in listed.splitlines() if (ROOT / path).is_file()]


def test_no_file_mentions_paths_or_hosts_outside_the_repository():
    """Paths next to the checkout exist on one machine only; package hosts are set in pip."""
    next_to_checkout = "/".join(("..", "shared"))
    hosts = ["pypi" + ".org", "files.python" + "hosted.org"]
    complaints = []
    for path in tracked_files():
        try:
            text = (ROOT / path).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        forbidden = hosts if path == ".ci/run" else [next_to_checkout, *hosts]
        complaints += [f"{path} mentions {word}" for word in forbidden if word in text]
    assert complaints == []


@pytest.mark.parametrize(
    ("rule", "path", "text"),
    [
        (import_complaints, "nets/a.py", "from loops import config"),
        (import_complaints, "nets/a.py", "import numpy as np"),
        (import_complaints, "input_pipeline/a.py", "def f():\n    from nets import registry"),
        (import_complaints, "input_pipeline/a.py", "from absl import flags"),
        (import_complaints, "loops/a.py", "import flags"),
        (import_complaints, "loops/a.py", "import main"),
        (import_complaints, "loops/a.py", "from benchmarks import peers"),
        (import_complaints, "loops/a.py", "import torch"),
        (import_complaints, "flags.py", "from loops import train"),
        (import_complaints, "flags.py", "from loops.optimization import losses"),
        (import_complaints, "new_package/a.py", "import cv2"),
        (home_complaints, "loops/a.py", "import tensorflow as tf\ntf.summary.scalar('a', 1)"),
        (home_complaints, "loops/a.py", "from tensorflow import summary"),
        (home_complaints, "loops/a.py", "import tensorflow as t\nt.compat.v1.summary.image()"),
        (home_complaints, "loops/a.py", "import tensorflow as tf\ntf.train.Checkpoint(a=1)"),
        (home_complaints, "loops/a.py", "import tensorflow as tf\ntf.train.CheckpointManager"),
        (home_complaints, "loops/a.py", "import tensorflow as tf\ntf.train.load_checkpoint('a')"),
        (home_complaints, "loops/a.py", "import tensorflow as tf\ntf.distribute.MirroredStrategy"),
        (
            home_complaints,
            "loops/a.py",
            "from tensorflow import distribute as d\nd.experimental.TPUStrategy()",
        ),
        (home_complaints, "loops/a.py", "import tensorflow as tf\ntf.data.TFRecordDataset('a')"),
        (home_complaints, "loops/a.py", "print(1)"),
        (home_complaints, "loops/a.py", "list(map(print, 'ab'))"),
        (home_complaints, "loops/a.py", "from absl.flags import FLAGS"),
        (home_complaints, "loops/a.py", "from absl import flags\nflags.FLAGS.model"),
        (floor_complaints, "loops/metrics/a.py", "from loops import train"),
        (floor_complaints, "loops/metrics/b.py", "from loops.monitoring import b"),
        (floor_complaints, "loops/new_room/a.py", "import os"),
        (naming_complaints, "loops/utils.py", ""),
        (naming_complaints, "loops/common/a.py", ""),
        (text_complaints, "loops/a.py", "x = 1"),
        (text_complaints, "loops/a.py", '"""A."""\n# TODO: later'),
    ],
)
def test_rule_can_fail(rule, path, text):
    others = {"main.py": "", "flags.py": "", "loops/config/config.py": "", "loops/train.py": ""}
    others |= {
        "loops/monitoring/b.py": "",
        "loops/train_state.py": "",
        "nets/registry.py": "",
        "benchmarks/peers.py": "",
    }
    assert list(rule(others)) == []
    assert list(rule({**others, path: text})) != []


def test_import_cycle_is_reported():
    sources = {
        "loops/a.py": "from loops import b",
        "loops/b.py": "def late():\n    import loops.c",
        "loops/c.py": "from loops.a import name",
    }
    assert list(cycle_complaints(sources)) == ["loops.a -> loops.b -> loops.c -> loops.a"]
    del sources["loops/c.py"]
    assert list(cycle_complaints(sources)) == []


def test_dead_config_field_is_reported():
    @dataclasses.dataclass
    class DataConfig:
        used: int = 1
        listed: int = 1
        dead: int = 1
        split: int = 1
        checked: int = 1

    definition = "class DataConfig:\n    def f(self, config):\n        return config.dead\n"
    reader = """
def work(self, names):
    self._data.used
    names.split(",")
    data.dead = 3
    return [getattr(config.data, n) for n in ("listed",)]
def check(config):
    config.data.checked
"""
    found = dead_fields({"a.py": definition, "b.py": reader}, DataConfig, {"config", "data"})
    assert found == ["checked", "dead", "split"]
