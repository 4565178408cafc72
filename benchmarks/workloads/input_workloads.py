"""The sides of `benchmarks.input_vs_peers`: images per second of several ways to read batches."""

import pathlib
import tempfile
import time
from collections.abc import Iterator, Sequence

import numpy as np

BATCH, SIZE = 64, 224
_MIN_STRETCH, _MAX_STRETCH = 0.8, 1.25
_SHORT_SIDES = 256, 384
# Our sides: value of `--augment`, and whether the stages on batches are included.
_OURS = {
    "standard": ("standard", True),
    "classic": ("classic", True),
    "classic_host": ("classic", False),
}
SIDES = (*_OURS, "classic_opencv", "standard_torch", "decode")


def measure(
    side: str, folder: str | pathlib.Path, threads: int, seconds: float
) -> dict[str, float | str]:
    """Measures one side.

    Args:
      side: one of SIDES.
      folder: folder of JPEG files, searched recursively.
      threads: threads that read, decode and augment, or PyTorch's workers.
      seconds: duration of the measurement, after a quarter of it for warm-up.

    Returns:
      A dict: images_per_second, or skipped (the reason).
    """
    files = sorted(str(p) for p in pathlib.Path(folder).rglob("*") if p.suffix.lower() == ".jpeg")
    if not files:
        raise SystemExit(f"{folder}: contains no .JPEG file")
    if side in _OURS:
        batches = _load_ours(files, threads, *_OURS[side])
    else:
        load = {
            "classic_opencv": _load_with_opencv,
            "standard_torch": _load_with_torch,
            "decode": _load_decoded,
        }[side]
        batches = load(files, threads)
    try:
        _count_images(batches, seconds / 4)
    except ImportError as error:  # raised by the first batch, because the loaders are generators
        if side != "standard_torch":
            raise
        return {"skipped": f"{error.name} is not installed"}
    images, elapsed = _count_images(batches, seconds)
    return {"images_per_second": images / elapsed}


def _count_images(batches: Iterator[int], seconds: float) -> tuple[int, float]:
    """Reads batches for some seconds; returns the number of images and the elapsed seconds."""
    started, images = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        images += next(batches)
    return images, time.perf_counter() - started


def _load_ours(
    files: Sequence[str], threads: int, augment: str, with_batch_stages: bool
) -> Iterator[int]:
    """Loads what `main.py --mode=train` feeds the network, from files to normalized batches."""
    import dataclasses

    import flags
    from input_pipeline import pipeline
    from input_pipeline.augmentation import batch_augment
    from input_pipeline.sources import source
    from loops.config import resolve

    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "list.txt")
        path.write_text("".join(f"{file} 0\n" for file in files))
        argv = ["benchmark", "--dataset=lists", f"--train_list={path}", "--data_dir=/"]
        argv += [f"--image_size={SIZE}", f"--batch_size={BATCH}", f"--augment={augment}"]
        config = resolve.resolve(flags.parse([*argv, f"--reader_threads={threads}"])).data
        split = source.open_split(config, "train")
    # The default of ImageNet, because the images in this list are ImageNet's.
    config = dataclasses.replace(config, min_crop_area=0.08)
    preprocess = batch_augment.make_preprocess_fn(config, 0)
    for batch in pipeline.train_dataset(split, config, 0, 0, BATCH):
        images = preprocess(batch)[0] if with_batch_stages else batch["image"]
        images[0, 0, 0, 0].numpy()  # waits for the batch
        yield BATCH


def _load_with_opencv(files: Sequence[str], threads: int) -> Iterator[int]:
    """Loads `classic` with OpenCV in one Python function per image, like our previous code."""
    import tensorflow as tf

    from input_pipeline import datasets

    vectors = np.reshape(datasets.IMAGENET_PCA_VECTORS, (3, 3))
    values = np.array(datasets.IMAGENET_PCA_VALUES) / 255.0
    rng = np.random.default_rng(0)

    def load(path: tf.Tensor) -> np.ndarray:
        return augment_with_opencv(path.numpy().decode(), rng, values, vectors)

    def load_in_graph(path: tf.Tensor) -> tf.Tensor:
        image = tf.py_function(load, [path], tf.float32)
        return tf.ensure_shape(image, [SIZE, SIZE, 3])

    dataset = tf.data.Dataset.from_tensor_slices(files).repeat()
    dataset = dataset.map(load_in_graph, num_parallel_calls=threads)
    for images in dataset.batch(BATCH, drop_remainder=True).prefetch(2):
        images[0, 0, 0, 0].numpy()
        yield BATCH


def augment_with_opencv(
    path: str, rng: np.random.Generator, pca_values: np.ndarray, pca_vectors: np.ndarray
) -> np.ndarray:
    """Loads one image with the augmentation `classic`, each step separately.

    Args:
      path: image file.
      rng: source of all random numbers.
      pca_values: eigenvalues [3] of the pixel covariance.
      pca_vectors: eigenvectors [3, 3].

    Returns:
      Normalized image, float32 [SIZE, SIZE, 3].
    """
    import cv2

    from input_pipeline import datasets

    image = cv2.cvtColor(cv2.imread(path), cv2.COLOR_BGR2RGB)
    height, width = image.shape[:2]
    stretch = rng.uniform(_MIN_STRETCH, _MAX_STRETCH)
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
    image += (pca_vectors @ (rng.normal(0, 0.1, 3) * pca_values)).astype(np.float32)
    mean, std = (np.float32(x) for x in (datasets.IMAGENET_MEAN, datasets.IMAGENET_STD))
    return (image - mean) / std


def _load_with_torch(files: Sequence[str], threads: int) -> Iterator[int]:
    """Loads with PyTorch's DataLoader: PIL, random resized crop, flip, normalize, in workers."""
    import torch
    from PIL import Image
    from torchvision import transforms

    from input_pipeline import datasets

    steps = [transforms.RandomResizedCrop(SIZE), transforms.RandomHorizontalFlip()]
    steps += [transforms.ToTensor()]
    mean, std = ([v / 255 for v in x] for x in (datasets.IMAGENET_MEAN, datasets.IMAGENET_STD))
    transform = transforms.Compose([*steps, transforms.Normalize(mean, std)])

    class RepeatedFiles(torch.utils.data.Dataset):
        """The files repeated, because short epochs would time the start of the workers."""

        def __len__(self):
            return 1_000_000

        def __getitem__(self, index):
            with Image.open(files[index % len(files)]) as image:
                return transform(image.convert("RGB"))

    loader = torch.utils.data.DataLoader(
        RepeatedFiles(), BATCH, shuffle=True, num_workers=threads, drop_last=True
    )
    for images in loader:
        float(images[0, 0, 0, 0])
        yield BATCH


def _load_decoded(files: Sequence[str], threads: int) -> Iterator[int]:
    """Only decodes each file in full with `tf.io.decode_jpeg`."""
    import tensorflow as tf

    def load(path: tf.Tensor) -> tf.Tensor:
        image = tf.io.decode_jpeg(tf.io.read_file(path), channels=3)
        return image[0, 0]  # so that the decoding cannot be optimized away

    dataset = tf.data.Dataset.from_tensor_slices(files).repeat()
    dataset = dataset.map(load, num_parallel_calls=threads, deterministic=True).batch(BATCH)
    for pixels in dataset.prefetch(2):
        pixels[0, 0].numpy()
        yield BATCH
