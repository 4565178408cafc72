"""Tests exact counts and accuracies for any split size, batch size and number of replicas.

Each image has a single color and the net is linear in it with integer weights. A plain loop over
the colors therefore computes every logit exactly.
"""

import json
import os
import pathlib
import subprocess
import sys

import cv2
import keras
import numpy as np
import pytest
import tensorflow as tf

from input_pipeline.config import DataConfig
from input_pipeline.sources.source import Source
from loops.config.config import DistributionConfig
from loops.distribution import strategies
from loops.evaluator import Evaluator
from loops.metrics import classification

CLASSES = 11
SIZES = (1, 7, 997, 10_001)
BATCHES = ((64, 10), (100, 1))  # images and crops
WEIGHTS = np.random.default_rng(0).integers(-9, 10, (3, CLASSES)).astype(np.float32)


def colors(count):
    """Returns the RGB color of each image, all different: uint8 [N, 3]."""
    values = (np.arange(count, dtype=np.int64) * 7919 + 12345) % 2**24
    return np.stack([values >> 16, values >> 8 & 255, values & 255], 1).astype(np.uint8)


def plain_loop(count):
    """Returns labels, and the number of correct images at top-1 and top-5."""
    rng = np.random.default_rng(count)
    labels, num_correct = [], {1: 0, 5: 0}
    for color in colors(count):
        pairs = [zip(color, column, strict=True) for column in WEIGHTS.T]
        logits = [sum(int(c) * int(w) for c, w in pair) for pair in pairs]
        order = sorted(range(CLASSES), key=lambda i: (-logits[i], i))
        label = order[0] if rng.random() < 0.5 else int(rng.integers(CLASSES))
        labels.append(label)
        for k in num_correct:
            num_correct[k] += label in order[:k]
    return np.array(labels, np.int32), num_correct


def make_source(count, labels):
    encoded = [
        cv2.imencode(".png", np.tile(c[::-1], (6, 9, 1)))[1].tobytes() for c in colors(count)
    ]
    files, numbers = tf.constant(encoded), tf.constant(labels)
    return Source(
        num_examples=count,
        class_names=tuple(map(str, range(CLASSES))),
        labels=labels,
        read=lambda i: (files[i], numbers[i]),
        read_file=lambda i: (files[i], numbers[i]),
        describe=str,
        fingerprint="",
    )


def make_linear_net(strategy):
    with strategy.scope():
        image = keras.Input((None, None, 3))
        mean = keras.layers.GlobalAveragePooling2D()(image)
        model = keras.Model(image, keras.layers.Dense(CLASSES, use_bias=False)(mean))
        # Logits are integers up to 7,000, divided by 1024: exact in float32, and softmax does not
        # saturate.
        model.set_weights([WEIGHTS / 1024])
    return model


def check(strategy, model, count, batch, crops):
    """Compares an evaluation with the plain loop; returns the case and its correct counts."""
    labels, num_correct = plain_loop(count)
    data = DataConfig(image_size=8, mean=(0.0,) * 3, std=(1.0,) * 3)
    evaluator = Evaluator(strategy, model, make_source(count, labels), data, crops, batch)
    probs, evaluated_labels = evaluator()
    results = classification.score(probs, evaluated_labels, (1, 5))
    np.testing.assert_array_equal(evaluated_labels, labels)
    assert results["num_examples"] == count
    assert {k: round(results[f"top{k}"] * count) for k in num_correct} == num_correct
    return [count, batch, crops, strategy.num_replicas_in_sync, *num_correct.values()]


@pytest.mark.parametrize(("count", "batch", "crops"), [(1, 64, 10), (7, 2, 1), (97, 10, 10)])
def test_two_replicas_evaluate_every_image_once(mirrored, count, batch, crops):
    check(mirrored, make_linear_net(mirrored), count, batch, crops)


@pytest.mark.faults
@pytest.mark.parametrize("replicas", [1, 2, 3])
def test_all_split_sizes_in_a_separate_process(replicas):
    """Runs 8 of the 24 cases: four split sizes, each with two batch sizes and crops."""
    root = pathlib.Path(__file__).resolve().parents[3]
    code = f"from tests.loops.evaluation import test_eval_exactness as t; t.run_cases({replicas})"
    environment = {**os.environ, "PYTHONPATH": str(root)}
    process = subprocess.run(
        [sys.executable, "-c", code],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert process.returncode == 0, process.stderr[-3000:]
    lines = [json.loads(line) for line in process.stdout.splitlines()]
    expected = [[count, *batch, replicas] for count in SIZES for batch in BATCHES]
    assert [line[:4] for line in lines] == expected


def run_cases(replicas):
    """Prints the result of each case on a number of CPU devices."""
    kind = "one" if replicas == 1 else "mirrored"
    config = DistributionConfig(strategy=kind, cpu_devices=replicas)
    strategy = strategies.make_strategy(config)
    assert strategy.num_replicas_in_sync == replicas
    model = make_linear_net(strategy)
    for count in SIZES:
        for batch, crops in BATCHES:
            print(json.dumps(check(strategy, model, count, batch, crops)), flush=True)
