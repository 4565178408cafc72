"""The flags of data: data sets, augmentation, preparation, the data service.

Each flag is one field: `Annotated[type, help, facts]`. See `loops/config/flag_fields.py` for the
facts. Fields without help are not flags; other flags or the data set determine them.
"""

import dataclasses
from typing import Annotated, Literal

from input_pipeline import augment_spec, datasets

# Modes that read a named data set.
_DATASET_MODES = (
    *("train", "eval", "import", "export", "average", "repro"),
    *("prepare", "verify", "stats", "preview"),
)
_TRAINED_MODES = ("train", "repro")
_MODEL_MODES = ("train", "eval", "predict", "import", "export", "average", "repro")

Exif = Literal["ignore", "apply"]  # what is done with the EXIF orientation of a JPEG file

# The fields of DataConfig that say how an image becomes the input of a model.
PREPROCESSING_FIELDS = (
    *("image_size", "mean", "std", "crop_fraction", "interpolation"),
    "torchvision_rounding",
)
# The flags that say how it is resized and cropped.
RESIZING_FIELDS = ("image_size", "crop_fraction", "interpolation")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where images come from, and how they become batches. None: use the data set's default."""

    dataset: Annotated[
        str,
        "Data set. shapes is built in. folder reads DATA_DIR/{train,val[,test]}/CLASS/*. lists "
        "reads --train_list, --val_list and --test_list. If missing, it is recognized by the files "
        "in --data_dir.",
        {
            "common_in": ("train", "prepare", "verify", "stats", "preview"),
            "other_values": {
                "imagenet": "ilsvrc2012",
                "imagenet1k": "ilsvrc2012",
                "imagenet2012": "ilsvrc2012",
                "ilsvrc": "ilsvrc2012",
                "imagefolder": "folder",
            },
            "choices": datasets.names,
            "modes": _DATASET_MODES,
            "in_recipe": False,
        },
    ] = "shapes"
    data_dir: Annotated[
        str,
        "Folder of the images. shapes creates its own in data/shapes.",
        {
            "common_in": ("train", "eval", "prepare", "verify", "stats", "preview"),
            "other_names": "data data_path root data_root datadir imagenet_dir",
            "is_path": True,
            "modes": _DATASET_MODES,
            "on_resume": True,
        },
    ] = ""
    train_list: Annotated[
        str,
        "File of `path label` lines, with paths relative to --data_dir.",
        {"is_path": True, "modes": _DATASET_MODES, "on_resume": True, "is_lists_only": True},
    ] = ""
    val_list: Annotated[
        str,
        "Like --train_list, for the val split.",
        {"is_path": True, "modes": _DATASET_MODES, "on_resume": True, "is_lists_only": True},
    ] = ""
    test_list: Annotated[
        str,
        "Like --train_list, for the test split.",
        {"is_path": True, "modes": _DATASET_MODES, "on_resume": True, "is_lists_only": True},
    ] = ""
    class_names: Annotated[
        str,
        "Class names for --dataset=lists and --mode=import: file of `index wnid names` lines, with "
        "indices from 0. If missing, lists takes the number of classes from the training labels.",
        {"is_path": True, "modes": _DATASET_MODES, "on_resume": True, "is_lists_only": True},
    ] = ""
    classes: Annotated[
        str,
        "File of class names, one per line: only these classes are read. A line is the name of a "
        "class folder, such as a WordNet id, or the English name of an ImageNet class.",
        {"is_path": True, "modes": _DATASET_MODES},
    ] = ""
    image_size: Annotated[
        int | None,
        "Input resolution in pixels.",
        {
            "common_in": ("train", "benchmark"),
            "other_names": "img_size imgsz input_size train_crop_size crop_size resolution",
            "maximum": 4096,
            "on_eval": True,
        },
    ] = None
    image_size_schedule: Annotated[
        str,
        "Training resolutions as EPOCH:PIXELS, ascending, as in 0:128,12:160. Evaluation uses "
        "--image_size.",
        {"benchmarks": (), "modes": _MODEL_MODES},
    ] = ""
    batch_size: Annotated[
        int | None,
        "Images per optimizer step, of all GPUs together. benchmark: step and train choose one "
        "if it is not given.",
        {
            "common_in": ("train", "benchmark"),
            "other_names": "b batch bs train_batch_size per_device_train_batch_size",
            "minimum": 1,
            "maximum": 2**20,
            "benchmarks": ("step", "input", "train"),
            "modes": _MODEL_MODES,
            "hints": {"benchmark": "give --eval_batch_size"},
        },
    ] = None
    augment: Annotated[
        str,
        "Training augmentation: names separated by commas, with arguments in parentheses, as in "
        "standard,randaugment(2,10),erasing(probability=0.1). " + augment_spec.format_help(),
        {
            "common_in": ("preview",),
            "other_names": "aug",
            "accepts_code": True,
        },
    ] = "standard"
    randaugment: Annotated[
        str,
        "RandAugment: operations per image, and their magnitude, as in randaugment(2,9).",
        {"other_names": "rand_augment ra_magnitude"},
    ] = "2,9"
    mixup: Annotated[
        float,
        "Mixup alpha (0: off), as in mixup(0.2).",
        {"other_names": "mixup_alpha", "minimum": 0},
    ] = 0.0
    cutmix: Annotated[
        float,
        "CutMix alpha (0: off), as in cutmix(1). With mixup, each applies to half of the image "
        "pairs.",
        {"other_names": "cutmix_alpha", "minimum": 0},
    ] = 0.0
    mixup_off_epoch: Annotated[
        int,
        "Mixup and CutMix end after this many epochs (0: never).",
        {"minimum": 0, "maximum": 10**9, "modes": _TRAINED_MODES, "benchmarks": ()},
    ] = 0
    repeated_augmentation: Annotated[
        int,
        "Repeated augmentation: use each image this many times in a row, augmented differently. An "
        "epoch then has that many times fewer different images.",
        {
            "other_names": "aug_repeats ra_sampler ra_reps",
            "minimum": 1,
            "maximum": 64,
            "modes": _TRAINED_MODES,
            "benchmarks": ("train",),
        },
    ] = 1
    min_crop_area: Annotated[
        float | None,
        "Minimum area of a random resized crop, as a fraction of the image, as in crop(0.35).",
        {"other_names": "scale", "minimum": 0, "maximum": 1},
    ] = None
    crop_fraction: Annotated[
        float,
        "Evaluation: crop size divided by the short side of the resized image.",
        {"other_names": "crop_pct", "minimum": 0.1, "maximum": 1, "on_eval": True},
    ] = 0.875
    interpolation: Annotated[
        Literal["bilinear", "bicubic"],
        "Evaluation: interpolation of the resize, always antialiased.",
        {"on_eval": True},
    ] = "bilinear"
    exif: Annotated[
        Exif,
        "apply: turn photographs of phones upright by their EXIF orientation. The known data sets "
        "are published with ignore.",
        {
            "modes": ("train", "eval", "predict", "export", "average", "repro", "prepare"),
            "on_eval": True,
        },
    ] = "ignore"
    cache: Annotated[
        Literal["none", "ram", "pixels"],
        "Read the images once and keep them in memory. ram: encoded. pixels: decoded, for small "
        "data sets.",
        {
            "other_names": "cache_dataset cache_mode cache_images",
            "modes": ("train", "eval", "export", "average", "repro", "stats"),
            "on_resume": True,
        },
    ] = "none"
    data_service: Annotated[
        str,
        "HOST:PORT of the dispatcher of a tf.data service whose workers load the images.",
        {"common_in": ("data_service",), "modes": ("train", "data_service"), "on_resume": True},
    ] = ""
    reader_threads: Annotated[
        int,
        "Threads that decode and augment (0: one per core).",
        {
            "other_names": "j num_workers loader_workers nw",
            "minimum": 0,
            "maximum": 1024,
            "modes": (
                *("train", "eval", "predict", "export", "average", "repro"),
                *("prepare", "verify", "stats"),
            ),
            "on_resume": True,
        },
    ] = 0
    # Whether the evaluation of imported weights rounds like the programs that trained them.
    torchvision_rounding: bool = False
    mean: Annotated[
        tuple[float, ...] | None,
        "Mean of the training pixels as R,G,B from 0 to 255. It normalizes the images.",
        {"modes": ("train", "import"), "benchmarks": (), "in_recipe": False},
    ] = None
    std: Annotated[
        tuple[float, ...] | None,
        "Standard deviation of the training pixels as R,G,B, for pixels from 0 to 255.",
        {"modes": ("train", "import"), "benchmarks": (), "in_recipe": False},
    ] = None
    # Principal components of the training pixels, for lighting: the eigenvalues of the covariance,
    # and the matrix whose columns are the eigenvectors as nine numbers, row by row.
    pca_values: tuple[float, ...] | None = None
    pca_vectors: tuple[float, ...] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """How a data set is prepared."""

    short_side: Annotated[
        int,
        "prepare: re-encode images to this short side in pixels, never enlarging (0: copy bytes).",
        {"common_in": ("prepare",), "minimum": 0, "modes": ("prepare",)},
    ] = 0
    quality: Annotated[
        int,
        "prepare: JPEG quality of re-encoded images, 1 to 100.",
        {"minimum": 1, "maximum": 100, "modes": ("prepare",)},
    ] = 90
    shard_megabytes: Annotated[
        int,
        "prepare: approximate size of a TFRecord shard.",
        {"minimum": 1, "modes": ("prepare",)},
    ] = 128
    devkit: Annotated[
        str,
        "prepare, ilsvrc2012: development kit, packed or unpacked, whose labels of a flat val "
        "folder replace the published ones.",
        {"is_path": True, "modes": ("prepare", "verify")},
    ] = ""
    split_csv: Annotated[
        str,
        "prepare, mini_imagenet: folder of train.csv, val.csv and test.csv. --data_dir then "
        "holds the ILSVRC train folders.",
        {"is_path": True, "modes": ("prepare", "verify")},
    ] = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServiceConfig:
    """One process of a tf.data service."""

    role: Annotated[
        Literal["dispatcher", "worker"],
        "data_service: role of this process.",
        {"common_in": ("data_service",), "modes": ("data_service",)},
    ] = "dispatcher"
    workers: Annotated[
        str,
        "HOST:PORT of every worker, separated by commas. A worker names only itself.",
        {
            "common_in": ("data_service",),
            "modes": ("data_service",),
            "hints": dict.fromkeys(_MODEL_MODES, "--reader_threads is the number of threads"),
        },
    ] = ""
