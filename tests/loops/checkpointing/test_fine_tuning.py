"""Starting from another run's weights: what is taken over, what is replaced, what stays frozen."""

import json
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf

import flags
from input_pipeline.errors import UsageError
from loops import train
from loops.checkpointing import fine_tuning, run_folder
from loops.config import resolve
from loops.tools.weights import average
from tests.loops.test_train import command, run, tensors
from tests.loops.tiny_nets import two_convolutions

pytestmark = pytest.mark.usefixtures("tiny_net")
QUIET = ["--learning_rate=0", "--warmup_epochs=0"]


def model_tensors(run_dir):
    found = {n: v for n, v in tensors(run_dir).items() if n.startswith("model")}
    assert len(found) > 8
    return found


def is_head(name):
    return "logits" in name


@pytest.fixture(scope="module")
def trained(tiny_folder, tmp_path_factory):
    """A run of two steps on three classes, and its tensors."""
    root = tmp_path_factory.mktemp("runs")
    with two_convolutions():
        run(tiny_folder, root, "--run_name=source", "--steps=2")
    return root / "source", model_tensors(root / "source")


@pytest.fixture
def source(trained, tmp_path):
    """A copy of this run, and its tensors."""
    return pathlib.Path(shutil.copytree(trained[0], tmp_path / "source")), trained[1]


@pytest.fixture
def two_classes(tiny_folder, tmp_path):
    """The tiny data set without its third class."""
    for split in ("train", "val"):
        (tmp_path / "two" / split).mkdir(parents=True)
        for name in ("disc", "grid"):
            (tmp_path / "two" / split / name).symlink_to(tiny_folder / split / name)
    return tmp_path / "two"


def test_same_classes_take_all_weights_and_the_statistics_of_the_images(
    source, tiny_folder, tmp_path
):
    run_dir, before = source
    record = (run_dir / "config.json").read_text()
    assert "123.675" in record
    (run_dir / "config.json").write_text(record.replace("123.675", "99.5"))
    run(tiny_folder, tmp_path, "--run_name=r", "--steps=1", f"--init_from={run_dir}", *QUIET)
    for name, value in model_tensors(tmp_path / "r").items():
        if "moving" not in name:
            np.testing.assert_array_equal(value, before[name], name)
    assert run_folder.read_record(tmp_path / "r").config.data.mean == (99.5, 116.28, 103.53)
    assert "give --model=resnetv2_18" in refusal(
        tiny_folder, tmp_path, f"--init_from={run_dir}", "--model=resnet_18"
    )


def test_preprocessing_and_rate_come_from_the_weights_unless_typed(source, tiny_folder, caplog):
    run_dir, _ = source
    path = run_dir / "config.json"
    content = json.loads(path.read_text())
    data = content["config"]["data"]
    data |= {"image_size": 64, "crop_fraction": 0.8, "interpolation": "bicubic"}
    data |= {"torchvision_rounding": True, "std": [50.0, 60.0, 70.0]}
    path.write_text(json.dumps(content))
    words = ["main.py", "--mode=train", "--dataset=folder", f"--data_dir={tiny_folder}"]
    words += [f"--init_from={run_dir}", "--interpolation=bilinear", "--mean=1,2,3"]

    def resolve_new(*more):
        config = flags.parse([*words, *more])
        return resolve.resolve_training(config, parent=fine_tuning.read_parent(config))

    config = resolve_new()
    assert config.net.model == "resnetv2_18"
    data, optimization = config.data, config.optimization
    assert (data.image_size, data.crop_fraction, data.interpolation) == (64, 0.8, "bilinear")
    assert data.torchvision_rounding
    assert (data.mean, data.std) == ((1, 2, 3), (50, 60, 70))
    assert (optimization.recipe, optimization.optimizer) == ("finetune", "muon")
    assert (optimization.learning_rate, optimization.warmup_epochs) == (0.05, 0.5)
    recipe, weights = [r.getMessage() for r in caplog.records if " sets " in r.getMessage()]
    assert weights == (
        f"--init_from={run_dir} sets --model=resnetv2_18 --image_size=64 --std=50,60,70"
        " --crop_fraction=0.8 --warmup_epochs=0.5"
    )
    assert recipe.startswith("--recipe=finetune sets ") and "--learning_rate=0.05" in recipe
    # A typed recipe and typed flags win. A new head on frozen weights learns as fast as ever.
    for word, rate in {
        "--recipe=step90": 0.1,
        "--recipe=none": 0.03,
        "--optimizer=sgd": 0.03,
        "--learning_rate=0.3": 0.3,
        "--freeze=backbone": 0.2,
    }.items():
        assert resolve_new(word).optimization.learning_rate == rate, word


def test_other_classes_replace_the_head_which_is_trained_alone(
    source, two_classes, tmp_path, monkeypatch
):
    run_dir, before = source
    said = []
    monkeypatch.setattr(fine_tuning.logging, "info", lambda text, *a: said.append(text % a))
    words = ["--run_name=r", f"--init_from={run_dir}", "--freeze=backbone"]
    run(two_classes, tmp_path, "--steps=2", *words, "--schedule=constant", "--warmup_epochs=0")
    assert any("the head is replaced" in x and "3 classes, this run has 2" in x for x in said)
    after = model_tensors(tmp_path / "r")
    for name, value in after.items():
        if is_head(name):
            assert value.shape[-1] == 2
        else:
            np.testing.assert_array_equal(value, before[name], name)  # statistics included
    assert any(np.any(v) for n, v in after.items() if "logits" in n and "bias" in n)
    optimizer = [n for n in tensors(tmp_path / "r") if n.startswith("optimizer")]
    assert sum(is_head(n) for n in optimizer) == 2
    # Resumed without the source, which a resume has no need of.
    run_dir.rename(tmp_path / "gone")
    run(two_classes, tmp_path, "--steps=3", "--run_name=r")
    for name, value in model_tensors(tmp_path / "r").items():
        assert np.array_equal(value, after[name]) != is_head(name), name


def test_averages_start_at_the_weights_that_were_read(source, tiny_folder, tmp_path):
    """And not at the random ones before: a frozen backbone's averages never move."""
    run_dir, before = source
    words = [f"--init_from={run_dir}", "--freeze=backbone", "--ema=0.9"]
    run(tiny_folder, tmp_path, "--run_name=r", "--steps=2", *words)
    averages = {n: v for n, v in tensors(tmp_path / "r").items() if n.startswith("ema")}
    assert averages.keys() == {n.replace("model", "ema", 1) for n in before}
    for name, value in averages.items():
        if not is_head(name):
            np.testing.assert_array_equal(value, before[name.replace("ema", "model", 1)], name)


def refusal(folder, tmp_path, *words):
    with pytest.raises(UsageError) as caught:
        train.run(flags.parse(command(folder, tmp_path, "--run_name=refused", *words)))
    assert not (tmp_path / "refused").exists()
    return str(caught.value)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("--init_from=nowhere", "--init_from=nowhere: there is no such folder"),
        ("--freeze=backbone", "--freeze=backbone: without --init_from"),
    ],
)
def test_refusals(tiny_folder, tmp_path, word, said):
    assert said in refusal(tiny_folder, tmp_path, word)


def test_an_average_is_what_goes_on(tiny_folder, tmp_path):
    """Where a run keeps one, it is what --init_from takes and what --mode=average adds up."""
    words = ["--run_name=r", "--steps=3", "--save_every=1", "--ema=0.9", "--learning_rate=3"]
    run(tiny_folder, tmp_path, *words)

    def of(step_dir, part):
        reader = tf.train.load_checkpoint(str(step_dir / "ckpt"))
        names = [n for n in reader.get_variable_to_shape_map() if n.startswith(f"{part}/")]
        return {n.removeprefix(f"{part}/"): reader.get_tensor(n) for n in names}

    two, three = (of(tmp_path / f"r/step-0000000{n}", "ema") for n in (2, 3))
    assert any(np.any(of(tmp_path / "r/step-00000003", "model")[n] != v) for n, v in three.items())
    run(tiny_folder, tmp_path, "--run_name=t", "--steps=1", f"--init_from={tmp_path}/r", *QUIET)
    tuned = of(tmp_path / "t/step-00000001", "model")
    steps = ",".join(str(tmp_path / f"r/step-0000000{n}") for n in (2, 3))
    argv = ["x", "--mode=average", f"--ckpt={steps}", f"--checkpoint_dir={tmp_path}"]
    average.run(flags.parse([*argv, "--run_name=a", "--bn_batches=1"]))
    averaged = of(tmp_path / "a/step-00000003", "model")
    weights = [name for name in three if "moving" not in name]
    assert len(weights) > 5
    for name in weights:
        np.testing.assert_array_equal(tuned[name], three[name], name)
        mean = (two[name].astype(np.float64) + three[name]) / 2
        np.testing.assert_array_equal(averaged[name], mean.astype(np.float32), name)
