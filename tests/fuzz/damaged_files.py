"""Random damages to every file that the program reads."""

from hypothesis import strategies as st

from tests.fuzz import damage
from tests.fuzz.box import Example

_RESUME = "--mode=train --checkpoint_dir=runs --run_name=a --steps=3"
_EVAL = "--mode=eval --ckpt=runs/a --crops=1"
_EXPORT = "--mode=export --ckpt=runs/a --format=weights_h5 --out=new.weights.h5"
_REPRO = "--mode=repro --ckpt=runs/a"
_IMPORT = "--mode=import --run_name=new"
_IMPORT_H5 = f"{_IMPORT} --model=resnetv2_18 --weights=a.weights.h5 --source=h5"
_DATA = "--dataset=folder --data_dir=folder"
_PREPARE = "--mode=prepare --out=new"
_PREDICT = "--mode=predict --ckpt=runs/a --crops=1 --image=folder/train"
_LOGITS = "--mode=eval --logits=logits.npz --crops=1"
_LISTS = f"{_PREPARE} --dataset=lists --data_dir=folder --train_list=train.txt --val_list=val.txt"
_FLAT = f"{_PREPARE} --dataset=ilsvrc2012 --data_dir=flat --devkit=devkit"
_CHECKPOINT = "runs/a/step-00000002"
# The files that the program reads, and commands that read them.
READERS = {
    "runs/a/config.json": (_EXPORT, _EXPORT, _EXPORT, _EVAL, _RESUME, _REPRO, _PREDICT),
    f"{_CHECKPOINT}/manifest.json": (_EXPORT, _EXPORT, _EXPORT, _EVAL, _RESUME),
    f"{_CHECKPOINT}/ckpt.index": (_EXPORT, f"{_EXPORT} --ckpt={_CHECKPOINT}"),
    f"{_CHECKPOINT}/ckpt.data*": (_EXPORT, f"{_EXPORT} --ckpt={_CHECKPOINT}"),
    "runs/a/step-00000001/manifest.json": (f"{_EXPORT} --ckpt=runs/a/best", _RESUME),
    "runs/a/loss_trace.jsonl": (_REPRO, _RESUME),
    "runs/a/metrics.jsonl": (_RESUME,),
    "runs/a/train/events*": (_RESUME,),
    "runs/a/eval-*.json": (_EVAL,),
    "logits.npz": (_LOGITS,),
    "real.json": (f"{_LOGITS} --real_labels=real.json",),
    "a.weights.h5": (_IMPORT_H5,),
    "a.weights.h5.sha256.json": (_IMPORT_H5,),
    "a.safetensors": (f"{_IMPORT} --model=resnet_18 --weights=a.safetensors",),
    "train.txt": (_LISTS,),
    "val.txt": (_LISTS,),
    "classes.txt": (f"{_LISTS} --class_names=classes.txt",),
    **{
        f"folder/train/*/*.{name}": (
            *(f"{_PREPARE} {_DATA} --short_side=8",) * 6,
            f"--mode=verify {_DATA}",
            _PREDICT,
        )
        for name in ("jpg", "png", "webp", "bmp", "gif")
    },
    "folder/val/*/*": (_EVAL,),
    "folder/statistics.json": (f"{_IMPORT_H5} {_DATA}",),
    "folder/SHA256SUMS": (f"--mode=verify {_DATA}",),
    "flat/train/*.tar": (_FLAT,),
    "devkit/ILSVRC2012_validation_ground_truth.txt": (_FLAT,),
    "devkit/devkit_classes.txt": (_FLAT,),
    "csv/train.csv": (f"{_PREPARE} --dataset=mini_imagenet --data_dir=flat --split_csv=csv",),
    "shards/manifest.json": (f"{_EVAL} --data_dir=shards", "--mode=verify --data_dir=shards"),
    "shards/*.npy": (f"{_EVAL} --data_dir=shards", "--mode=stats --data_dir=shards"),
    "shards/*.tfrecord": ("--mode=verify --data_dir=shards", "--mode=stats --data_dir=shards"),
    "prepared_lists/manifest.json": ("--mode=verify --data_dir=prepared_lists",),
    "unfinished/.unfinished/*.json": (f"{_PREPARE} {_DATA} --short_side=8 --out=unfinished",),
    "words.txt": (f"{_LOGITS} --flagfile=words.txt",),
}
# JSON texts that stand for a value; "" removes it.
_JSON = ("", "null", "true", "-1", "0", "1.5", "NaN", "-Infinity", "1e999", "9" * 30, '""', '"x"')
_JSON += ("[]", "{}", "[[]]", '{"": null}', '"\\ud800"', '"../x"', "[" * 100_000, "9" * 5000)
_TEXTS = (
    "\0",
    "\udcff",
    "\n",
    "\r",
    "\t",
    "é",
    "-1",
    "9" * 30,
    " ",
    "\0" * 64,
    "x" * 5000,
    '"',
    ",",
)


def examples() -> st.SearchStrategy[Example]:
    """Returns commands that read a file, and one or two damages to that file."""
    return st.sampled_from(sorted(READERS)).flatmap(
        lambda path: st.builds(
            lambda command, damages: Example(tuple(command.split()), tuple(damages)),
            st.sampled_from(READERS[path]),
            st.lists(_damages(path), min_size=1, max_size=2),
        )
    )


def _damages(path: str) -> st.SearchStrategy[tuple[str, str, int, str]]:
    place = st.one_of(st.integers(-40, 200), st.integers(0, 100_000))
    plain = st.sampled_from(["flip", "cut", "digits", "drop line", "double line"])
    ways = [
        st.tuples(st.just(path), st.just("replace"), st.just(0), st.sampled_from(damage.STAND_INS)),
        st.tuples(st.just(path), plain, place, st.just("")),
        st.tuples(st.just(path), plain, place, st.just("")),
        st.tuples(
            st.just(path), st.sampled_from(["write", "insert"]), place, st.sampled_from(_TEXTS)
        ),
    ]
    if ".json" in path:
        ways += [st.tuples(st.just(path), st.just("json"), place, st.sampled_from(_JSON))] * 4
    return st.one_of(ways)
