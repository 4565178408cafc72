"""Tests import of weights: tensor by tensor, and rejection of files that do not match."""

import json
import os
import pathlib
import pickle
import re
import resource
import shutil
import subprocess

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from safetensors import numpy as safetensors

import flags
import main
from input_pipeline.config import DataConfig
from input_pipeline.errors import UsageError
from loops import evaluate, train
from loops.checkpointing import restore, run_folder
from loops.tools.data import prepare
from loops.tools.predict import predict
from loops.tools.weights import import_weights, sidecar, weight_file
from loops.tools.weights.located_weights import LocatedWeights
from nets import registry, torch_names
from nets.layers.kit import BatchNorm

# Names and shapes of timm's state dicts; of torchvision's for alexnet_owt.
PUBLISHED = json.loads(
    pathlib.Path(__file__).parents[3].joinpath("nets", "published_shapes.json").read_text()
)
CLASSES = 7


def _published_resnet_50d():
    """Returns timm's resnet50d: resnet50 with another stem, and a pool first in `downsample`."""
    moved = {"0": "1", "1": "2"}
    shapes = {
        re.sub(r"downsample\.(\d)", lambda m: f"downsample.{moved[m[1]]}", name): shape
        for name, shape in PUBLISHED["resnet_50"].items()
        if name != "conv1.weight"
    }
    for number, inputs, outputs in ((0, 3, 32), (3, 32, 32), (6, 32, 64)):
        shapes[f"conv1.{number}.weight"] = [outputs, inputs, 3, 3]
    for number in (1, 4):
        for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            shapes[f"conv1.{number}.{name}"] = [] if name == "num_batches_tracked" else [32]
    return shapes


PUBLISHED["resnet_50d"] = _published_resnet_50d()


def tensors(model, classes=1000, seed=0):
    """Returns a state dict with timm's names and shapes and random float32 values."""
    rng = np.random.default_rng(seed)
    state = {}
    for name, shape in PUBLISHED[model].items():
        shape = [classes if n == 1000 else n for n in shape]
        if name.endswith("num_batches_tracked"):
            state[name] = np.array(17, np.int64)
        elif name.endswith("running_var"):
            state[name] = rng.uniform(0.5, 1.5, shape).astype(np.float32)
        else:
            state[name] = (rng.standard_normal(shape) * 0.05).astype(np.float32)
    return state


def command(tmp_path, file, *words):
    return [
        "main.py",
        "--mode=import",
        f"--weights={file}",
        f"--checkpoint_dir={tmp_path}",
        "--strategy=one",
        *words,
    ]


def run(tmp_path, file, *words):
    return import_weights.run(flags.parse(command(tmp_path, file, *words)))


def get_import_error(tmp_path, file, *words):
    """Runs an import that must fail without a run folder; returns its error message."""
    with pytest.raises(UsageError) as caught:
        run(tmp_path, file, "--run_name=rejected", *words)
    assert not (tmp_path / "rejected").exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def load_run(run_dir, strategy):
    """Returns the variables of a run by path, and its record."""
    record = run_folder.read_record(run_dir)
    _, step_dir = run_folder.find_checkpoint(str(run_dir))
    model = restore.restore_model(strategy, record, step_dir, "float32")
    return {v.path: v.numpy() for v in model.variables}, record


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A file like timm's resnet18 with 7 classes, and its content."""
    path = tmp_path_factory.mktemp("published") / "resnet18.safetensors"
    content = tensors("resnet_18", CLASSES)
    safetensors.save_file(content, path)
    return path, content


@pytest.mark.parametrize("model", PUBLISHED)
def test_names_and_shapes_match_timm(model, monkeypatch):
    """Tensors and variables correspond one to one, and their shapes match."""
    monkeypatch.setattr(
        keras.initializers.VarianceScaling,
        "__call__",
        lambda _, shape, dtype=None, **__: tf.zeros(shape),
    )
    names = torch_names.map_tensor_names(model)
    shapes = PUBLISHED[model]
    counters = {n for n in shapes if n.endswith("num_batches_tracked")}
    assert len(set(names.values())) == len(names)
    assert set(names.values()) == set(shapes) - counters
    size = 224 if registry.has_fixed_input_size(model) else 0
    config = registry.NetConfig(model=model, num_classes=1000, input_size=size)
    net = registry.build_model(config)
    assert set(names) == {v.path for v in net.variables}
    for variable in net.variables:
        theirs = [n for n in shapes[names[variable.path]]]
        if variable.name == "kernel":
            ours = [n for n in reversed(variable.shape)]  # [out, in, W, H]: kernels are square
            assert [n for n in theirs if n != 1] == [n for n in ours if n != 1], variable.path
        else:
            assert theirs == list(variable.shape), variable.path


def test_every_supported_model_has_tensor_names():
    for models in torch_names.MODELS.values():
        for model in models:
            count = len(torch_names.map_tensor_names(model))
            assert count == 16 if model == "alexnet_owt" else count > 50


def test_dense_kernel_after_a_feature_map_is_reordered():
    """PyTorch flattens channels first. The products with one feature map must be equal."""
    feature_map = np.random.default_rng(0).standard_normal((2, 3, 5)).astype(np.float32)
    kernel = np.random.default_rng(1).standard_normal((4, 30)).astype(np.float32)
    theirs = kernel @ np.moveaxis(feature_map, -1, 0).ravel()
    ours = feature_map.ravel() @ import_weights._from_torch(kernel, (2, 3, 5))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_only_the_first_dense_layer_of_alexnet_reads_a_feature_map(quick_net):
    config = registry.NetConfig(model="alexnet_owt", num_classes=7, input_size=128)
    net = registry.build_model(config)
    maps = import_weights._find_flattened_feature_maps(net)
    assert maps == {"fc6/kernel": (3, 3, 256)}  # 128 px: 31, 15, 7 and 3


def test_imported_values_are_those_of_the_file(published, tmp_path, one_device):
    path, content = published
    results = run(tmp_path, path, "--model=resnet_18", "--run_name=r", f"--json={tmp_path / 'j'}")
    assert json.loads((tmp_path / "j").read_text()) == json.loads(json.dumps(results))
    ours, record = load_run(tmp_path / "r", one_device)
    assert results["tensors"] == len(ours) == len(content) - results["ignored"] == 102
    assert results["sha256"] == record.weights["sha256"]
    digest = subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True)
    assert digest.stdout.split()[0] == results["sha256"]
    equal = np.testing.assert_array_equal
    equal(ours["stem_conv/kernel"][1, 5, 2, 40], content["conv1.weight"][40, 2, 1, 5])
    kernel = content["layer3.0.conv1.weight"]
    equal(ours["stage3_block1_conv1/kernel"], np.moveaxis(kernel, (0, 1), (3, 2)))
    equal(
        ours["stage2_block1_shortcut/kernel"][0, 0].T,
        content["layer2.0.downsample.0.weight"][:, :, 0, 0],
    )
    equal(ours["logits/kernel"].T, content["fc.weight"])
    equal(ours["logits/bias"], content["fc.bias"])
    for mine, theirs in (("stem_bn", "bn1"), ("stage4_block2_conv2_bn", "layer4.1.bn2")):
        equal(ours[f"{mine}/gamma"], content[f"{theirs}.weight"])
        equal(ours[f"{mine}/beta"], content[f"{theirs}.bias"])
        equal(ours[f"{mine}/moving_mean"], content[f"{theirs}.running_mean"])
        equal(ours[f"{mine}/moving_variance"], content[f"{theirs}.running_var"])


def test_imported_run_can_be_evaluated_and_predicted_but_not_resumed(
    published, tiny_folder, tmp_path
):
    path, _ = published
    content = tensors("resnet_18", 3)
    path = tmp_path / "three.safetensors"
    safetensors.save_file(content, path)
    data = ["--dataset=folder", f"--data_dir={tiny_folder}", "--image_size=32"]
    run(tmp_path, path, "--model=resnet_18", "--run_name=r", "--source=torchvision", *data)
    record = run_folder.read_record(tmp_path / "r")
    assert record.class_names == ("disc", "grid", "stripes")
    ckpt = f"--ckpt={tmp_path / 'r'}"
    results = evaluate.run(flags.parse(["main.py", "--mode=eval", ckpt, "--crops=1"]))
    assert results["num_examples"] == 11
    assert results["step"] == 0
    image = f"--image={tiny_folder / 'val' / 'disc' / '00.jpg'}"
    predicted = predict.run(flags.parse(["main.py", "--mode=predict", ckpt, image, "--crops=1"]))
    assert len(predicted["images"]) == 1
    resumed = ["main.py", f"--checkpoint_dir={tmp_path}", "--run_name=r", *data]
    with pytest.raises(UsageError, match=r"contains imported weights.*--init_from"):
        train.run(flags.parse(resumed))
    with pytest.raises(UsageError, match="--run_name=r"):
        run(tmp_path, path, "--model=resnet_18", "--run_name=r")


def test_weights_without_a_data_set_are_evaluated_on_any_set_with_their_classes(
    published, tiny_folder, tmp_path, quick_net
):
    """This includes prepared data sets, whose manifest contains the classes."""
    path = tmp_path / "three.safetensors"
    safetensors.save_file(tensors("resnet_18", 3), path)
    table = tmp_path / "classes.txt"
    table.write_text("0 disc d\n1 grid g\n2 stripes s\n")
    words = ["--model=resnet_18", "--image_size=32", f"--class_names={table}", "--run_name=r"]
    run(tmp_path, path, "--source=torchvision", *words)
    assert run_folder.read_record(tmp_path / "r").config.data.dataset == "lists"
    prepared = tmp_path / "set"
    words = ["--dataset=folder", f"--data_dir={tiny_folder}"]
    prepare.run(flags.parse(["main.py", "--mode=prepare", *words, f"--out={prepared}"]))
    ckpt = [f"--ckpt={tmp_path / 'r'}", "--crops=1"]
    results = [
        evaluate.run(flags.parse(["main.py", "--mode=eval", *ckpt, *images]))
        for images in (words, [f"--data_dir={prepared}"])
    ]
    assert results[0]["num_examples"] == 11 and results[0]["nll"] == results[1]["nll"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--model=resnet_18",), (224, 235, "bicubic", (123.675, 116.28, 103.53))),
        (("--model=resnetv2_50",), (224, 235, "bicubic", (127.5,) * 3)),
        (
            ("--model=resnet_18", "--source=torchvision"),
            (224, 256, "bilinear", (123.675, 116.28, 103.53)),
        ),
        (
            (
                "--model=resnet_18",
                "--crop_fraction=1",
                "--image_size=288",
                "--interpolation=bilinear",
            ),
            (288, 288, "bilinear", (123.675, 116.28, 103.53)),
        ),
    ],
)
def test_preprocessing_depends_on_source_and_flags(words, expected):
    from input_pipeline.augmentation import crops

    config = flags.parse(["main.py", "--mode=import", *words])
    located = LocatedWeights("--weights=F", None, pathlib.Path("F"), None, "")
    config, names = import_weights.resolve_config(config, 1000, located)
    data = config.data
    short_side = crops.eval_short_side(
        data.image_size, data.crop_fraction, data.torchvision_rounding
    )
    assert (data.image_size, short_side, data.interpolation, data.mean) == expected
    assert data.dataset == "ilsvrc2012"
    # Class order of ImageNet: sorted WordNet ids.
    assert list(names) == sorted(names) and names[0] == "n01440764" and len(names) == 1000


def test_class_names_come_from_a_file_or_are_numbers(published, tmp_path, quick_net):
    path, _ = published
    run(tmp_path, path, "--model=resnet_18", "--run_name=numbers")
    assert run_folder.read_record(tmp_path / "numbers").class_names == tuple("0123456")
    assert "7" in get_import_error(tmp_path, path, "--model=resnet_18", "--dataset=mini_imagenet")
    table = tmp_path / "classes.txt"
    table.write_text("".join(f"{i} c{i} name {i}\n" for i in range(7)))
    run(tmp_path, path, "--model=resnet_18", "--run_name=named", f"--class_names={table}")
    assert run_folder.read_record(tmp_path / "named").class_names[6] == "c6"
    words = ["--model=resnet_18", "--dataset=mini_imagenet", f"--class_names={table}"]
    assert f"--class_names={table}: --dataset=mini" in get_import_error(tmp_path, path, *words)


def without(name):
    return lambda content: content.pop(name)


def changed(name, value):
    return lambda content: content.update({name: value})


def with_value(name, value):
    def change(content):
        content[name] = content[name].copy()
        content[name].flat[1] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("bn1.running_var"), "1 tensor (bn1.running_var)"),
        (changed("extra.weight", np.zeros(3, np.float32)), "1 tensor (extra.weight)"),
        (changed("x.num_batches_tracked", np.array(1)), "x.num_batches_tracked"),
        (changed("bn1.num_batches_tracked", np.zeros(9)), "bn1.num_batches_tracked"),
        (changed("bn1.bias", np.zeros(65, np.float32)), "bn1.bias has shape (65,)"),
        (changed("conv1.weight", np.zeros((64, 7, 7, 3), np.float32)), "conv1.weight has shape"),
        (changed("bn1.bias", np.zeros(64, np.float64)), "bn1.bias is F64"),
        (changed("bn1.bias", np.zeros(64, np.int32)), "bn1.bias is I32"),
        (
            with_value("layer1.0.bn1.weight", np.nan),
            "layer1.0.bn1.weight has non-finite values",
        ),
        (with_value("fc.weight", -np.inf), "fc.weight has non-finite values"),
        (with_value("bn1.running_var", -0.5), "bn1.running_var is a variance"),
        (without("fc.bias"), "fc.bias"),
        (changed("fc.bias", np.zeros((1, 7), np.float32)), "fc.bias"),
    ],
)
def test_files_that_do_not_match_the_net_are_rejected(
    published, tmp_path, change, message, quick_net
):
    content = dict(published[1])
    change(content)
    path = tmp_path / "changed.safetensors"
    safetensors.save_file(content, path)
    assert message in get_import_error(tmp_path, path, "--model=resnet_18")


@pytest.fixture
def quick_net(monkeypatch):
    """Initializes kernels with zeros, which is faster, for tests that do not need their values."""
    monkeypatch.setattr(
        keras.initializers.VarianceScaling,
        "__call__",
        lambda _, shape, dtype=None, **__: tf.zeros(shape),
    )


def test_error_lists_unused_and_missing_tensors(published, tmp_path, quick_net):
    path, _ = published
    message = get_import_error(tmp_path, path, "--model=resnet_34")
    assert "0 tensors of the file would be left over" in message
    assert "80 tensors (layer1.2.bn1.bias" in message
    assert "head" in get_import_error(tmp_path, path, "--model=resnetv2_18")
    assert "it has resnet_18" in get_import_error(
        tmp_path, path, "--model=resnetse_50", "--source=torchvision"
    )
    assert "no net of this form" in get_import_error(tmp_path, path, "--model=alexnet")


# A header that claims 4 GiB.
HUGE_HEADER = b'{"a":{"dtype":"F32","shape":[1073741824],"data_offsets":[0,4]}}'


class Canary:
    def __reduce__(self):
        return os.system, ("touch canary",)


@pytest.mark.parametrize("source", ["timm", "torchvision", "h5"])
def test_files_of_another_format_are_rejected(published, tmp_path, monkeypatch, source):
    monkeypatch.chdir(tmp_path)
    whole = published[0].read_bytes()
    files = {
        "pickle": pickle.dumps(Canary()),
        "zip": b"PK\x03\x04" + bytes(100),
        "text": b"version https://git-lfs\n",
        "empty": b"",
        "header": (2**62).to_bytes(8, "little") + b"{}",
        "long": (200).to_bytes(8, "little") + HUGE_HEADER,
        "huge": len(HUGE_HEADER).to_bytes(8, "little") + HUGE_HEADER + bytes(4),
    }
    if source != "h5":
        files |= {"short": whole[:-1], "cut": whole[: len(whole) // 2], "head": whole[:500]}
    for name, content in files.items():
        path = tmp_path / f"{name}.bin"
        path.write_bytes(content)
        message = get_import_error(tmp_path, path, "--model=resnet_18", f"--source={source}")
        assert message.startswith(f"--weights={path}: "), message
    assert not (tmp_path / "canary").exists()
    assert "no such file" in get_import_error(tmp_path, tmp_path / "none", "--model=resnet_18")
    assert "--weights is missing" in get_import_error(tmp_path, "", "--model=resnet_18")


def test_pickle_exits_with_code_2_and_a_one_line_error(tmp_path, capsys):
    path = tmp_path / "weights.pth"
    path.write_bytes(pickle.dumps(Canary()))
    assert main.main(command(tmp_path, path, "--run_name=r")) == 2
    stderr = capsys.readouterr().err
    assert stderr.startswith(f"error: --weights={path}: a pickle") and stderr.count("\n") == 1
    assert os.listdir(tmp_path) == ["weights.pth"]
    path = path.rename(tmp_path / "resnet50-11ad3fa6.pth")
    assert "--weights=timm/resnet50.tv2_in1k has the same" in get_import_error(tmp_path, path)


@pytest.fixture(scope="module")
def own_file(tmp_path_factory):
    """A `.weights.h5` as the export writes it, and its variables with random values."""
    keras.utils.set_random_seed(5)
    net = registry.build_model(registry.NetConfig(model="resnetse_18", num_classes=CLASSES))
    rng = np.random.default_rng(1)
    for variable in net.variables:
        variable.assign(rng.uniform(0.1, 0.2, variable.shape))
    path = tmp_path_factory.mktemp("own") / "a.weights.h5"
    net.save_weights(path)
    return path, {v.path: v.numpy() for v in net.variables}


def test_h5_round_trip_is_bit_identical(own_file, tmp_path, one_device):
    path, content = own_file
    results = run(tmp_path, path, "--source=h5", "--model=resnetse_18", "--run_name=r")
    assert results["ignored"] == 0
    ours, _ = load_run(tmp_path / "r", one_device)
    assert ours.keys() == content.keys()
    for name, value in content.items():
        np.testing.assert_array_equal(ours[name], value, name)


def test_h5_import_takes_preprocessing_from_the_sidecar(own_file, tmp_path, quick_net):
    """A flag on the command line takes precedence."""
    path = tmp_path / "a.weights.h5"
    shutil.copy(own_file[0], path)
    names = [f"class {n}" for n in range(CLASSES)]
    data = DataConfig(
        image_size=96,
        mean=(1.0, 2.0, 3.0),
        std=(4.0, 5.0, 6.0),
        crop_fraction=0.9,
        torchvision_rounding=True,
    )
    tensors = sidecar.hash_tensors(own_file[1])
    stored = {"tensors": tensors, "trained_for": sidecar.describe_preprocessing(data, names)}
    (tmp_path / "a.weights.h5.sha256.json").write_text(json.dumps(stored))
    words = ["--source=h5", "--model=resnetse_18"]
    results = run(tmp_path, path, *words, "--run_name=r", "--crop_fraction=0.8")
    values = results["preprocessing"]
    assert (values["image_size"], values["mean"], values["std"]) == (96, (1, 2, 3), (4, 5, 6))
    assert values["crop_fraction"] == 0.8 and results["hashes"] == "verified"
    assert values["torchvision_rounding"]
    assert run_folder.read_record(tmp_path / "r").class_names == tuple(names)


@pytest.mark.parametrize(
    "change",
    [
        {"class_names": ["too", "few"]},
        {"class_names": [1] * CLASSES},
        {"mean": [1.0]},
        {"std": [0, 1, 1]},
        {"image_size": "wide"},
        {"image_size": None},
        {"image_size": float("inf")},
        {"mean": [float("nan"), 1, 1]},
        {"std": [float("nan"), 1, 1]},
        {"std": [1, 1, float("inf")]},
        {"crop_fraction": float("nan")},
    ],
)
def test_invalid_sidecar_is_ignored_with_a_warning(tmp_path, caplog, change):
    names = [f"class {n}" for n in range(CLASSES)]
    data = DataConfig(image_size=96, mean=(1.0, 2.0, 3.0), std=(4.0, 5.0, 6.0))
    stored = {**sidecar.describe_preprocessing(data, names), **change}
    (tmp_path / "a.h5.sha256.json").write_text(json.dumps({"trained_for": stored}))
    assert sidecar.read_preprocessing(tmp_path / "a.h5", CLASSES) == ({}, ())
    assert "no valid .sha256.json file with its preprocessing" in caplog.text


def replace_dataset(file, **create):
    del file["layers/batch_norm/vars/0"]
    file.create_dataset("layers/batch_norm/vars/0", **create)


def replace_by_link(make):
    def change(file):
        del file["layers/batch_norm/vars/0"]
        file["layers/batch_norm/vars/0"] = make(file)

    return change


def replace_by_virtual(file):
    layout = h5py.VirtualLayout((64,), "f4")
    layout[:] = h5py.VirtualSource(file.filename, "layers/batch_norm/vars/1", (64,))
    del file["layers/batch_norm/vars/0"]
    file.create_virtual_dataset("layers/batch_norm/vars/0", layout)


def add_cycle(file):
    file["layers/batch_norm/loop"] = file["/"]


HUGE = {"shape": (32768, 65536), "dtype": "f4"}
HOSTILE = {
    "nan": lambda f: replace_dataset(f, data=np.full(64, np.nan, "f4")),
    "shape": lambda f: replace_dataset(f, data=np.zeros((5, 5), "f4")),
    "float64": lambda f: replace_dataset(f, data=np.zeros(64)),
    "string": lambda f: replace_dataset(f, data=np.full(64, b"x")),
    "objects": lambda f: replace_dataset(f, shape=(64,), dtype=h5py.string_dtype()),
    "packed": lambda f: replace_dataset(
        f, data=np.zeros(64, "f4"), chunks=(64,), compression="gzip"
    ),
    "bomb": lambda f: replace_dataset(f, **HUGE, chunks=(1024, 1024), compression="gzip"),
    "unwritten": lambda f: replace_dataset(f, **HUGE),
    "external": lambda f: replace_dataset(
        f, shape=(64,), dtype="f4", external=[("secret", 0, 256)]
    ),
    "external link": replace_by_link(lambda f: h5py.ExternalLink("b.h5", "/x")),
    "soft link": replace_by_link(lambda f: h5py.SoftLink("/layers/batch_norm/vars/1")),
    "virtual": replace_by_virtual,
    "cycle": add_cycle,
    "missing": lambda f: f.__delitem__("layers/batch_norm/vars/0"),
    "too many": lambda f: f["layers/batch_norm/vars"].create_dataset("4", data=np.zeros(3, "f4")),
    "nameless": lambda f: f["layers/batch_norm/vars"].attrs.__delitem__("name"),
    "same name": lambda f: f["layers/batch_norm/vars"].attrs.__setitem__(
        "name", "stage1_block1_conv1_bn"
    ),
}


@pytest.mark.parametrize("fault", HOSTILE)
def test_hostile_h5_files_are_rejected(own_file, tmp_path, monkeypatch, fault, quick_net):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("secret").write_bytes(bytes(256))
    path = tmp_path / "a.weights.h5"
    path.write_bytes(own_file[0].read_bytes())
    with h5py.File(path, "a") as file:
        HOSTILE[fault](file)
    message = get_import_error(tmp_path, path, "--source=h5", "--model=resnetse_18")
    assert message.startswith(f"--weights={path}: ")


@pytest.mark.parametrize("fault", ["bomb", "unwritten"])
def test_claimed_sizes_are_not_allocated(own_file, tmp_path, fault):
    path = tmp_path / "a.weights.h5"
    path.write_bytes(own_file[0].read_bytes())
    with h5py.File(path, "a") as file:
        HOSTILE[fault](file)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with (
        pytest.raises(UsageError, match=r"compressed|contains fewer"),
        weight_file.open_file(str(path), "h5"),
    ):
        pass
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB


def test_truncated_h5_and_h5_of_another_net_are_rejected(own_file, tmp_path, quick_net):
    path = tmp_path / "cut.weights.h5"
    path.write_bytes(own_file[0].read_bytes()[:-500])
    assert "not a valid h5 file" in get_import_error(
        tmp_path, path, "--source=h5", "--model=resnetse_18"
    )
    message = get_import_error(tmp_path, own_file[0], "--source=h5", "--model=resnet_18")
    assert "32 tensors" in message and "would be left over" in message


def test_batch_norm_epsilon_and_momentum_match_pytorch():
    """BatchNorm2d of PyTorch has eps 1e-5 and momentum 0.1, which is 0.9 in Keras."""
    config = registry.NetConfig(model="resnet_18", num_classes=3, batch_norm_epsilon=1e-3)
    net = registry.build_model(config)
    norms = [x for x in net.layers if isinstance(x, BatchNorm)]
    assert {(x.momentum, x.epsilon) for x in norms} == {(0.9, 1e-3)}
    assert registry.NetConfig().batch_norm_epsilon == 1e-5
    assert registry.NetConfig().batch_norm_momentum == 0.9


def convolve(x, weight, bias, stride, padding):
    """Convolves [C, H, W] with PyTorch's weights [out, C, k, k]."""
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
    size = weight.shape[-1]
    windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), (1, 2))
    windows = windows[:, ::stride, ::stride]  # [C, h, w, k, k]
    return np.einsum("chwij,ocij->ohw", windows, weight, optimize=True) + bias[:, None, None]


def pool(x):
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (1, 2))
    return windows[:, ::2, ::2].max((3, 4))


@pytest.mark.faults
def test_alexnet_of_one_tower_equals_a_forward_pass_in_numpy(tmp_path, one_device):
    """The layers are those of torchvision's source, in its layout. The file has 240 MB."""
    rng = np.random.default_rng(0)
    content = {}
    for name, shape in PUBLISHED["alexnet_owt"].items():
        scale = np.float32(np.sqrt(2 / np.prod(shape[1:])) if len(shape) > 1 else 0.1)
        content[name] = scale * rng.standard_normal(shape, np.float32)
    path = tmp_path / "alexnet.safetensors"
    safetensors.save_file(content, path)
    run(tmp_path, path, "--model=alexnet_owt", "--source=torchvision", "--run_name=r")
    _, step_dir = run_folder.find_checkpoint(str(tmp_path / "r"))
    record = run_folder.read_record(tmp_path / "r")
    model = restore.restore_model(one_device, record, step_dir, "float32")
    image = rng.standard_normal((224, 224, 3), np.float32)

    def layer(name):
        return content[f"{name}.weight"], content[f"{name}.bias"]

    x = np.moveaxis(image, -1, 0)
    x = pool(np.maximum(convolve(x, *layer("features.0"), 4, 2), 0))
    x = pool(np.maximum(convolve(x, *layer("features.3"), 1, 2), 0))
    for name in ("features.6", "features.8", "features.10"):
        x = np.maximum(convolve(x, *layer(name), 1, 1), 0)
    x = pool(x).ravel()
    for name in ("classifier.1", "classifier.4"):
        weight, bias = layer(name)
        x = np.maximum(weight @ x + bias, 0)
    weight, bias = layer("classifier.6")
    expected = weight @ x + bias
    logits = model(image[None], training=False).numpy()[0]
    np.testing.assert_allclose(logits, expected, atol=1e-4 * np.abs(expected).max())
