"""Tests of Evaluator: every image once on any number of replicas, and scores of a plain loop."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import flags
from input_pipeline import datasets
from input_pipeline.sources import source
from loops.checkpointing import restore
from loops.config import resolve
from loops.evaluation import eval_results
from loops.evaluator import EvaluationInterrupted, Evaluator
from loops.metrics import classification
from tests.command_line import refusal


def setup(strategy, folder):
    words = ["t", "--dataset=folder", f"--data_dir={folder}", "--image_size=32"]
    config = resolve.resolve(flags.parse([*words, "--model=resnet_18"]))
    split = source.open_split(config.data, "val")
    tf.keras.utils.set_random_seed(1)
    model = restore.build_model(strategy, config.net, 3, "float32")
    head = model.get_layer("logits").kernel
    head.assign(60 * head)  # initial weights give all images almost the same logits
    return config, split, model


@pytest.mark.parametrize(("crops", "batch_size"), [(1, 4), (1, 64), (10, 3)])
def test_two_replicas_equal_one_on_split_of_prime_size(
    tiny_folder, one_device, mirrored, crops, batch_size
):
    results = []
    for strategy in (one_device, mirrored):
        config, split, model = setup(strategy, tiny_folder)
        assert split.num_examples == 11
        results.append(Evaluator(strategy, model, split, config.data, crops, batch_size)())
    (one, one_labels), (two, two_labels) = results
    assert one_labels.tolist() == split.labels.tolist() == two_labels.tolist()
    np.testing.assert_allclose(one, two, atol=1e-6)


def test_center_crop_equals_plain_loop_with_pil(tiny_folder, one_device):
    config, split, model = setup(one_device, tiny_folder)
    probs, labels = Evaluator(one_device, model, split, config.data, 1)()
    spec = datasets.get("folder")
    assert probs.std(0).min() > 0.05
    num_correct = 0
    for index in range(split.num_examples):
        image = Image.open(split.describe(index)).convert("RGB")
        scale = 37 / min(image.size)  # 32 * 8 / 7 = 36.57
        size = [max(37, round(side * scale)) for side in image.size]
        image = np.asarray(image.resize(size, Image.Resampling.BILINEAR), np.float32)
        top, left = (image.shape[0] - 32) // 2, (image.shape[1] - 32) // 2
        image = image[top : top + 32, left : left + 32]
        logits = model((image[None] - np.float32(spec.mean)) / np.float32(spec.std))
        expected = tf.nn.softmax(logits)[0].numpy()
        np.testing.assert_allclose(probs[index], expected, atol=0.02)
        num_correct += int(expected.argmax() == split.labels[index])
    assert classification.score(probs, labels, (1,))["top1"] == pytest.approx(num_correct / 11)


def test_stop_callback_interrupts_evaluation(tiny_folder, one_device):
    config, split, model = setup(one_device, tiny_folder)
    evaluator = Evaluator(one_device, model, split, config.data, 1, 2)
    with pytest.raises(EvaluationInterrupted):
        evaluator(stop=lambda: True)
    probs, _ = evaluator(max_batches=1)
    assert len(probs) == 2


def test_figures_that_say_nothing_are_named(caplog):
    probs = np.full((20, 3), 1 / 3)
    eval_results.warn_of_small_set([1, 5], 3, 20)
    assert caplog.messages == [
        "top-5 accuracy is 100 % for any model: there are 3 classes",
        "the ECE of 20 images is mostly noise: it has 15 bins",
    ]
    caplog.clear()
    eval_results.warn_of_small_set([1, 5], 10, 150)
    eval_results.warn_of_non_finite("r", probs)
    assert caplog.messages == []
    probs[3] = 0.0
    eval_results.warn_of_non_finite("r", probs)
    assert caplog.messages == ["r: the logits of 1 image are not finite; they count as wrong"]
    probs[:] = 0.0
    eval_results.warn_of_non_finite("r", probs, is_final=False)
    assert "of 20 images" in caplog.messages[1]
    message = "r: the logits of all 20 images are not finite"
    assert message in refusal(eval_results.warn_of_non_finite, "r", probs)
