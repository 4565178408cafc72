"""What the user can say about data; flags are made from these fields."""

import dataclasses
from typing import Annotated, Literal

from input_pipeline import datasets


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where images come from and how they become batches. None means: from the dataset."""

    dataset: Annotated[
        str,
        "Data set. shapes is built in; folder reads DATA_DIR/{train,val[,test]}/CLASS/*; lists "
        "reads --train_list, --val_list and --test_list.",
        datasets.names,
    ] = "shapes"
    data_dir: Annotated[str, "Folder of the images; shapes makes its own in data/shapes."] = ""
    train_list: Annotated[str, "File of `path label` lines, paths under --data_dir."] = ""
    val_list: Annotated[str, "As --train_list, for validation."] = ""
    test_list: Annotated[str, "As --train_list, for the test split."] = ""
    class_names: Annotated[
        str,
        "lists and import: file of `index wnid names` lines, counted from 0; without it lists "
        "counts classes by train labels.",
    ] = ""
    image_size: Annotated[int | None, "Side of the square images of the net, in pixels."] = None
    image_size_schedule: Annotated[
        str,
        "Sizes of training images as EPOCH:PIXELS, ascending, as in 0:128,12:160; evaluation "
        "keeps --image_size.",
    ] = ""
    batch_size: Annotated[int | None, "Images of one optimizer step, over all replicas."] = None
    augment: Annotated[
        str,
        "Training augmentation, names separated by commas. standard: random resized crop and "
        "mirror; none: centre crop; classic: aspect, scale, crop, mirror, hsv and lighting; "
        "randaugment or trivialaugment, on top of standard; hsv: random colour; lighting: PCA "
        "noise; erasing: random erasing.",
    ] = "standard"
    randaugment: Annotated[
        str, "Operations of randaugment on each image, and their magnitude from 0 to 10."
    ] = "2,9"
    mixup: Annotated[float, "Mixes pairs of images with shares of Beta(A, A); 0: off."] = 0.0
    cutmix: Annotated[
        float,
        "Pastes rectangles of the pair's other image, shares of Beta(A, A); 0: off. Together with "
        "--mixup each has half of the pairs.",
    ] = 0.0
    min_crop_area: Annotated[
        float | None, "Smallest share of the image's area that a random resized crop takes."
    ] = None
    crop_fraction: Annotated[
        float, "Evaluation: side of a crop over the short side of the resized image."
    ] = 0.875
    interpolation: Annotated[
        Literal["bilinear", "bicubic"], "Evaluation: how images are resized, always antialiased."
    ] = "bilinear"
    cache: Annotated[
        Literal["none", "ram"], "ram: read the encoded images once and keep them in memory."
    ] = "none"
    data_service: Annotated[
        str, "HOST:PORT of a tf.data service's dispatcher, whose workers then load the images."
    ] = ""
    reader_threads: Annotated[int, "Threads that decode and augment; 0: one per core."] = 0
    # Of the training pixels, RGB, 0..255: what images are normalised with.
    mean: tuple | None = None
    std: tuple | None = None
    # Their principal components, for lighting: eigenvalues of the covariance, and the nine numbers
    # of the matrix whose columns are the eigenvectors, row by row.
    pca_values: tuple | None = None
    pca_vectors: tuple | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """How a data set is prepared."""

    short_side: Annotated[
        int, "prepare: re-encode with this short side in pixels, never enlarging; 0: keep bytes."
    ] = 0
    quality: Annotated[int, "prepare: JPEG quality of what is re-encoded, 1 to 100."] = 90
    shard_megabytes: Annotated[int, "prepare: size of a TFRecord shard, about."] = 128
    devkit: Annotated[
        str, "prepare, ilsvrc2012: folder of the development kit, for a val folder without classes."
    ] = ""
    split_csv: Annotated[
        str,
        "prepare, mini_imagenet: folder of train.csv, val.csv and test.csv; --data_dir then "
        "holds the ILSVRC train folders.",
    ] = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServiceConfig:
    """One process of a tf.data service."""

    role: Annotated[Literal["dispatcher", "worker"], "data_service: what this process is."] = (
        "dispatcher"
    )
    workers: Annotated[
        str,
        "data_service: HOST:PORT of every worker, separated by commas; for a worker, its own.",
    ] = ""
