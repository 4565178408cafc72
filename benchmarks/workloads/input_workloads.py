"""The sides of `benchmarks.input_vs_peers`: images per second of each way to make batches."""

import pathlib
import tempfile
import time

import numpy as np

BATCH, SIZE = 64, 224
_LOWEST_STRETCH, _HIGHEST_STRETCH = 0.8, 1.25
_SHORT_SIDES = 256, 384
# Of each of our sides, the value of `--augment` and whether the batch stages are included.
_OURS = {
    "standard": ("standard", True),
    "classic": ("classic", True),
    "classic_host": ("classic", False),
}
SIDES = (*_OURS, "classic_opencv", "standard_torch", "decode")


def measure(side, folder, threads, seconds):
    """Measures one side.

    Args:
      side: one of SIDES.
      folder: with JPEG files, at any depth.
      threads: that read, decode and augment; also PyTorch's workers.
      seconds: of measuring, after a quarter of it for warming up.

    Returns:
      dict: images_per_second, or skipped, the reason.
    """
    files = sorted(str(p) for p in pathlib.Path(folder).rglob("*") if p.suffix.lower() == ".jpeg")
    if not files:
        raise SystemExit(f"{folder}: no .JPEG file in it")
    if side in _OURS:
        batches = _our_batches(files, threads, *_OURS[side])
    elif side == "standard_torch":
        try:
            batches = _torch_batches(files, threads)
        except ImportError as error:
            return {"skipped": f"{error.name} is not installed"}
    else:
        batches = {"classic_opencv": _opencv_batches, "decode": _decoded_batches}[side](
            files, threads
        )
    _count_images(batches, seconds / 4)
    done, elapsed = _count_images(batches, seconds)
    return {"images_per_second": done / elapsed}


def _count_images(batches, seconds):
    """Takes batches for some seconds; returns how many images, and the seconds it took."""
    started, done = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        done += next(batches)
    return done, time.perf_counter() - started


def _our_batches(files, threads, augment, with_batch_stages):
    """What `main.py --mode=train` feeds the net, from raw files to normalised batches."""
    import dataclasses

    import flags
    from input_pipeline import pipeline
    from input_pipeline.augmentation import batch_augment
    from input_pipeline.sources import source
    from loops.config import resolve

    with tempfile.TemporaryDirectory() as folder:
        listed = pathlib.Path(folder, "list.txt")
        listed.write_text("".join(f"{file} 0\n" for file in files))
        argv = ["benchmark", "--dataset=lists", f"--train_list={listed}", "--data_dir=/"]
        argv += [f"--image_size={SIZE}", f"--batch_size={BATCH}", f"--augment={augment}"]
        config = resolve.resolve(flags.parse([*argv, f"--reader_threads={threads}"])).data
        split = source.open_split(config, "train")
    # Of a list nothing is known; its images here are ImageNet's.
    config = dataclasses.replace(config, min_crop_area=0.08)
    prepare = batch_augment.make_preprocess_fn(config, 0)
    for batch in pipeline.train_dataset(split, config, 0, 0, BATCH):
        images = prepare(batch)[0] if with_batch_stages else batch["image"]
        images[0, 0, 0, 0].numpy()  # ready
        yield BATCH


def _opencv_batches(files, threads):
    """The steps of `classic` by OpenCV in one Python function per image, as the predecessor's."""
    import tensorflow as tf

    from input_pipeline import datasets

    vectors = np.reshape(datasets.IMAGENET_PCA_VECTORS, (3, 3))
    values = np.array(datasets.IMAGENET_PCA_VALUES) / 255.0
    rng = np.random.default_rng(0)

    def load(path):
        return _augment_with_opencv(path.numpy().decode(), rng, values, vectors, datasets)

    def mapped(path):
        image = tf.py_function(load, [path], tf.float32)
        return tf.ensure_shape(image, [SIZE, SIZE, 3])

    dataset = tf.data.Dataset.from_tensor_slices(files).repeat()
    dataset = dataset.map(mapped, num_parallel_calls=threads).batch(BATCH, drop_remainder=True)
    for images in dataset.prefetch(2):
        images[0, 0, 0, 0].numpy()
        yield BATCH


def _augment_with_opencv(path, rng, values, vectors, datasets):
    """One image, float32 [SIZE, SIZE, 3], normalised: the three resizing steps one by one."""
    import cv2

    image = cv2.cvtColor(cv2.imread(path), cv2.COLOR_BGR2RGB)
    height, width = image.shape[:2]
    stretch = rng.uniform(_LOWEST_STRETCH, _HIGHEST_STRETCH)
    stretched = (int(width * stretch), height) if height < width else (width, int(height * stretch))
    image = cv2.resize(image, stretched)
    height, width = image.shape[:2]
    scale = rng.integers(_SHORT_SIDES[0], _SHORT_SIDES[1] + 1) / min(height, width)
    image = cv2.resize(image, (round(width * scale), round(height * scale)))
    height, width = image.shape[:2]
    top, left = rng.integers(0, height - SIZE + 1), rng.integers(0, width - SIZE + 1)
    image = image[top : top + SIZE, left : left + SIZE]
    if rng.uniform() < 0.5:
        image = image[:, ::-1]
    hsv = cv2.cvtColor(np.ascontiguousarray(image, np.float32), cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0] + rng.uniform(-36, 36)) % 360.0
    hsv[..., 1] = np.minimum(hsv[..., 1] * rng.uniform(0.6, 1.4), 1.0)
    hsv[..., 2] = np.minimum(hsv[..., 2] * rng.uniform(0.6, 1.4), 255.0)
    image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    image += (vectors @ (rng.normal(0, 0.1, 3) * values)).astype(np.float32)
    mean, std = (np.float32(x) for x in (datasets.IMAGENET_MEAN, datasets.IMAGENET_STD))
    return (image - mean) / std


def _torch_batches(files, threads):
    """PyTorch's DataLoader: PIL, random resized crop, mirror, normalise, in worker processes."""
    import torch
    from PIL import Image
    from torchvision import transforms

    from input_pipeline import datasets

    steps = [transforms.RandomResizedCrop(SIZE), transforms.RandomHorizontalFlip()]
    steps += [transforms.ToTensor()]
    mean, std = ([v / 255 for v in x] for x in (datasets.IMAGENET_MEAN, datasets.IMAGENET_STD))
    transform = transforms.Compose([*steps, transforms.Normalize(mean, std)])

    class Files(torch.utils.data.Dataset):
        """The files over and over: an epoch of few images would time the start of workers."""

        def __len__(self):
            return 1_000_000

        def __getitem__(self, index):
            with Image.open(files[index % len(files)]) as image:
                return transform(image.convert("RGB"))

    loader = torch.utils.data.DataLoader(
        Files(), BATCH, shuffle=True, num_workers=threads, drop_last=True
    )
    for images in loader:
        float(images[0, 0, 0, 0])
        yield BATCH


def _decoded_batches(files, threads):
    """Nothing but `tf.io.decode_jpeg` of the whole of each file."""
    import tensorflow as tf

    def load(path):
        image = tf.io.decode_jpeg(tf.io.read_file(path), channels=3)
        return image[0, 0]  # what is decoded is handed on, so nothing is left out

    dataset = tf.data.Dataset.from_tensor_slices(files).repeat()
    dataset = dataset.map(load, num_parallel_calls=threads, deterministic=True).batch(BATCH)
    for pixels in dataset.prefetch(2):
        pixels[0, 0].numpy()
        yield BATCH
