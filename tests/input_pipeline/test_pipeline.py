"""Input pipeline: order of samples from any start, unreadable images, complete evaluation."""

import dataclasses
import io
import threading

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from input_pipeline import pipeline, sample_order
from input_pipeline.augmentation import image_augment
from input_pipeline.config import DataConfig
from input_pipeline.sources import source
from tests.input_pipeline import encoded_images

TOTAL, SEED, BATCH, SIZE = 13, 5, 4, 14  # a prime, and a batch that does not divide it
# 16 is 8/7 of the size, so evaluation crops without resizing.
HEIGHT, WIDTH = 16, 20


def _pixels(index):
    noise = np.random.default_rng(index).integers(0, 256, (HEIGHT, WIDTH, 3))
    return noise.astype(np.uint8)


def _encoded(index, kind="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(_pixels(index)).save(buffer, kind)
    return buffer.getvalue()


def _make_config(root, broken):
    """Makes a list of 13 images whose labels are their indices.

    `broken` maps some indices to other file contents, or to None for a missing file.
    """
    root.mkdir()
    for index in range(TOTAL):
        data = broken.get(index, _encoded(index))
        if data is not None:
            (root / f"{index}.png").write_bytes(data)
    names = root / "all.txt"
    names.write_text("".join(f"{index}.png {index}\n" for index in range(TOTAL)))
    return DataConfig(
        dataset="lists",
        data_dir=str(root),
        train_list=str(names),
        val_list=str(names),
        image_size=SIZE,
        min_crop_area=0.3,
        reader_threads=1,
    )


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """The config of 13 valid images."""
    return _make_config(tmp_path_factory.mktemp("pipeline") / "good", {})


@pytest.fixture(scope="module")
def expected(config):
    """The first 48 samples of the valid images, augmented: just over three and a half epochs."""
    return _samples(_train(config), 12)


@pytest.fixture
def break_images(tmp_path):
    """A function from {index: content} to a config with these contents."""
    return lambda broken: _make_config(tmp_path / "broken", broken)


def _train(config, first_sample=0, batch_size=BATCH, seed=SEED):
    split = source.open_split(config, "train")
    return pipeline.train_dataset(split, config, seed, first_sample, batch_size)


def _samples(dataset, batches):
    """Concatenates the first batches: dict of arrays [batches * B, ...]."""
    taken = list(dataset.take(batches).as_numpy_iterator())
    assert len(taken) == batches
    return {key: np.concatenate([batch[key] for batch in taken]) for key in taken[0]}


def _index(sample, offset=0):
    """Image index of a global sample, or of the image `offset` positions later in the epoch."""
    epoch, position = divmod(sample, TOTAL)
    return int(sample_order.image_index(SEED, epoch, (position + offset) % TOTAL, TOTAL))


def _augment(index, sample):
    seed = tf.constant([SEED, sample], tf.int64)
    config = DataConfig(image_size=SIZE, min_crop_area=0.3)
    return image_augment.augment(tf.constant(_encoded(index)), seed, config).numpy()


def _assert_equal(one, two):
    assert one.keys() == two.keys()
    for key in one:
        np.testing.assert_array_equal(one[key], two[key], err_msg=key)


def _part(samples, first, number):
    return {key: value[first : first + number] for key, value in samples.items()}


def test_only_images_of_the_requested_batches_are_read(config, expected):
    split, read = source.open_split(config, "train"), []

    def read_and_count(index):
        (index,) = tf.numpy_function(lambda i: (read.append(int(i)), i)[1:], [index], [tf.int64])
        return split.read(tf.ensure_shape(index, []))

    counted = dataclasses.replace(split, read=read_and_count)
    batches = pipeline.train_dataset(counted, config, SEED, 0, BATCH, batches=2)
    _assert_equal(_samples(batches, 2), _part(expected, 0, 2 * BATCH))
    assert sorted(read) == sorted(expected["label"][: 2 * BATCH].tolist())


def test_samples_are_in_the_order_of_the_permutations(config, expected):
    order_in_python = [_index(sample) for sample in range(48)]
    for epoch in range(3):
        part = order_in_python[epoch * TOTAL : (epoch + 1) * TOTAL]
        assert sorted(part) == list(range(TOTAL))
    assert expected["label"].tolist() == order_in_python
    assert expected["sample"].tolist() == list(range(48))
    assert not expected["replaced"].any()
    plain = _samples(_train(dataclasses.replace(config, augment="none")), 10)
    assert plain["label"].tolist() == order_in_python[:40]
    center_crops = np.stack([_pixels(index)[1:15, 3:17] for index in order_in_python[:40]])
    np.testing.assert_array_equal(plain["image"], center_crops)


def test_element_spec_of_training(config):
    assert _train(config).element_spec == {
        "image": tf.TensorSpec([BATCH, SIZE, SIZE, 3], tf.uint8),
        "label": tf.TensorSpec([BATCH], tf.int32),
        "sample": tf.TensorSpec([BATCH], tf.int64),
        "replaced": tf.TensorSpec([BATCH], tf.int64),
    }


def test_each_sample_is_augmented_with_its_seed(expected):
    for sample in (0, 5, 12, 13, 14, 37):
        image = _augment(_index(sample), sample)
        np.testing.assert_array_equal(expected["image"][sample], image)
    # The same image is augmented differently in the next epoch.
    for index in range(TOTAL):
        first, second, *_ = np.flatnonzero(expected["label"] == index)
        assert np.any(expected["image"][first] != expected["image"][second])


@pytest.mark.parametrize("skipped", [1, 3, 8])  # batch 3 contains the end of an epoch
def test_starting_anywhere_equals_skipping(config, expected, skipped):
    samples = _samples(_train(config, first_sample=skipped * BATCH), 4)
    _assert_equal(samples, _part(expected, skipped * BATCH, 4 * BATCH))


def test_late_start(config):
    first = 10**12
    samples = _samples(_train(config, first_sample=first), 1)
    assert samples["sample"].tolist() == list(range(first, first + BATCH))
    assert samples["label"].tolist() == [_index(first + k) for k in range(BATCH)]


@pytest.mark.parametrize(("threads", "batch_size"), [(1, 4), (8, 4), (1, 3)])
def test_samples_do_not_depend_on_threads_or_batch_size(config, expected, threads, batch_size):
    changed = dataclasses.replace(config, reader_threads=threads)
    samples = _samples(_train(changed, batch_size=batch_size), 48 // batch_size)
    _assert_equal(samples, expected)


def test_another_seed_gives_another_order(config, expected):
    other = _samples(_train(config, seed=SEED + 1), 3)
    assert np.any(other["label"] != expected["label"][:12])


def test_unreadable_image_is_replaced_by_the_next(break_images, expected):
    # At the last position of an epoch, where the next image is the first of the same epoch.
    bad = _index(TOTAL - 1)
    assert _index(TOTAL - 1, 1) == _index(0)
    samples = _samples(_train(break_images({bad: b"not an image"})), 12)
    hit = [sample for sample in range(48) if _index(sample) == bad]
    assert len(hit) >= 3
    np.testing.assert_array_equal(np.flatnonzero(samples["replaced"]), hit)
    for sample in hit:
        replacement = _index(sample, 1)
        assert samples["replaced"][sample] == 1
        assert samples["label"][sample] == replacement != bad
        # The seed is the seed of the sample and not of the replacement's position.
        np.testing.assert_array_equal(samples["image"][sample], _augment(replacement, sample))
    np.testing.assert_array_equal(samples["sample"], expected["sample"])
    others = np.setdiff1d(np.arange(48), hit)
    for key in ("image", "label"):
        np.testing.assert_array_equal(samples[key][others], expected[key][others])


def test_each_kind_of_unreadable_file_is_replaced(break_images):
    kinds = {1: b"", 3: b"\xff\xd8", 5: None, 7: _encoded(0, "JPEG")[:400], 9: b"\x89PNG\r\n\x1a\n"}
    config = break_images({_index(position): content for position, content in kinds.items()})
    samples = _samples(_train(config), 3)
    assert np.flatnonzero(samples["replaced"]).tolist() == list(kinds)
    assert samples["label"].tolist() == [_index(k, int(k in kinds)) for k in range(12)]


def test_replacements_do_not_depend_on_the_start(break_images):
    config = break_images({_index(position): b"" for position in (2, 5, 6)})
    samples = _samples(_train(config), 6)
    assert samples["replaced"][:8].tolist() == [0, 0, 1, 0, 0, 2, 1, 0]
    _assert_equal(_samples(_train(config, first_sample=BATCH), 5), _part(samples, 4, 20))


def test_replaced_counts_the_unreadable_images_in_a_row(break_images):
    row = pipeline.MAX_DECODE_ATTEMPTS - 1
    config = break_images({_index(position): b"" for position in range(1, 1 + row)})
    samples = _samples(_train(config), 3)
    expected = [0, *range(row, 0, -1), 0, 0, 0, 0]
    assert samples["replaced"].tolist() == expected
    assert samples["label"][1] == samples["label"][row] == _index(1 + row)


@pytest.mark.parametrize("broken", ["all", "one too many in a row"])
def test_too_many_unreadable_images_in_a_row_are_an_error(break_images, broken):
    last = TOTAL if broken == "all" else pipeline.MAX_DECODE_ATTEMPTS
    dataset = _train(break_images({_index(position): b"" for position in range(last)}))
    with pytest.raises(tf.errors.OpError):
        next(iter(dataset))


def _eval(config, crops, batch_size, multiple):
    split = source.open_split(config, "val")
    return pipeline.eval_dataset(split, config, crops, batch_size, multiple)


@pytest.mark.parametrize(
    ("crops", "batch_size", "multiple", "batches"),
    [(10, 4, 2, 4), (10, 4, 3, 6), (1, 4, 1, 4), (1, 4, 3, 6), (1, 5, 2, 4), (1, 13, 1, 1)],
)
def test_evaluation_includes_each_image_once(config, crops, batch_size, multiple, batches):
    dataset = _eval(config, crops, batch_size, multiple)
    assert dataset.element_spec == {
        "views": tf.TensorSpec([batch_size, crops, SIZE, SIZE, 3], tf.uint8),
        "label": tf.TensorSpec([batch_size], tf.int32),
        "mask": tf.TensorSpec([batch_size], tf.bool),
    }
    assert dataset.cardinality() == batches
    samples = _samples(dataset, batches)
    padding = batches * batch_size - TOTAL
    assert samples["mask"].tolist() == [True] * TOTAL + [False] * padding
    assert samples["label"].tolist() == list(range(TOTAL)) + [0] * padding
    assert not samples["views"][TOTAL:].any()
    # Upper left, upper right, lower left, lower right and center of 16 x 20 pixels.
    boxes = [(0, 0), (0, 6), (2, 0), (2, 6), (1, 3)]
    for index in range(TOTAL):
        five = [_pixels(index)[top : top + SIZE, left : left + SIZE] for top, left in boxes]
        ten = five + [crop[:, ::-1] for crop in five]
        expected = ten if crops == 10 else five[4:]
        np.testing.assert_array_equal(samples["views"][index], expected)


@pytest.mark.parametrize(
    ("fraction", "interpolation"), [(1.0, "bilinear"), (0.7, "bicubic"), (1.0, "bicubic")]
)
def test_evaluation_resizes_as_pil_does(config, fraction, interpolation):
    """Resizes the short side to SIZE / fraction, then takes the center crop.

    PIL antialiases when it shrinks. It gets floats, because it would clip the overshoot of bytes
    between its two passes.
    """
    config = dataclasses.replace(config, crop_fraction=fraction, interpolation=interpolation)
    views = _samples(_eval(config, 1, TOTAL, 1), 1)["views"][:, 0]
    method = {"bilinear": Image.BILINEAR, "bicubic": Image.BICUBIC}[interpolation]
    for index in range(TOTAL):
        channels = [
            Image.fromarray(c) for c in np.moveaxis(_pixels(index), 2, 0).astype(np.float32)
        ]
        short = round(SIZE / fraction)
        size = [round(side * short / min(channels[0].size)) for side in channels[0].size]
        whole = np.stack([np.asarray(c.resize(size, method)) for c in channels], axis=2)
        top, left = ((n - SIZE) // 2 for n in whole.shape[:2])
        expected = np.clip(whole[top : top + SIZE, left : left + SIZE], 0, 255)
        assert np.abs(views[index] - expected).max() < 0.51


def test_evaluation_fails_on_an_unreadable_image(break_images):
    labels = []
    with pytest.raises(tf.errors.InvalidArgumentError):
        for batch in _eval(break_images({9: b"not an image"}), 1, BATCH, 1).as_numpy_iterator():
            labels += batch["label"].tolist()
    assert labels == list(range(8))


def test_batches_are_not_sharded_by_tensorflow(config):
    off = tf.data.experimental.AutoShardPolicy.OFF
    for dataset in (_train(config), _eval(config, 1, BATCH, 2)):
        assert dataset.options().experimental_distribute.auto_shard_policy == off


def test_find_first_unreadable(break_images):
    text = b"<html>not found</html>"
    split = source.open_split(break_images({4: text, 9: text}), "train")
    index, reason = pipeline.find_first_unreadable(split, range(TOTAL))
    assert index == 4 and type(index) is int
    assert "not a JPEG, PNG, BMP, GIF or WebP file" in reason
    assert pipeline.find_first_unreadable(split, np.array([7, 9, 4]))[0] == 9
    assert pipeline.find_first_unreadable(split, range(5, 9)) is None
    assert pipeline.find_first_unreadable(split, []) is None


def _jpeg_with_too_many_pixels():
    data = _encoded(0, "JPEG")
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + b"\xff\x00\xff\x00" + data[at + 4 :]


BAD_CONTENTS = {
    "gone": None,
    "empty": b"",
    "half": _encoded(0, "JPEG")[:400],
    "text": b"404 not found",
    "bomb": _jpeg_with_too_many_pixels(),
    "short": b"\xff\xd8",
}


@pytest.mark.parametrize("content", BAD_CONTENTS.values(), ids=BAD_CONTENTS)
def test_reason_of_an_unreadable_image_is_one_line(break_images, content):
    split = source.open_split(break_images({3: content}), "train")
    index, reason = pipeline.find_first_unreadable(split, [0, 1, 3])
    assert index == 3
    assert reason and "\n" not in reason and "{{" not in reason and "[Op" not in reason
    assert "Graph execution" not in reason


def test_load_first_samples_equals_the_pipeline(break_images):
    config = break_images({2: b"no image", 3: b""})
    split = source.open_split(config, "train")
    samples = pipeline.load_first_samples(split, config, SEED, 12)
    expected = next(iter(_train(config, batch_size=12)))
    assert samples.keys() == expected.keys()
    for name, value in expected.items():
        assert samples[name].dtype == value.dtype
        np.testing.assert_array_equal(samples[name], value, err_msg=name)
    assert samples["replaced"].numpy().max() > 0


@pytest.mark.parametrize("exif", ["ignore", "apply"])
def test_cached_pixels_give_the_batches_of_the_files(tmp_path, exif):
    files = [*encoded_images.good_files().values()]
    others = {0: files[0], 1: encoded_images.good_files()["jpeg exif"], 2: b"not an image", 3: None}
    config = dataclasses.replace(_make_config(tmp_path / "mixed", others), exif=exif)
    batches = {}
    for cache in ("none", "pixels"):
        cached = dataclasses.replace(config, cache=cache)
        split = source.open_split(cached, "train")
        train = pipeline.train_dataset(split, cached, SEED, 0, BATCH, batches=4)
        complete = dataclasses.replace(split, num_examples=2)  # evaluation accepts no broken file
        val = pipeline.eval_dataset(complete, cached, 10, 2, 1)
        batches[cache] = [*train.as_numpy_iterator(), *val.as_numpy_iterator()]
        unreadable = (2, "not a JPEG, PNG, BMP, GIF or WebP file")
        assert pipeline.find_first_unreadable(split, range(TOTAL)) == unreadable
    assert sum(batch["replaced"].sum() for batch in batches["none"][:4]) >= 2
    tf.nest.map_structure(np.testing.assert_array_equal, batches["pixels"], batches["none"])


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_all_threads_load_images_whatever_the_batch_size(config, batch_size):
    """As with many replicas of few images each. The images wait until eight are being read."""
    split = source.open_split(config, "train")
    waiting, enough = threading.Semaphore(0), threading.Event()

    def wait(index):
        waiting.release()
        if not enough.is_set() and waiting._value >= 8:
            enough.set()
        enough.wait(timeout=5)
        waiting.acquire()
        return index

    def read(index):
        return split.read(tf.ensure_shape(tf.numpy_function(wait, [index], tf.int64), []))

    waiting_split = dataclasses.replace(split, read=read)
    threaded = dataclasses.replace(config, reader_threads=8)
    next(iter(pipeline.train_dataset(waiting_split, threaded, SEED, 0, batch_size)))
    assert enough.is_set()
