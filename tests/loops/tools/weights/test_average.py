"""Tests weight averaging: float64 means, new batch-norm statistics, and the run folder."""

import contextlib
import json
import os
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from input_pipeline.errors import DataError, UsageError
from input_pipeline.sources import source
from loops import evaluate, train
from loops.checkpointing import checkpoint, run_folder
from loops.evaluation import trained_models
from loops.tools.weights import average
from nets import registry
from nets.layers.kit import Kit
from tests.command_line import parse, resolve
from tests.loops.tiny_nets import two_convolutions

pytestmark = pytest.mark.usefixtures("tiny_net")


@pytest.fixture(scope="module")
def trained(tiny_folder, tmp_path_factory):
    """A folder with the run `a`, which has the steps 2, 4 and 6."""
    root = tmp_path_factory.mktemp("runs")
    words = ["--dataset=folder", f"--data_dir={tiny_folder}", f"--checkpoint_dir={root}"]
    words += ["--batch_size=8", "--crops=1", "--save_every=2", "--steps=6", "--image_size=32"]
    words += ["--eval_every=2"]
    with two_convolutions():
        train.run(parse(*words, "--run_name=a"))
    return root


def tensors(step_dir):
    reader = tf.train.load_checkpoint(str(step_dir / "ckpt"))
    return {n: reader.get_tensor(n) for n in reader.get_variable_to_shape_map() if "model" in n}


def test_average_of_steps(trained, capsys):
    """Averages three steps, because the mean of two is often exact in float32 too."""
    steps = [trained / f"a/step-0000000{step}" for step in (2, 4, 6)]
    words = [f"--ckpt={','.join(map(str, steps))}", f"--checkpoint_dir={trained}"]
    words += ["--bn_batches=2", f"--json={trained / 'facts.json'}"]
    results = average.run(parse("--mode=average", *words, "--run_name=mean"))
    for path in ("mean/average.json", "facts.json"):
        assert json.loads((trained / path).read_text()) == results
    assert results["average_of"] == [str(step) for step in steps]
    assert (results["bn_batches"], results["bn_images"]) == (2, 16)
    assert str(steps[1]) in capsys.readouterr().out

    one, two, three = (tensors(step) for step in steps)
    averaged = tensors(trained / "mean/step-00000006")
    assert set(averaged) == set(one)
    num_rounded = 0
    for name, value in averaged.items():
        exact = (one[name].astype(np.float64) + two[name] + three[name]) / 3
        if "moving" in name:
            assert (value != exact.astype(np.float32)).any()
        elif value.dtype == np.float32:
            np.testing.assert_array_equal(value, exact.astype(np.float32))
            num_rounded += (value != (one[name] + two[name] + three[name]) / 3).sum()
    assert num_rounded  # a float32 sum would differ

    results = evaluate.run(parse("--mode=eval", f"--ckpt={trained / 'mean'}", "--crops=1"))
    assert results["num_examples"] == 11 and results["step"] == 6
    resumed = ["--mode=train", "--run_name=mean", f"--checkpoint_dir={trained}", "--steps=7"]
    assert train.run(parse(*resumed))["step"] == 7
    assert checkpoint.verify(trained / "mean/step-00000007")

    with pytest.raises(UsageError, match=r"--run_name=mean: .* already exists"):
        average.run(parse("--mode=average", *words, "--run_name=mean"))


def test_weights_that_are_not_finite_are_refused(trained, monkeypatch):
    mean_weights = average.mean_weights
    monkeypatch.setattr(
        average, "mean_weights", lambda *both: [mean * np.nan for mean in mean_weights(*both)]
    )
    steps = ",".join(f"{trained}/a/step-0000000{step}" for step in (2, 4))
    words = [f"--ckpt={steps}", f"--checkpoint_dir={trained}", "--bn_batches=1"]
    with pytest.raises(DataError, match=f"--ckpt={steps}: one of them is not finite: .*kernel"):
        average.run(parse("--mode=average", *words, "--run_name=bad"))
    assert not (trained / "bad").exists()


def test_batch_size_is_even_with_mixup(tiny_folder):
    """The split has 23 images, fewer than a batch."""
    words = ("--dataset=folder", f"--data_dir={tiny_folder}", "--image_size=32", "--mixup=0.2")
    config = resolve(*words, "--batch_size=24")
    batch = next(average.train_batches(source.open_split(config.data, "train"), config))
    assert batch.shape == (22, 32, 32, 3)


@pytest.mark.parametrize(
    ("words", "expected"),
    [(["--batch_size=16", "--accumulate=4"], 4), (["--batch_size=4096"], 256)],
)
def test_large_batch_is_limited_to_one_device(tiny_folder, tmp_path, words, expected):
    """Training may have split it over many devices or micro-batches."""
    shutil.copytree(tiny_folder, tmp_path / "data")
    image = tmp_path / "data" / "train" / "disc" / "00.jpg"
    for number in range(260):
        os.link(image, image.with_name(f"copy{number}.jpg"))
    data = ("--dataset=folder", f"--data_dir={tmp_path / 'data'}", "--image_size=32")
    config = resolve(*data, *words)
    batch = next(average.train_batches(source.open_split(config.data, "train"), config))
    assert batch.shape == (expected, 32, 32, 3)


@pytest.mark.parametrize("is_of_keras", [True, False])
@pytest.mark.parametrize("trainable", [True, False])
def test_batch_norm_statistics_are_the_moments_of_all_images(trainable, is_of_keras):
    """This includes layers that were frozen in training, and those of Keras in a user's net."""
    kit = Kit()
    image = kit.image()
    keras_layer = keras.layers.BatchNormalization(momentum=0.9, name="bn")
    normalized = keras_layer(image) if is_of_keras else kit.batch_norm(image, "bn")
    model = keras.Model(image, kit.logits(kit.global_average_pool(normalized, "p"), 2))
    model.get_layer("bn").trainable = trainable
    rng = np.random.default_rng(0)
    batches = [rng.normal(i, 1 + i, (4, 5, 6, 3)).astype(np.float32) for i in range(3)]
    average.recompute_batch_norm(model, [*map(tf.constant, batches), None], 3)
    layer = model.get_layer("bn")
    assert layer.trainable == trainable
    images = np.concatenate(batches).astype(np.float64)
    np.testing.assert_allclose(layer.moving_mean.numpy(), images.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(layer.moving_variance.numpy(), images.var((0, 1, 2)), rtol=1e-4)
    assert layer.momentum == 0.9


def test_batch_norm_statistics_use_the_final_image_size(trained, tmp_path, monkeypatch):
    """The run has six steps, which is about two epochs of 23 images in batches of eight."""
    sizes = []

    def recompute(model, batches, count):
        sizes.append(next(batches).shape[1])

    monkeypatch.setattr(average, "recompute_batch_norm", recompute)
    for schedule in ("", "0:36", "0:36,1:40", "0:36,2:40"):
        data = {"image_size_schedule": schedule}
        other = copy_run(trained, tmp_path / f"r{len(sizes)}", data=data)
        words = [f"--ckpt={other},{trained / 'a'}", f"--checkpoint_dir={tmp_path}"]
        average.run(parse("--mode=average", *words, f"--run_name=m{len(sizes)}"))
    assert sizes == [32, 36, 40, 36]


def copy_run(trained, folder, data=None, **net):
    """Makes a run folder with the weights of run `a` and changed settings; returns its path."""
    folder.mkdir()
    (folder / "step-00000006").symlink_to(trained / "a/step-00000006")
    record = json.loads((trained / "a/config.json").read_text())
    record["config"]["net"].update(net)
    record["config"]["data"].update(data or {})
    (folder / "config.json").write_text(json.dumps(record))
    return folder


def test_settings_that_only_affect_training_may_differ(trained, tmp_path):
    """With recomputation or dropout, equal weights still give equal predictions."""
    other = copy_run(trained, tmp_path / "other", recompute=True, dropout=0.3, stochastic_depth=0.1)
    words = [f"--ckpt={trained / 'a'},{other}", f"--checkpoint_dir={tmp_path}", "--run_name=m"]
    average.run(parse("--mode=average", *words, "--bn_batches=1"))
    averaged, one = tensors(tmp_path / "m/step-00000006"), tensors(trained / "a/step-00000006")
    weights = [n for n, v in one.items() if "moving" not in n and v.dtype == np.float32]
    assert weights
    for name in weights:
        np.testing.assert_array_equal(averaged[name], one[name])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--ckpt=A/step-00000002 --run_name=m", "name two or more"),
        ("--ckpt=A/step-00000002,A/step-00000006", "--run_name is missing"),
        ("--ckpt=A/step-00000002,A/step-00000099 --run_name=m", "no such folder"),
        ("--ckpt=A,OTHER --run_name=m", r"/other/.*: contains a resnet_18, but .* a resnetv2_50;"),
        (
            "--ckpt=A,EPSILON --run_name=m",
            r"a resnetv2_50 with batch_norm_epsilon=0\.5, but .*/a/step-\d+ a resnetv2_50 with"
            r" batch_norm_epsilon=1e-05; different",
        ),
        ("--ckpt=A,PIXELS --run_name=m", r"/pixels/.* another mean or std than those of .*/a/step"),
    ],
)
def test_invalid_commands(trained, tmp_path, words, message):
    words = words.replace("=A", f"={trained / 'a'}").replace(",A", f",{trained / 'a'}")
    words = words.replace("OTHER", str(copy_run(trained, tmp_path / "other", model="resnet_18")))
    epsilon = copy_run(trained, tmp_path / "epsilon", batch_norm_epsilon=0.5)
    words = words.replace("EPSILON", str(epsilon))
    words = words.replace(
        "PIXELS", str(copy_run(trained, tmp_path / "pixels", {"std": [50.0] * 3}))
    )
    before = sorted(trained.iterdir())
    with pytest.raises(UsageError, match=message):
        average.run(parse("--mode=average", f"--checkpoint_dir={trained}", *words.split()))
    assert sorted(trained.iterdir()) == before


@pytest.mark.parametrize(
    ("models", "names"),
    [
        (["net.py:mine@0123456789ab", "resnet_50"], ["net.py:mine", "resnet_50"]),
        (["net.py:mine@0123456789ab", "net.py:mine@ba9876543210"], None),  # the code differs
    ],
)
def test_both_nets_are_named(models, names):
    nets = [registry.NetConfig(model=model) for model in models]
    assert average._describe_nets(nets, registry.list_differences(*nets)) == (names or models)


@pytest.mark.parametrize(
    ("first", "second", "is_warned"),
    [
        ("a/step-00000002", "a", False),
        ("a", "other", True),
        ("other", "tuned", True),
        ("tuned", "tuned2", False),  # from step folders of one run
        ("tuned", "a", False),
        ("gone", "gone2", False),  # from one run that was removed
        ("mean", "a", False),  # the average of a and other
        ("imported", "imported2", False),
        ("imported", "a", True),
    ],
)
def test_independent_runs_are_told(trained, tmp_path, caplog, first, second, is_warned):
    runs = {"a": str(trained / "a")}
    for name, start in (
        *(("other", ""), ("mean", ""), ("imported", ""), ("imported2", "")),
        *(("tuned", f"{trained}/a/step-00000002"), ("tuned2", f"{trained}/a/best")),
        *(("gone", f"{tmp_path}/removed/best"), ("gone2", f"{tmp_path}/removed")),
    ):
        folder = copy_run(trained, tmp_path / name)
        record = json.loads((folder / "config.json").read_text())
        record["config"]["fine_tuning"]["init_from"] = start
        if name.startswith("imported"):
            record["weights"] = {"sha256": "0" * 64}
        (folder / "config.json").write_text(json.dumps(record))
        runs[name] = str(folder)
    members = [f"{trained}/a/step-00000006", f"{runs['other']}/step-00000006"]
    (tmp_path / "mean/average.json").write_text(json.dumps({"average_of": members}))
    ckpt = ",".join(runs.get(name, f"{trained}/{name}") for name in (first, second))
    models = trained_models.find_models(parse("--mode=average", f"--ckpt={ckpt}"))
    average._warn_of_independent_runs(models)
    told = [m for m in caplog.messages if "independent runs" in m and "--mode=eval --ckpt=" in m]
    assert len(told) == is_warned
    for model in models if is_warned else ():
        assert str(model.run_dir) in told[0]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_incomplete_run_folder_is_removed(trained, monkeypatch, error):
    """Its name can be used again."""

    def fail(*_):
        raise error

    monkeypatch.setattr(checkpoint, "save", fail)
    words = [f"--ckpt={trained / 'a/step-00000002'},{trained / 'a'}", "--bn_batches=1"]
    words += [f"--checkpoint_dir={trained}", "--run_name=full"]
    expected = UsageError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected) as caught:
        average.run(parse("--mode=average", *words))
    if expected is UsageError:
        assert "--run_name=full" in str(caught.value) and "No space left" in str(caught.value)
    assert not (trained / "full").exists()


@pytest.mark.parametrize("is_locked", [True, False])
def test_run_folder_of_another_process_is_not_removed(tmp_path, is_locked):
    """Two processes chose the same free name; the second must not remove the first one's files."""
    run_dir = tmp_path / "mean"
    with run_folder.lock(run_dir) if is_locked else contextlib.nullcontext():
        run_dir.mkdir(exist_ok=True)
        (run_dir / "config.json").write_text("{}")
        with (
            pytest.raises(UsageError, match="--run_name=mean"),
            run_folder.create_or_roll_back(run_dir),
        ):
            raise AssertionError("entered")
        assert (run_dir / "config.json").read_text() == "{}"
