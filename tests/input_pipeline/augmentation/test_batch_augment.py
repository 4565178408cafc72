"""Batch augmentation: each stage, mixing, and independence of the division into batches."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from input_pipeline import augment_spec, datasets
from input_pipeline.augmentation import batch_augment, color, per_sample_random
from input_pipeline.augmentation.batch_augment import Targets
from input_pipeline.config import DataConfig
from input_pipeline.errors import UsageError

SIZE, FIRST, SEED = 16, 1000, 3
SPEC = datasets.get("ilsvrc2012")
CONFIG = DataConfig(
    image_size=SIZE,
    batch_size=8,
    mean=SPEC.mean,
    std=SPEC.std,
    pca_values=SPEC.pca_values,
    pca_vectors=SPEC.pca_vectors,
)
EVERYTHING = {"augment": "classic,erasing", "mixup": 0.4, "cutmix": 1.0}


def _batch(first, number):
    """Returns `number` samples of a fixed sequence of 24 images; sample numbers start at FIRST."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (24, SIZE, SIZE, 3)).astype(np.uint8)
    part = slice(first, first + number)
    return {
        "image": tf.constant(images[part]),
        "label": tf.range(24)[part],
        "sample": tf.range(FIRST, FIRST + 24, dtype=tf.int64)[part],
    }


def _make_preprocess_fn(seed=SEED, **values):
    return batch_augment.make_preprocess_fn(dataclasses.replace(CONFIG, **values), seed)


def _normalized(images):
    return (np.asarray(images, np.float64) - SPEC.mean) / SPEC.std


def test_standard_only_normalizes():
    batch = _batch(0, 5)  # without mixing, any batch size is valid
    images, targets = _make_preprocess_fn()(batch)
    assert images.dtype == tf.float32
    np.testing.assert_allclose(images, _normalized(batch["image"]), atol=1e-5)
    np.testing.assert_array_equal(targets.label, batch["label"])
    np.testing.assert_array_equal(targets.partner, batch["label"])
    np.testing.assert_array_equal(targets.share, np.ones(5))


def test_classic_is_hsv_then_lighting():
    batch = _batch(0, 4)
    images, _ = _make_preprocess_fn(augment="classic")(batch)
    hsv_draws = per_sample_random.uniform(SEED, batch["sample"], 0, 3)
    factors = color.hsv_jitter(hsv_draws, 36, 0.6, 1.4)
    expected = color.adjust_hsv(tf.cast(batch["image"], tf.float32), factors)
    draws = per_sample_random.normal(SEED, batch["sample"], 1, 3)
    shift = color.lighting_shift(draws, SPEC.pca_values, SPEC.pca_vectors, 0.1)
    expected = _normalized(expected + shift[:, None, None])
    np.testing.assert_allclose(images, expected, atol=1e-4)
    other, _ = _make_preprocess_fn(augment="classic", seed=SEED + 1)(batch)
    assert np.abs(other - images).max() > 0.1


# Arguments that differ from the defaults, for each stage.
OTHER_ARGUMENTS = {
    "hsv": "hsv(90,0.1,0.2)",
    "lighting": "lighting(1.5)",
    "grayscale": "grayscale(0.5)",
    "erasing": "erasing(1,0.3,0.4,1)",
    "mixup": "mixup(5)",
    "cutmix": "cutmix(5)",
}


def test_every_batch_stage_uses_its_arguments():
    assert OTHER_ARGUMENTS.keys() == {*augment_spec.names("batch", "pairs")}
    batch = _batch(0, 24)
    for name, call in OTHER_ARGUMENTS.items():
        usual, usual_targets = _make_preprocess_fn(augment=name)(batch)
        changed, targets = _make_preprocess_fn(augment=call)(batch)
        assert np.abs(changed - usual).max() > 0.1, name
        if name in ("mixup", "cutmix"):
            assert np.abs(targets.share - usual_targets.share).max() > 0.1, name


def test_grayscale_takes_the_stated_part_of_the_images():
    images, _ = _make_preprocess_fn(augment="grayscale(0.5)")(_batch(0, 24))
    pixels = np.asarray(images) * SPEC.std + SPEC.mean
    is_gray = np.all(np.ptp(pixels, axis=-1) < 1e-2, axis=(1, 2))
    draws = per_sample_random.uniform(SEED, _batch(0, 24)["sample"], 7, 1)[:, 0]
    np.testing.assert_array_equal(is_gray, draws.numpy() < 0.5)
    assert 4 < is_gray.sum() < 20


def test_draws_of_a_stage_do_not_depend_on_the_other_stages(monkeypatch):
    """The purposes are numbers of older runs: others would change their images."""
    purposes = {}
    uniform = per_sample_random.uniform

    def record(seed, samples, purpose, count):
        purposes.setdefault(names, []).append(purpose)
        return uniform(seed, samples, purpose, count)

    monkeypatch.setattr(per_sample_random, "uniform", record)
    batch = _batch(0, 4)
    for names in ("hsv", "lighting", "grayscale", "erasing", "mixup", "cutmix", "mixup,cutmix"):
        _make_preprocess_fn(augment=names)(batch)
    assert purposes == {
        "hsv": [0],
        "lighting": [1],
        "grayscale": [7],
        "erasing": [2],
        "mixup": [3],
        "cutmix": [4, 5],
        "mixup,cutmix": [3, 4, 5, 6],
    }
    names = "all"
    _make_preprocess_fn(augment=",".join(augment_spec.names("batch", "pairs")))(batch)
    assert sorted(purposes["all"]) == [0, 1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("values", [{"mixup": 0.4}, {"cutmix": 1.0}, EVERYTHING])
def test_result_does_not_depend_on_the_batch_size(values):
    preprocess = _make_preprocess_fn(**values)
    images, targets = preprocess(_batch(0, 24))
    first = 0
    for number in (2, 8, 14):
        part_images, part_targets = preprocess(_batch(first, number))
        part = slice(first, first + number)
        np.testing.assert_allclose(part_images, images[part], atol=1e-5)
        for value, whole in zip(part_targets, targets, strict=True):
            np.testing.assert_array_equal(value, whole[part])
        first += number


@pytest.mark.parametrize("strategy", ["one_device", "mirrored"])
def test_result_does_not_depend_on_replicas(strategy, request):
    strategy = request.getfixturevalue(strategy)
    replicas = strategy.num_replicas_in_sync
    preprocess = _make_preprocess_fn(**EVERYTHING)
    size = 8 // replicas
    batches = strategy.experimental_distribute_values_from_function(
        lambda context: _batch(context.replica_id_in_sync_group * size, size)
    )
    images, targets = tf.function(lambda b: strategy.run(preprocess, args=(b,)))(batches)

    def join(value):
        return np.concatenate(strategy.experimental_local_results(value))

    expected_images, expected_targets = preprocess(_batch(0, 8))
    np.testing.assert_allclose(join(images), expected_images, atol=1e-5)
    for value, expected in zip(targets, expected_targets, strict=True):
        np.testing.assert_array_equal(join(value), expected)


def test_mixup_weights_the_images_by_share():
    batch = _batch(0, 24)
    images, targets = _make_preprocess_fn(mixup=1.0)(batch)
    share = targets.share.numpy()
    np.testing.assert_array_equal(share[::2], share[1::2])
    assert len(set(share)) == 12 and 0 <= share.min() < share.max() <= 1
    np.testing.assert_array_equal(targets.partner, np.arange(24) ^ 1)
    pixels = _normalized(batch["image"])
    weight = share[:, None, None, None]
    expected = weight * pixels + (1 - weight) * pixels[np.arange(24) ^ 1]
    np.testing.assert_allclose(images, expected, atol=1e-5)


def _own_and_partner_masks(images, batch):
    """Masks of the pixels that come from the image and from its partner: two bool [B, S, S]."""
    pixels = _normalized(batch["image"])
    partners = pixels[np.arange(len(pixels)) ^ 1]
    return tuple(np.all(np.abs(images - p) < 1e-4, axis=-1) for p in (pixels, partners))


def test_cutmix_pastes_one_box_of_the_partner():
    batch = _batch(0, 24)
    images, targets = _make_preprocess_fn(cutmix=1.0)(batch)
    own, pasted = _own_and_partner_masks(images.numpy(), batch)
    assert np.all(own ^ pasted)
    np.testing.assert_allclose(own.mean((1, 2)), targets.share, atol=1e-6)
    np.testing.assert_array_equal(own[::2], own[1::2])  # both images of a pair have the same box
    for mask in pasted:
        rows, columns = mask.any(1), mask.any(0)
        np.testing.assert_array_equal(mask, rows[:, None] & columns[None])
    assert 0 < targets.share.numpy().min() < 0.9


def test_mixup_and_cutmix_each_take_some_pairs():
    batch = _batch(0, 24)
    images, targets = _make_preprocess_fn(mixup=1.0, cutmix=1.0)(batch)
    own, pasted = _own_and_partner_masks(images.numpy(), batch)
    is_cutmix = np.all(own ^ pasted, axis=(1, 2))
    assert 4 <= is_cutmix.sum() <= 20
    for values, chosen in (({"mixup": 1.0}, ~is_cutmix), ({"cutmix": 1.0}, is_cutmix)):
        alone, alone_targets = _make_preprocess_fn(**values)(batch)
        np.testing.assert_allclose(images.numpy()[chosen], alone.numpy()[chosen], atol=1e-5)
        shares = alone_targets.share.numpy()[chosen]
        np.testing.assert_array_equal(targets.share.numpy()[chosen], shares)


def test_erasing_sets_boxes_to_the_mean():
    batch = _batch(0, 24)
    images, _ = _make_preprocess_fn(augment="erasing")(batch)
    erased = np.all(images.numpy() == 0, axis=-1)
    assert 1 <= erased.any((1, 2)).sum() <= 14
    np.testing.assert_allclose(
        images.numpy()[~erased], _normalized(batch["image"])[~erased], atol=1e-5
    )


@pytest.mark.parametrize(("flag", "values"), [("mixup", {"mixup": 0.2}), ("cutmix", EVERYTHING)])
def test_mixing_requires_even_batches(flag, values):
    config = dataclasses.replace(CONFIG, **values)
    batch_augment.require_even_batch(config, 4)
    with pytest.raises(UsageError, match=f"--batch_size=8: (mixup|{flag}) .* 3 at a time"):
        batch_augment.require_even_batch(config, 3)
    batch_augment.require_even_batch(CONFIG, 3)


def test_denormalize_inverts_normalize_and_clips():
    images = _batch(0, 2)["image"]
    normalized = batch_augment.normalize(images, SPEC.mean, SPEC.std)
    again = batch_augment.denormalize(normalized, SPEC.mean, SPEC.std)
    np.testing.assert_array_equal(again, images)
    beyond = batch_augment.denormalize(tf.constant([-9.0, 9.0, 0.0]), SPEC.mean, SPEC.std)
    assert beyond.numpy().tolist() == [0, 255, 104]


def test_captions():
    targets = Targets([0, 1, 2, 0, 0], [0, 2, 1, 1, 0], [1.0, 0.3, 0.999, 0.001, 0.4])
    expected = ["cat", "70% owl, 30% dog", "owl", "dog", "cat"]
    assert batch_augment.format_captions(targets, ["cat", "dog", "owl"]) == expected


def test_mixing_ends_after_a_number_of_samples():
    batch = _batch(0, 24)  # samples FIRST to FIRST + 23
    config = dataclasses.replace(CONFIG, mixup=1.0, cutmix=1.0)
    mixed, mixed_targets = batch_augment.make_preprocess_fn(config, SEED)(batch)
    ends, targets = batch_augment.make_preprocess_fn(config, SEED, False, FIRST + 11)(batch)
    # Sample 11 is in the pair of sample 10, the last one that is mixed.
    np.testing.assert_allclose(ends[:12], mixed[:12], atol=1e-5)
    np.testing.assert_array_equal(targets.share[:12], mixed_targets.share[:12])
    np.testing.assert_allclose(ends[12:], _normalized(batch["image"])[12:], atol=1e-5)
    np.testing.assert_array_equal(targets.share[12:], np.ones(12))
