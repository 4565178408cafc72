"""A net from a file: train, resume, evaluate, predict, export, average, replay, two replicas."""

import json
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf

import main
from input_pipeline import user_code
from input_pipeline.errors import UsageError
from input_pipeline.sources import source
from input_pipeline.system import atomic_files
from loops import train_input, worker_agreement
from loops.checkpointing import checkpoint, run_folder
from loops.config import choices
from loops.evaluation import trained_models
from tests.command_line import parse, refusal, resolve
from tests.loops import small_steps

EXAMPLES = pathlib.Path(__file__).parents[2] / "docs/examples"

NET = """
from nets import registry

@registry.net(min_image_size=16)
def tiny(kit, num_classes):
    image = kit.image()
    x = kit.batch_norm_relu(kit.conv(image, 8, 3, "conv1", stride=2), "conv1")
    x = kit.global_average_pool(x, "pool")
    return kit.build_model(image, kit.logits(x, num_classes))

import tensorflow as tf
from input_pipeline.augmentation import augmentations

@augmentations.batch
def noisy(images, draws, std=1):
    return images + std * draws.normal(3)[:, None, None]

@augmentations.image
def invert(image, draws):
    return tf.where(draws.uniform(1)[0] < 0.5, image, 255 - image)
"""


def run(*words):
    """Runs a command line in this process as `main.py` does; returns its exit code."""
    return main.main(["main.py", *map(str, words)])


def fail(capsys, code, *words):
    """Runs a command that fails with an exit code; returns its one line."""
    capsys.readouterr()
    assert run(*words) == code
    *_, line = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    return line


def forget(patch):
    """Makes the process forget all code, as a new process would."""
    for name in ("_files", "_modules"):
        patch.setattr(user_code, name, {})
    patch.setattr(user_code, "_trusted", set())


@pytest.fixture(autouse=True)
def new_process(monkeypatch):
    forget(monkeypatch)


@pytest.fixture(scope="module", autouse=True)
def settings(tmp_path_factory):
    """The user's folder of settings."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("settings")))
        yield


@pytest.fixture(scope="module")
def trained(tiny_folder, tmp_path_factory, settings):
    """A run of two steps with a net and augmentations from the file `own.py`."""
    root = tmp_path_factory.mktemp("trained")
    (root / "own.py").write_text(NET)
    with pytest.MonkeyPatch.context() as patch:
        forget(patch)
        words = ["--dataset=folder", f"--data_dir={tiny_folder}", f"--checkpoint_dir={root}"]
        words += ["--strategy=one"]
        words += ["--image_size=32", "--batch_size=8", "--crops=1", "--warmup_epochs=0"]
        words += [f"--augment=standard,{root}/own.py:noisy(9),{root}/own.py:invert,erasing"]
        assert run(*words, f"--model={root}/own.py:tiny", "--steps=2", "--run_name=r") == 0
    return root


@pytest.fixture
def copied(trained, tmp_path):
    """A copy of the run and of its file."""
    return pathlib.Path(shutil.copytree(trained, tmp_path / "copied"))


def test_the_run_records_the_code(trained):
    record = json.loads((trained / "r/config.json").read_text())
    assert (trained / "r/code/own.py").read_text() == NET
    file = {"sha256": atomic_files.sha256(trained / "own.py")}
    assert record["code"] == {"own.py": {**file, "origin": str(trained / "own.py")}}
    digits = file["sha256"][:12]
    assert record["config"]["net"]["model"] == f"own.py:tiny@{digits}"
    augment = f"standard,own.py:noisy@{digits}(9),own.py:invert@{digits},erasing"
    assert record["config"]["data"]["augment"] == augment


@pytest.mark.parametrize(
    "words",
    [
        "--mode=eval --crops=1",
        "--mode=predict --crops=1 --explain --image={folder}/val/disc/00.jpg",
        "--mode=export --format=weights_h5 --out={root}/w.weights.h5",
        "--mode=repro",
        "--mode=average --run_name=a --checkpoint_dir={root} --bn_batches=1",
    ],
)
def test_other_modes_use_the_copy(copied, tiny_folder, words):
    """The file that was typed is gone."""
    (copied / "own.py").unlink()
    words = words.format(folder=tiny_folder, root=copied).split()
    extra = (
        [f"--ckpt={copied}/r,{copied}/r"] if "--mode=average" in words else [f"--ckpt={copied}/r"]
    )
    assert run(*words, *extra) == 0
    if "--mode=average" in words:
        assert (copied / "a/code/own.py").read_text() == NET


def test_a_resumed_run_says_that_its_file_has_changed(copied, caplog):
    path = copied / "r/config.json"
    record = json.loads(path.read_text())
    record["code"]["own.py"]["origin"] = str(copied / "own.py")
    path.write_text(json.dumps(record))
    resume = [f"--checkpoint_dir={copied}", "--run_name=r"]
    assert run(*resume, "--steps=3") == 0
    assert "has changed since" not in caplog.text
    (copied / "own.py").write_text(NET + "# more\n")
    assert run(*resume, "--steps=4") == 0
    assert f"{copied}/own.py has changed since the run began" in caplog.text


def test_a_typed_file_that_has_changed_conflicts_with_the_run(copied, capsys):
    (copied / "own.py").write_text(NET + "# more\n")
    words = [f"--checkpoint_dir={copied}", "--run_name=r", "--steps=3"]
    line = fail(capsys, 2, *words, f"--model={copied}/own.py:tiny")
    assert "--model=own.py:tiny@" in line and "conflicts with the run" in line


def test_fine_tuning_from_the_run(copied, tiny_folder, caplog):
    words = ["--dataset=folder", f"--data_dir={tiny_folder}", f"--checkpoint_dir={copied}"]
    words += ["--strategy=one", "--warmup_epochs=0"]
    words += ["--image_size=32", "--batch_size=8", "--crops=1", f"--init_from={copied}/r"]
    (copied / "own.py").write_text(NET + "# more\n")
    assert run(*words, f"--model={copied}/own.py:tiny", "--steps=1", "--run_name=tuned") == 0
    assert "own.py:tiny has changed since that run" in caplog.text


def test_a_changed_or_missing_copy_is_one_line(copied, capsys):
    copy = copied / "r/code/own.py"
    copy.write_text(NET + "import os\n")
    line = fail(capsys, 2, "--mode=eval", f"--ckpt={copied}/r")
    assert f"{copy}: was changed" in line
    copy.unlink()
    line = fail(capsys, 2, "--mode=eval", f"--ckpt={copied}/r")
    assert f"{copy}: the run's code cannot be read" in line


@pytest.mark.parametrize("mode", ["eval", "export", "repro", "train"])
def test_a_run_from_elsewhere_executes_nothing(copied, tmp_path, monkeypatch, capsys, mode):
    """The hashes in its config.json are right: a stranger has written them."""
    marker = tmp_path / "executed"
    code = f"open({str(marker)!r}, 'w')\n{NET}".encode()
    (copied / "r/code/own.py").write_bytes(code)
    old = json.loads((copied / "r/config.json").read_text())["code"]["own.py"]["sha256"]
    new = atomic_files.sha256(copied / "r/code/own.py")
    for path in (copied / "r/config.json", copied / "r/loss_trace.jsonl"):
        path.write_text(path.read_text().replace(old, new).replace(old[:12], new[:12]))
    words = [f"--ckpt={copied}/r"] if mode != "train" else [f"--checkpoint_dir={copied}"]
    words += ["--run_name=r", "--steps=3"] if mode == "train" else []
    words += [f"--out={tmp_path}/exported"] if mode == "export" else []
    line = fail(capsys, 2, f"--mode={mode}", *words)
    assert "--trust_code" in line and f"{copied}/r/code/own.py" in line
    assert not marker.exists()
    if mode == "eval":
        assert run("--mode=eval", "--crops=1", *words, "--trust_code") == 0
        assert marker.exists()


def test_code_that_only_training_needs(copied, tmp_path, capsys):
    """A stranger's augmentation: an evaluation does not need it, a resumed run refuses it."""
    marker = tmp_path / "executed"
    code = f"open({str(marker)!r}, 'w')\n"
    (copied / "r/code/aug.py").write_text(code)
    digest = atomic_files.sha256(copied / "r/code/aug.py")
    path = copied / "r/config.json"
    record = json.loads(path.read_text())
    record["config"]["data"]["augment"] = f"standard,aug.py:f@{digest[:12]}(1)"
    record["code"]["aug.py"] = {"sha256": digest, "origin": "/nowhere/aug.py"}
    path.write_text(json.dumps(record))
    assert run("--mode=eval", f"--ckpt={copied}/r", "--crops=1") == 0
    words = [f"--checkpoint_dir={copied}", "--run_name=r", "--steps=3"]
    line = fail(capsys, 2, *words)
    assert "--trust_code" in line and f"{copied}/r/code/aug.py" in line
    words = ["--mode=train", "--dataset=shapes", f"--recipe={copied}/r", "--steps=1"]
    assert "--trust_code" in fail(capsys, 2, *words)
    assert not marker.exists()
    line = fail(capsys, 2, *words, "--trust_code")
    assert marker.exists() and "aug.py: has no function f" in line


FAILING = """
import tensorflow as tf
from input_pipeline.augmentation import augmentations

def check(image):
    if image.flat[0] % 5 == 0:
        raise ValueError("five")
    return image

@augmentations.image
def f(image, draws):
    return tf.numpy_function(check, [image], tf.uint8)

@augmentations.image
def g(image, draws):
    return tf.numpy_function(lambda image: image[:4], [image], tf.uint8)
"""


@pytest.mark.parametrize(
    ("name", "message"),
    [("f", "fail.py:7: ValueError: five"), ("g", "fail.py:g: returned uint8 (4,")],
)
def test_an_augmentation_that_fails_on_some_images(
    trained, tiny_folder, tmp_path, capsys, name, message
):
    """tf.data alone would replace these images by others."""
    (tmp_path / "fail.py").write_text(FAILING)
    words = ["--strategy=one", "--dataset=folder", f"--data_dir={tiny_folder}", "--warmup_epochs=0"]
    words += [f"--checkpoint_dir={tmp_path}", f"--model={trained}/own.py:tiny", "--image_size=32"]
    words += ["--batch_size=8", "--crops=1", "--steps=4", f"--augment={tmp_path}/fail.py:{name}"]
    line = fail(capsys, 2, *words)
    assert message in line


def test_an_augmentation_that_fails_later(trained, tiny_folder, tmp_path, one_device):
    """In the middle of a training, some images or all were replaced, and all of them decode."""
    (tmp_path / "fail.py").write_text(FAILING)
    words = ["--dataset=folder", f"--data_dir={tiny_folder}", "--image_size=32", "--batch_size=8"]
    plain = resolve(*words).data
    data = resolve(*words, f"--augment={tmp_path}/fail.py:f").data
    train = source.open_split(data, "train")
    error = tf.errors.InvalidArgumentError(None, None, "any")
    for config, is_found in ((data, True), (plain, False)):
        images = train_input.TrainInput(one_device, train, config, seed=0)
        found = images.to_user_error(error, step=1)
        assert ("fail.py:7: ValueError: five" in str(found)) == is_found
        if is_found:
            assert "fail.py:7: " in refusal(images.report_replaced_images, 0, 2, 1, 1)
        else:
            assert found is error


@pytest.mark.parametrize(
    ("code", "place", "message"),
    [
        ("return 3", "", "returned int, and must return kit.build_model"),
        ("return kit.build_model(i, kit.relu(i, 'r'))", "", "must end with kit.logits"),
        ("kit.relu(kit.concatenate(i))", "own.py:6: ", "AttributeError"),
        ("kit.add(i, i, 'a')", "", "call kit.begin_residual_blocks(x, NUMBER) before"),
        (
            "x = kit.add(kit.begin_residual_blocks(i, 2), i, 'a');"
            " return kit.build_model(i, kit.logits(x, num_classes))",
            "",
            "the net has 2 residual blocks, but kit.add was called for 1",
        ),
        ("raise RuntimeError('of mine')", "own.py:6: ", "RuntimeError: of mine"),
    ],
)
def test_a_net_that_cannot_be_built_is_one_line(tmp_path, capsys, code, place, message):
    head = NET[: NET.index("    image")]
    (tmp_path / "own.py").write_text(f"{head}    i = kit.image(); {code}\n")
    words = ["--strategy=one", f"--checkpoint_dir={tmp_path}/runs", "--image_size=32", "--steps=1"]
    line = fail(capsys, 2, f"--model={tmp_path}/own.py:tiny", *words)
    assert place in line and message in line
    assert not (tmp_path / "runs").exists()


def test_options_of_the_net_are_checked(tmp_path, capsys):
    (tmp_path / "own.py").write_text(NET)
    model = f"--model={tmp_path}/own.py:tiny"
    assert "own.py:tiny needs at least 16 px" in fail(capsys, 2, model, "--image_size=8")
    assert "own.py:tiny has no residual blocks" in fail(capsys, 2, model, "--stochastic_depth=0.1")
    assert "did you mean resnet_50 or" in fail(capsys, 2, "--model=resnet_5O")
    assert "--data_dir" in fail(capsys, 2, "--mode=verify", "--dataset=folder")


def test_two_replicas_have_the_same_weights(mirrored, trained):
    """The example in docs/extending.md, on two devices."""
    images = small_steps.random_images(2)
    model = f"--model={EXAMPLES}/eca.py:resneteca_18"
    state, results = small_steps.run_steps(mirrored, images, model)
    assert results["applied"] == 2
    assert "stage4_block2_se/kernel" in small_steps.weights(state)
    small_steps.assert_replicas_equal(state)


SELECTIVITY = EXAMPLES / "selectivity.py"


def test_metrics_of_the_example_appear_everywhere(copied, capsys, read_events):
    names = f"--metrics=macro_f1,{SELECTIVITY}:num_predicted,{SELECTIVITY}:label_probability"
    both = ["--mode=eval", f"--ckpt={copied}/r,{copied}/r", "--crops=10", names]
    logits, direct, cached = (copied / name for name in ("l.npz", "a.json", "b.json"))
    assert run(*both, f"--save_logits={logits}", f"--json={direct}") == 0
    table = capsys.readouterr().out
    for label in ("macro F1", "classes predicted", "label_probability"):
        assert table.count(label) == 2  # in the summary, and above the ensemble and its members
    results = json.loads(direct.read_text())
    for part in (results, results["center_crop"], *results["members"]):
        assert part["label_probability"] == pytest.approx(1 / 3, abs=0.1)
        assert part["label_probability_low"] < part["label_probability"]
        assert part["num_predicted"] in (1, 2, 3) and "macro_f1" in part
    assert run("--mode=eval", f"--logits={logits}", names, f"--json={cached}") == 0
    from_logits = json.loads(cached.read_text())
    assert {k: v for k, v in from_logits.items() if k in results and k != "logits"} == results
    assert run("--mode=eval", f"--ckpt={copied}/r", "--crops=1", names) == 0
    tags = read_events(copied / "r/eval")
    assert tags["metrics/label_probability"][2] == pytest.approx(1 / 3, abs=0.1)
    assert run("--mode=eval", f"--ckpt={copied}/r", "--watch", "--crops=1", names) == 0
    assert "classes predicted" in capsys.readouterr().out


def test_best_follows_a_metric_of_the_user(trained, tiny_folder, tmp_path):
    """The metric falls from step to step, and the lowest value is the best."""
    path = tmp_path / "falling.py"
    path.write_text(
        "from loops.metrics import metrics\nvalues = iter(range(-1, -99, -1))\n"
        "@metrics.metric(higher_is_better=False)\n"
        "def falling(probs, labels): return next(values)\n"
    )
    words = ["--strategy=one", "--dataset=folder", f"--data_dir={tiny_folder}", "--warmup_epochs=0"]
    words += [f"--checkpoint_dir={tmp_path}", f"--model={trained}/own.py:tiny", "--image_size=32"]
    words += ["--batch_size=8", "--crops=1", "--steps=3", "--eval_every=1", "--keep=1"]
    words += ["--save_every=1", "--run_name=r", f"--best={path}:falling", "--metrics=macro_f1"]
    assert run(*words) == 0
    folder = checkpoint.find_best_intact(tmp_path / "r")
    assert (checkpoint.parse_step(folder), checkpoint.read_score(folder)) == (3, 3)
    results = json.loads((tmp_path / "r/eval-00000003-val-1.json").read_text())
    assert "macro_f1" in results and "falling" not in results


@pytest.fixture
def distillation(trained, tmp_path):
    """The example with the trained run as the teacher; returns its reference and the data."""
    text = (EXAMPLES / "distillation.py").read_text()
    text = text.replace('"checkpoints/teacher"', repr(str(trained / "r")))
    (tmp_path / "distillation.py").write_text(text)
    config = parse(f"--step={tmp_path}/distillation.py:Distillation")
    data = run_folder.read_record(trained / "r").config.data
    return choices.STEPS.get(config.optimization.step).function, data


def test_distillation(distillation, trained, one_device):
    """The loss is (1 - w) * cross-entropy + w * T^2 * KL, computed in NumPy."""
    step_class, data = distillation
    state = small_steps.make_state(one_device, f"--model={trained}/own.py:tiny")
    settings = small_steps.settings(data=data, label_smoothing=0.0)
    step = step_class(state, settings)
    images = small_steps.random_images(1)
    normalized = (images.astype(np.float32) - 127.5) / 64.0
    nets = (step._teacher(normalized, training=False), state.model(normalized, training=True))
    teacher, student = (np.asarray(logits, np.float64) for logits in nets)
    labels = np.arange(8) % 3

    def log_softmax(x):
        return x - np.log(np.exp(x).sum(axis=1, keepdims=True))

    p, q = log_softmax(teacher / 4), log_softmax(student / 4)
    expected = 0.7 * 16 * (np.exp(p) * (p - q)).sum(axis=1)
    expected -= 0.3 * log_softmax(student)[range(8), labels]
    before = [v.numpy() for v in step._teacher.variables]
    sums = step(small_steps.batches(one_device, images), tf.constant(1, tf.int64))
    assert float(sums["loss"]) == pytest.approx(expected.sum(), rel=1e-4)
    confidence = np.exp(log_softmax(student)).max(axis=1)
    assert float(sums["measured/confidence"]) == pytest.approx(confidence.sum(), rel=1e-4)
    for variable, value in zip(step._teacher.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    with pytest.raises(UsageError, match="another normalization"):
        step_class(state, small_steps.settings())


def test_distillation_on_two_replicas(distillation, trained, mirrored):
    step_class, data = distillation
    state = small_steps.make_state(mirrored, f"--model={trained}/own.py:tiny")
    before = small_steps.weights(state)
    step = step_class(state, small_steps.settings(data=data))
    images = small_steps.random_images(2)
    sums = step(small_steps.batches(mirrored, images), tf.constant(2, tf.int64))
    assert float(sums["applied"]) == 2
    assert 2 * 8 / 3 < float(sums["measured/confidence"]) < 2 * 8  # of three classes
    assert all(np.any(before[path] != value) for path, value in small_steps.weights(state).items())
    small_steps.assert_replicas_equal(state)


def test_consistency_of_two_passes(tiny_folder, tmp_path):
    """Without dropout, passes are equal. Values that the step computed are logged, by XLA too."""
    words = ["--strategy=one", "--dataset=folder", f"--data_dir={tiny_folder}", "--warmup_epochs=0"]
    words += [f"--checkpoint_dir={tmp_path}", "--model=resnet_18", "--image_size=32", "--steps=1"]
    words += ["--batch_size=8", "--crops=1", f"--step={EXAMPLES}/consistency.py:Consistency"]
    divergences = []
    try:
        for name, more in (("d", ["--dropout=0.5", "--accumulate=2"]), ("x", ["--xla"])):
            assert run(*words, f"--run_name={name}", *more) == 0
            lines = map(json.loads, (tmp_path / name / "metrics.jsonl").read_text().splitlines())
            divergences += [x["measured/divergence"] for x in lines if x["split"] == "train"]
        # In nested loops, TensorFlow's rewrite of sums fails for such a step.
        assert not tf.config.optimizer.get_experimental_options()["arithmetic_optimization"]
    finally:
        tf.config.optimizer.set_experimental_options({"arithmetic_optimization": True})
    assert divergences[0] > 1e-4 and divergences[1] == pytest.approx(0, abs=1e-6)


AFTER_UPDATE = """
import tensorflow as tf
from loops import train_step

@train_step.step
class Zero(train_step.TrainStep):
    def after_update(self):
        kernel = self._state.model.get_layer("conv1").kernel
        kernel.value.assign(0.0 * kernel.value)

@train_step.step
class Unnamed(train_step.TrainStep):
    def measure(self, images, targets, logits):
        return {"largest": tf.reduce_max(logits, axis=1)}

@train_step.step
class Tensor(train_step.TrainStep):
    measured = ("largest",)
    def measure(self, images, targets, logits):
        return tf.reduce_max(logits, axis=1)

@train_step.step
class Mean(train_step.TrainStep):
    def compute_loss(self, images, targets, logits):
        return tf.reduce_mean(super().compute_loss(images, targets, logits))

@train_step.step
class TwoValues(train_step.TrainStep):
    def loss_and_gradients(self, images, targets, scale):
        return super().loss_and_gradients(images, targets, scale)[:2]

@train_step.step
class ScalarLoss(train_step.TrainStep):
    def loss_and_gradients(self, images, targets, scale):
        loss, *others = super().loss_and_gradients(images, targets, scale)
        return tf.reduce_mean(loss), *others

@train_step.step
class Scalar(train_step.TrainStep):
    measured = ("largest",)
    def measure(self, images, targets, logits):
        return {"largest": tf.reduce_max(logits)}

class Undecorated(train_step.TrainStep): pass

@train_step.step
def function(state, settings): pass
"""


def test_what_follows_an_update(trained, tiny_folder, tmp_path, one_device, capsys):
    (tmp_path / "after.py").write_text(AFTER_UPDATE)
    words = ["--strategy=one", "--dataset=folder", f"--data_dir={tiny_folder}", "--warmup_epochs=0"]
    words += [f"--checkpoint_dir={tmp_path}", f"--model={trained}/own.py:tiny", "--image_size=32"]
    words += ["--batch_size=8", "--crops=1", "--steps=1", "--run_name=r"]
    line = fail(capsys, 2, *words, f"--step={tmp_path}/after.py:Undecorated")
    assert "@train_step.step" in line
    line = fail(capsys, 2, *words, f"--step={tmp_path}/after.py:function")
    assert "--step=after.py:function: is not a subclass" in line
    assert run(*words, f"--step={tmp_path}/after.py:Zero") == 0
    model = trained_models.find_models(parse("--mode=eval", f"--ckpt={tmp_path}/r"))[0]
    kernel = model.restore(one_device).get_layer("conv1").kernel
    assert not kernel.numpy().any()
    assert run("--mode=repro", f"--ckpt={tmp_path}/r") == 0


@pytest.mark.usefixtures("tiny_net")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Unnamed", "measure returned largest, but measured is empty"),
        ("Tensor", "must return a dict"),
        ("Scalar", "measure returned largest of shape (), and must return one number"),
        ("Mean", "compute_loss returned a loss of shape (), and must return one number"),
        ("TwoValues", "loss_and_gradients must return the loss of each image, the logits and"),
        ("ScalarLoss", "loss_and_gradients returned a loss of shape (), and must return one"),
    ],
)
def test_wrong_results_of_a_step_are_named(tmp_path, one_device, name, message):
    (tmp_path / "after.py").write_text(AFTER_UPDATE)
    config = parse(f"--step={tmp_path}/after.py:{name}")
    step_class = choices.STEPS.get(config.optimization.step).function
    step = step_class(small_steps.make_state(one_device), small_steps.settings())
    batches = small_steps.batches(one_device, small_steps.random_images(1))
    assert message in refusal(step, batches, tf.constant(1, tf.int64))


def test_unnamed_runs_have_the_name_of_the_function(tmp_path):
    (tmp_path / "own.py").write_text(NET)
    config = parse(f"--model={tmp_path}/own.py:tiny", "--dataset=shapes")
    assert run_folder.resolve_run_dir(config).name.startswith("tiny-shapes-")


def test_workers_with_different_files_differ(tmp_path):
    facts = []
    for folder, code in (("a", NET), ("b", NET), ("c", NET + "#")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "own.py").write_text(code)
        config = parse(f"--model={tmp_path}/{folder}/own.py:tiny", "--strategy=multi_worker")
        facts.append(worker_agreement.describe_start(config))
    assert facts[0] == facts[1]
    assert {k for k in facts[0] if facts[0][k] != facts[2][k]} == {"--model"}
