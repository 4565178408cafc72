"""What TensorFlow's decoders, files and shuffles do that the input pipeline works around. When one
of these fails, something upstream has changed: read its docstring."""

import io
import subprocess
import sys

import cv2
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

PIXELS = np.random.default_rng(3).integers(0, 256, (33, 47, 3), np.uint8)


def encoded(form, pixels=PIXELS, **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form, **options)
    return file.getvalue()


def by_pil(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def test_the_default_jpeg_decoder_is_inexact():
    """And INTEGER_ACCURATE is equal to PIL's.

    Hence `dct_method` in `input_pipeline/decoding/decode.py`."""
    data = encoded("JPEG", quality=90, subsampling=0)
    accurate = tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE").numpy()
    np.testing.assert_array_equal(accurate, by_pil(data))
    default = tf.io.decode_jpeg(data, channels=3).numpy()
    assert 0 < np.abs(default.astype(int) - by_pil(data)).max() <= 8


def test_a_png_is_decoded_whole_and_not_cropped():
    """By the function of JPEG files.

    Hence `input_pipeline/decoding/image_header.py` looks at the first bytes."""
    data = encoded("PNG")
    np.testing.assert_array_equal(tf.io.decode_jpeg(data, channels=3), PIXELS)
    with pytest.raises(tf.errors.InvalidArgumentError):
        tf.io.decode_and_crop_jpeg(data, [0, 0, 8, 8], channels=3)


def test_a_webp_file_comes_back_with_four_axes():
    """While the static shape says three. Hence the branch for WebP in
    `input_pipeline/decoding/decode.py`."""
    data = encoded("WEBP", lossless=True)
    assert tf.io.decode_jpeg(data, channels=3).shape.rank == 4
    traced = tf.function(lambda d: tf.io.decode_jpeg(d, channels=3)).get_concrete_function(
        tf.TensorSpec([], tf.string)
    )
    assert traced.output_shapes.rank == 3


def test_two_columns_at_the_edge_of_a_cropped_window_are_off():
    """Colour is interpolated from within the window alone. Hence `_NEIGHBOURS` of
    `input_pipeline/decoding/decode.py`."""
    smooth = cv2.GaussianBlur(PIXELS, (0, 0), 1.0)
    data = encoded("JPEG", smooth, quality=90, subsampling=2)
    options = {"channels": 3, "dct_method": "INTEGER_ACCURATE"}
    window = tf.io.decode_and_crop_jpeg(data, [0, 16, 33, 20], **options).numpy()
    whole = tf.io.decode_jpeg(data, **options).numpy()[:, 16:36]
    assert (window != whole).any()
    np.testing.assert_array_equal(window[:, 2:-2], whole[:, 2:-2])


def test_the_size_in_a_header_is_believed():
    """A small file may say that it is huge. Hence the ceiling in
    `input_pipeline/decoding/image_header.py`."""
    data = bytearray(encoded("JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = (9000).to_bytes(2, "big") * 2
    assert tf.image.extract_jpeg_shape(bytes(data)).numpy().tolist() == [9000, 9000, 3]


def test_changed_bytes_in_mid_scan_are_no_error():
    """Only a checksum sees them. Hence `SHA256SUMS` of `input_pipeline/preparation/verify.py`."""
    data = bytearray(encoded("JPEG", quality=95))
    at = len(data) // 2
    data[at : at + 40] = bytes(40)
    changed = tf.io.decode_jpeg(bytes(data), channels=3).numpy()
    assert (changed != by_pil(encoded("JPEG", quality=95))).any()


def test_an_empty_file():
    """TensorFlow and OpenCV refuse it each in its own way. Hence
    `input_pipeline/decoding/image_header.py`."""
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"[Ii]nput is empty|[Ee]mpty"):
        tf.io.decode_jpeg(b"", channels=3)
    with pytest.raises(cv2.error):
        cv2.imdecode(np.frombuffer(b"", np.uint8), cv2.IMREAD_COLOR)


def test_exif_turns_opencv_images_and_no_others():
    """Hence `IMREAD_IGNORE_ORIENTATION` wherever OpenCV reads."""
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded("JPEG", exif=exif.tobytes())
    assert tf.io.decode_jpeg(data, channels=3).shape == (33, 47, 3)
    array = np.frombuffer(data, np.uint8)
    assert cv2.imdecode(array, cv2.IMREAD_COLOR).shape == (47, 33, 3)
    kept = cv2.imdecode(array, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    assert kept.shape == (33, 47, 3)


def test_ignored_errors_shift_every_batch_behind_them():
    """Hence errors are ignored only inside of the attempts at one sample, in
    `input_pipeline/pipeline.py`."""

    def number(n):
        with tf.control_dependencies([tf.debugging.assert_none_equal(n, tf.constant(1, tf.int64))]):
            return tf.identity(n)

    batches = tf.data.Dataset.range(6).map(number).ignore_errors().batch(2)
    assert [batch.numpy().tolist() for batch in batches] == [[0, 2], [3, 4], [5]]


def test_records_behind_a_bad_one_vanish(tmp_path):
    """With ignored errors, the rest of the shard is lost without a word. Hence the index and its
    checksums, `input_pipeline/sources/tfrecord.py`."""
    path = str(tmp_path / "r")
    with tf.io.TFRecordWriter(path) as writer:
        for number in range(5):
            writer.write(bytes([number]) * 10)
    data = bytearray((tmp_path / "r").read_bytes())
    data[len(data) // 5 + 13] ^= 1  # in the second record
    (tmp_path / "r").write_bytes(data)
    assert len(list(tf.data.TFRecordDataset(path).ignore_errors())) == 1


def test_a_shard_cut_between_records_is_just_shorter(tmp_path):
    """Hence the sizes in the manifest, `input_pipeline/sources/manifest.py`."""
    path = str(tmp_path / "r")
    with tf.io.TFRecordWriter(path) as writer:
        for number in range(5):
            writer.write(bytes([number]) * 10)
    data = (tmp_path / "r").read_bytes()
    (tmp_path / "r").write_bytes(data[: len(data) * 3 // 5])
    assert len(list(tf.data.TFRecordDataset(path))) == 3


def shuffled(key, count=50):
    numbers = tf.range(count, dtype=tf.int64)
    key = tf.constant(key, tf.int64)
    last = tf.constant(count - 1, tf.int64)
    return tf.random.experimental.index_shuffle(numbers, key, last).numpy().tolist()


def test_a_small_shuffle_looks_at_the_low_bits_of_its_key():
    """Seed 256 repeats seed 0. Hence `input_pipeline/sample_order.py` draws its keys."""
    assert shuffled([256, 1]) == shuffled([0, 1])
    assert shuffled([1, 1]) != shuffled([0, 1])
    assert sorted(shuffled([7, 9])) == list(range(50))


def test_the_iterator_of_replicas_cannot_be_saved(mirrored, tmp_path):
    """Hence the order of samples is arithmetic, `input_pipeline/sample_order.py`."""
    batches = tf.data.Dataset.range(8).batch(2)
    iterator = iter(mirrored.experimental_distribute_dataset(batches))
    with pytest.raises(ValueError, match="trackable"):
        tf.train.Checkpoint(iterator=iterator).write(str(tmp_path / "c"))


def test_an_iterator_over_devices_has_a_tuner_whatever_its_dataset_says():
    """And a private function makes what it reads from.

    Hence `loops/distribution/iterator_workarounds.py`.

    In a process of its own: there is no way back.
    """
    said = subprocess.run([sys.executable, "-c", _TUNERS], stdout=subprocess.PIPE, text=True)
    assert said.stdout.split() == ["[None]", "[False]"]


_TUNERS = """
import tensorflow as tf
from tensorflow.python.data.ops import multi_device_iterator_ops
from input_pipeline import threads
from loops.distribution import iterator_workarounds

made = []
begin = tf.data.Dataset.__iter__
tf.data.Dataset.__iter__ = lambda dataset: made.append(dataset) or begin(dataset)
for _ in range(2):
    dataset = tf.data.Dataset.range(4).with_options(threads.make_dataset_options())
    iterator = multi_device_iterator_ops.OwnedMultiDeviceIterator(dataset, ["CPU:0"])
    assert [int(iterator.get_next()[0]) for _ in range(4)] == [0, 1, 2, 3]
    print([dataset.options().autotune.enabled for dataset in made], flush=True)
    made.clear()
    iterator_workarounds.disable_device_autotuning()
"""


def test_an_animated_webp_without_alpha_ends_the_process():
    """It is decoded beyond its tensor. Hence `image_header.set_animation_alpha_flag`."""
    noise = np.random.default_rng(0).integers(0, 256, (3, 120, 160, 3), np.uint8)
    frames = [Image.fromarray(frame) for frame in noise[1:]]
    data = encoded("WEBP", noise[0], save_all=True, append_images=frames, lossless=True)
    code = "import sys, tensorflow as tf; tf.io.decode_webp(sys.stdin.buffer.read())"
    done = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True)
    assert done.returncode < 0
