"""Tests import of weights: tensor by tensor, and rejection of files that do not match."""

import json
import pathlib
import subprocess

import numpy as np
import pytest
from safetensors import numpy as safetensors

import flags
from input_pipeline.errors import UsageError
from loops import evaluate, train
from loops.checkpointing import restore, run_folder
from loops.tools.data import prepare
from loops.tools.predict import predict
from loops.tools.weights import import_weights
from loops.tools.weights.located_weights import LocatedWeights
from nets import registry, torch_names
from nets.layers.kit import BatchNorm
from tests.loops.tools.weights.small_imports import (
    PUBLISHED,
    get_import_error,
    load_run,
    run,
    tensors,
)


@pytest.mark.parametrize("model", PUBLISHED)
def test_names_and_shapes_match_timm(model, quick_net):
    """Tensors and variables correspond one to one, and their shapes match."""
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
