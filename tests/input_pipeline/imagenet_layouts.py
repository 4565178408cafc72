"""Writes the same 24 train and 8 val images in every layout in which ImageNet is distributed."""

import csv
import io
import json
import pathlib
import tarfile

import numpy as np
import tensorflow as tf
from PIL import Image
from scipy.io import savemat

from input_pipeline import datasets
from tests.input_pipeline import encoded_images
from tests.input_pipeline.files import put

WNIDS = tuple(wnid for wnid, _ in datasets.load_class_table("ilsvrc2012"))
# The published labels of the first eight validation images, copied by hand from
# imagenet_2012_validation_synset_labels.txt of tensorflow/models.
VAL_WNIDS = (
    *("n01751748", "n09193705", "n02105855", "n04263257"),
    *("n03125729", "n01735189", "n02346627", "n02776631"),
)
_TRAIN_WNIDS = ("n01440764", "n01443537", "n02100735", "n02119789")


def _jpeg(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 48, 3)).astype(np.uint8)
    return encoded_images.encoded(Image.fromarray(pixels), "JPEG")


# (WordNet id, file name, bytes), in the order of sorted class folders. The number 1002 sorts before
# 10026 only as long as an extension follows, not a WordNet id.
TRAIN = [
    (wnid, f"{wnid}_{number}.JPEG", _jpeg(100 * k + number))
    for k, wnid in enumerate(_TRAIN_WNIDS)
    for number in (1002, 10026, 18, 3, 36, 4)
]
VAL = sorted(
    (wnid, f"ILSVRC2012_val_{number:08d}.JPEG", _jpeg(5000 + number))
    for number, wnid in enumerate(VAL_WNIDS, 1)
)


def contents(split):
    """Returns (label, bytes) of each image, in order."""
    return [(WNIDS.index(wnid), data) for wnid, _, data in split]


def _shuffled(split):
    return [split[i] for i in np.random.default_rng(1).permutation(len(split))]


def tar_bytes(files):
    """Returns a tar file of (name, bytes)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def class_folders(root):
    for split, images in (("train", TRAIN), ("val", VAL)):
        for wnid in WNIDS:
            (root / split / wnid).mkdir(parents=True)
        for wnid, name, data in images:
            put(root / split / wnid / name, data)


def _devkit():
    numbers = {wnid: k for k, wnid in enumerate(reversed(WNIDS), 1)}  # another order
    mat = io.BytesIO()
    columns = [("ILSVRC2012_ID", object), ("WNID", object), ("num_children", object)]
    rows = np.array([(k, wnid, 0) for wnid, k in numbers.items()], columns)
    savemat(mat, {"synsets": rows})
    ground_truth = "".join(f"{numbers[wnid]}\n" for wnid in VAL_WNIDS)
    folder = "ILSVRC2012_devkit_t12/data"
    return [
        (f"{folder}/ILSVRC2012_validation_ground_truth.txt", ground_truth.encode()),
        (f"{folder}/meta.mat", mat.getvalue()),
    ]


def _class_tars():
    for wnid in _TRAIN_WNIDS:
        images = [(name, data) for w, name, data in _shuffled(TRAIN) if w == wnid]
        yield f"{wnid}.tar", tar_bytes(images)


def three_tars(root):
    put(root / "ILSVRC2012_img_train.tar", tar_bytes(list(_class_tars())))
    put(root / "ILSVRC2012_img_val.tar", tar_bytes([image[1:] for image in _shuffled(VAL)]))
    kit = io.BytesIO()
    with tarfile.open(fileobj=kit, mode="w:gz") as tar:
        for name, data in _devkit():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    put(root / "ILSVRC2012_devkit_t12.tar.gz", kit.getvalue())


def half_unpacked(root):
    """What unpacking the outer tar files leaves, and no development kit."""
    for name, data in _class_tars():
        put(root / "train" / name, data)
    for _, name, data in VAL:
        put(root / "val" / name, data)


def kaggle(root):
    images = root / "ILSVRC/Data/CLS-LOC"
    for wnid, name, data in TRAIN:
        put(images / "train" / wnid / name, data)
    for _, name, data in VAL:
        put(images / "val" / name, data)
    put(images / "test" / "ILSVRC2012_test_00000001.JPEG", _jpeg(9))
    put(root / "LOC_synset_mapping.txt", b"")
    with open(root / "LOC_val_solution.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["ImageId", "PredictionString"])
        rows.writerows([name[:-5], f"{w} 3 4 60 50 {w} 1 2 3 4 "] for w, name, _ in _shuffled(VAL))


def _hugging_face_name(wnid, name):
    return f"{name[:-5]}_{wnid}.JPEG"


def hugging_face_flat(root):
    for split, images in (("train", TRAIN), ("val", VAL)):
        for wnid, name, data in images:
            put(root / split / _hugging_face_name(wnid, name), data)


def write_parquet(path, rows, class_names):
    """Writes (bytes, file name, class number) rows as Hugging Face does."""
    import pyarrow
    import pyarrow.parquet

    facts = {"info": {"features": {"label": {"names": class_names, "_type": "ClassLabel"}}}}
    columns = {
        "image": [{"bytes": data, "path": name} for data, name, _ in rows],
        "label": [number for _, _, number in rows],
    }
    table = pyarrow.table(columns).replace_schema_metadata({"huggingface": json.dumps(facts)})
    path.parent.mkdir(exist_ok=True, parents=True)
    pyarrow.parquet.write_table(table, path, row_group_size=3)


def parquet(root):
    names = [f"English name {k}" for k in range(len(WNIDS))]
    for split, images, number in (("train", TRAIN, 3), ("validation", VAL, 1)):
        rows = [
            (data, _hugging_face_name(wnid, name), WNIDS.index(wnid))
            for wnid, name, data in _shuffled(images)
        ]
        for shard in range(number):
            path = root / "data" / f"{split}-{shard:05d}-of-{number:05d}.parquet"
            write_parquet(path, rows[shard::number], names)


def webdataset(root):
    for split, images, number in (("train", TRAIN, 3), ("validation", VAL, 2)):
        shuffled = _shuffled(images)
        for shard in range(number):
            files = []
            for wnid, name, data in shuffled[shard::number]:
                label = WNIDS.index(wnid)
                facts = json.dumps({"filename": name, "label": label}).encode()
                files.append((f"{name[:-5]}.cls", str(label).encode()))
                files += [(f"{name[:-5]}.jpg", data), (f"{name[:-5]}.json", facts)]
            put(root / f"imagenet1k-{split}-{shard:04d}.tar", tar_bytes(files))
    put(root / "_info.json", b"{}")


def _example(features):
    kinds = {
        bytes: lambda v: tf.train.Feature(bytes_list=tf.train.BytesList(value=[v])),
        int: lambda v: tf.train.Feature(int64_list=tf.train.Int64List(value=[v])),
        list: lambda v: tf.train.Feature(float_list=tf.train.FloatList(value=v)),
    }
    feature = {name: kinds[type(value)](value) for name, value in features.items()}
    example = tf.train.Example(features=tf.train.Features(feature=feature))
    return example.SerializeToString(deterministic=True)


def write_records(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for row in rows:
            writer.write(_example(row))


def tfds(root):
    folder = root / "5.1.0"
    for split, images, number in (("train", TRAIN, 2), ("validation", VAL, 1)):
        rows = [
            {"image": data, "label": WNIDS.index(wnid), "file_name": name.encode()}
            for wnid, name, data in _shuffled(images)
        ]
        for shard in range(number):
            name = f"imagenet2012-{split}.tfrecord-{shard:05d}-of-{number:05d}"
            write_records(folder / name, rows[shard::number])
    put(folder / "features.json", b"{}")
    put(folder / "dataset_info.json", b"{}")


def tensorflow_models(root):
    for split, images, number in (("train", TRAIN, 2), ("validation", VAL, 1)):
        rows = [
            {
                "image/encoded": data,
                "image/class/label": WNIDS.index(wnid) + 1,
                "image/class/synset": wnid.encode(),
                "image/class/text": b"a name, another name",
                "image/filename": name.encode(),
                "image/object/bbox/xmin": [0.25, 0.5],
                "image/height": 40,
            }
            for wnid, name, data in _shuffled(images)
        ]
        for shard in range(number):
            name = f"{split}-{shard:05d}-of-{number:05d}"
            write_records(root / name, rows[shard::number])


LAYOUTS = {
    layout.__name__: layout
    for layout in (
        *(class_folders, three_tars, half_unpacked, kaggle, hugging_face_flat),
        *(parquet, webdataset, tfds, tensorflow_models),
    )
}


def make(name: str, root: pathlib.Path) -> pathlib.Path:
    """Writes a layout below a folder, and returns the folder to name by --data_dir."""
    folder = root / name
    folder.mkdir(parents=True)
    LAYOUTS[name](folder)
    return folder
