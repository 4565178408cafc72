"""Random damages to every file that the program reads."""

from hypothesis import strategies as st

from tests.fuzz import box, damage
from tests.fuzz.box import Example

_DATA = "--dataset=folder --data_dir=folder"
_EVAL = "--mode=eval --ckpt=runs/a --crops=1"
_EVAL_LISTS = f"{_EVAL} --data_dir=prepared_lists --real_labels=real.json"
_EVAL_SHARDS = f"{_EVAL} --data_dir=shards --real_labels=real.json"
_EXPORT = "--mode=export --ckpt=runs/a --format=weights_h5 --out=new.weights.h5"
_EXPORT_STEP = _EXPORT.replace("runs/a", "runs/a/step-00000002")
_IMPORT = "--mode=import --run_name=new --model=resnetv2_18 --weights=a.weights.h5 --source=h5"
_LOGITS = "--mode=eval --logits=logits.npz --crops=1"
_PREDICT = "--mode=predict --ckpt=runs/a --crops=1 --image=folder/train"
_PREPARE = "--mode=prepare --out=new"
_LISTS = f"{_PREPARE} --dataset=lists --data_dir=folder --train_list=train.txt --val_list=val.txt"
_FLAT = f"{_PREPARE} --dataset=ilsvrc2012 --data_dir=flat --devkit=devkit"
_REPRO = "--mode=repro --ckpt=runs/a"
_RESIZE = f"{_PREPARE} {_DATA} --short_side=8"
_RESUME = "--mode=train --checkpoint_dir=runs --run_name=a --steps=3"
_VERIFY = f"--mode=verify {_DATA}"
# The files that the program reads, and commands that read them in a tenth of a second. Some of the
# commands fail afterwards, because of their last flag.
FAST = {
    "a.safetensors": ("--mode=import --run_name=new --model=resnet_18 --weights=a.safetensors",),
    "a.weights.h5": (_IMPORT,),
    "a.weights.h5.sha256.json": (_IMPORT,),
    "classes.txt": (f"{_LISTS} --class_names=classes.txt",),
    "csv/train.csv": (f"{_PREPARE} --dataset=mini_imagenet --data_dir=flat --split_csv=csv",),
    "devkit/*": (_FLAT,),
    "devkit/*classes.txt": (_FLAT,),
    "flat/train/*.tar": (_FLAT,),
    "folder/statistics.json": (f"{_IMPORT} {_DATA}",),
    "folder/train/*/*": (f"{_PREPARE} {_DATA}",),
    "logits.npz": (_LOGITS,),
    "packed/a.tar.gz": (f"{_PREPARE} --dataset=folder --data_dir=packed",),
    "prepared_lists/manifest.json": (_EVAL_LISTS,),
    "prepared_lists/val*": (_EVAL_LISTS,),
    "recipe.txt": ("--mode=train --dataset=folder --data_dir=devkit --recipe=recipe.txt",),
    "real.json": (f"{_LOGITS} --real_labels=real.json",),
    "runs/a/code/*.py": (
        f"{_EVAL} --data_dir=no",
        "--mode=train --dataset=folder --data_dir=devkit --recipe=runs/a",
        f"{_RESUME} --data_dir=no",
    ),
    "runs/a/config.json": (
        f"{_EVAL} --data_dir=no",
        "--mode=train --dataset=folder --data_dir=devkit --recipe=runs/a",
        "--mode=recipe --ckpt=runs/a",
    ),
    "shards/val*.npy": (_EVAL_SHARDS,),
    "shards/manifest.json": (_EVAL_SHARDS,),
    "train.txt": (_LISTS,),
    "unsplit/.index/split.txt": (f"{_PREPARE} --dataset=folder --data_dir=unsplit",),
    "val.txt": (_LISTS,),
    "weights/config.json": ("--mode=import --run_name=new --weights=weights",),
    "words.txt": (f"{_LOGITS} --flagfile=words.txt",),
}
# The same for files that take seconds.
SLOW = {
    "folder/SHA256SUMS": (_VERIFY,),
    **{f"folder/train/*/*.{kind}": (_RESIZE, _VERIFY, _PREDICT) for kind in box.FORMATS},
    "folder/val/*/*": (_EVAL,),
    "runs/a/config.json": (_EXPORT, _EVAL, _RESUME, _PREDICT),
    "runs/a/eval-*.json": (_EVAL,),
    "runs/a/loss_trace.jsonl": (_REPRO, _RESUME),
    "runs/a/metrics.jsonl": (_RESUME,),
    "runs/a/step-00000001/*": (_EXPORT.replace("runs/a", "runs/a/best"), _RESUME),
    "runs/a/step-00000002/*.index": (_EXPORT, _EXPORT_STEP),
    "runs/a/step-00000002/*data*": (_EXPORT, _EXPORT_STEP),
    "runs/a/step-00000002/*json": (_EXPORT, _EXPORT_STEP, _EVAL, _RESUME),
    "runs/a/train/events*": (_RESUME,),
    "shards/val*.tfrecord": ("--mode=verify --data_dir=shards", f"{_EVAL} --data_dir=shards"),
    "unfinished/.unfinished/*.json": (f"{_RESIZE} --out=unfinished",),
}
# JSON texts that replace a value; "" removes it. Texts that are written into any file.
_JSON = ("", "null", "true", "-1", "0", "1.5", "NaN", "-Infinity", "1e999", "DEEP", "LONG", '""')
_JSON += ("[]", "{}", "[[]]", '{"": null}', '"x"', '"\\ud800"', '"\\u0000"', '"../x"', '"é\\n"')
_TEXTS = ("\0", "\udcff", "\n", "\r", "\t", "é", "-1", "LONG", " ", "DEEP", "\0" * 64, '"', ",")


@st.composite
def examples(draw: st.DrawFn) -> Example:
    """Draws a command that reads a file, and one or two damages to that file."""
    readers = draw(st.sampled_from([FAST] * 5 + [SLOW]))
    path = draw(st.sampled_from(sorted(readers)))
    command = draw(st.sampled_from(readers[path]))
    ways = ["replace", "flip", "cut", "write", "insert", "digits", "drop line", "double line"]
    ways += ["json"] * 8 * (".json" in path)
    values = {"replace": damage.STAND_INS, "write": _TEXTS, "insert": _TEXTS, "json": _JSON}
    damages = []
    for _ in range(draw(st.integers(1, 2))):
        how = draw(st.sampled_from(ways))
        place = draw(st.one_of(st.integers(-40, 200), st.integers(0, 100_000)))
        damages.append((path, how, place, draw(st.sampled_from(values.get(how, ("",))))))
    return Example(tuple(command.split()), tuple(damages))
