"""Flags as users of PyTorch, timm, torchvision and Keras type them are answered with ours."""

import re

import pytest

import flags
from input_pipeline import augment_spec
from input_pipeline.errors import UsageError
from loops.config import foreign_flags, recipes
from loops.config.config import all_flags
from tests.command_line import parse, refusal

# What is typed, and the flag or another word that the answer must contain.
TYPED = {
    # timm and torchvision
    "--data-dir=D": "--data_dir",
    "--data-path=D": "--data_dir",
    "--pretrained": "--init_from",
    "-b=256": "--batch_size",
    "-b32": "--batch_size",
    "--lr=0.8": "--learning_rate",
    "--opt=lamb": "--optimizer",
    "--sched=cosine": "--schedule",
    "--min-lr=1e-5": "--final_learning_rate",
    "--warmup-epochs=5": "--warmup_epochs",
    "--lr-warmup-epochs=5": "--warmup_epochs",
    "--wd=1e-4": "--weight_decay",
    "--weight-decay=1e-4": "--weight_decay",
    "--amp": "--mixed_precision",
    "--model-ema": "--ema",
    "--model-ema-decay=0.9999": "--ema",
    "--smoothing=0.1": "--label_smoothing",
    "--label-smoothing=0.1": "--label_smoothing",
    "--mixup-alpha=0.2": "--mixup",
    "--cutmix-alpha=1": "--cutmix",
    "--aa=rand-m9-mstd0.5": "--augment",
    "--auto-augment=ra": "--augment",
    "--reprob=0.25": "--augment",
    "--random-erase=0.1": "--augment",
    "--drop-path=0.05": "--stochastic_depth",
    "--drop=0.2": "--dropout",
    "--clip-grad=1": "--clip_norm",
    "--clip-grad-norm=1": "--clip_norm",
    "--clip-mode=agc": "--clip_factor",
    "--grad-accum-steps=4": "--accumulate",
    "--grad-checkpointing": "--recompute",
    "--sync-bn": "--sync_batch_norm",
    "--zero-init-last": "--zero_init_residual",
    "--bce-loss": "--loss",
    "-j=8": "--reader_threads",
    "--nproc_per_node=8": "--strategy",
    "--resume=P": "--run_name",
    "--crop-pct=0.95": "--crop_fraction",
    "--img-size=224": "--image_size",
    "--val-crop-size=224": "--test_size",
    "--output=D": "--checkpoint_dir",
    "--experiment=N": "--run_name",
    "--test-only": "--mode=eval",
    "--torchcompile": "--xla",
    "--aug-repeats=3": "--repeated_augmentation",
    "--checkpoint-hist=3": "--keep",
    "--initial-checkpoint=P": "--init_from",
    "--train-crop-size=176": "--image_size",
    "--lr-step-size=30": "--milestones",
    "--lr-gamma=0.1": "--milestones",
    # PyTorch's ImageNet example
    "--arch=resnet50": "--model",
    "-a=resnet50": "--model",
    "--print-freq=10": "--log_every",
    "-p=10": "--log_every",
    "--evaluate": "--mode=eval",
    "-e": "--mode=eval",
    "--start-epoch=3": "--run_name",
    "--gpu=0": "CUDA_VISIBLE_DEVICES",
    "--dist_url=tcp://x": "--strategy",
    "--world_size=2": "--strategy",
    "--dist-backend=nccl": "--strategy",
    "--multiprocessing-distributed": "--strategy",
    # Keras, Hugging Face, Lightning, Ultralytics
    "--num_epochs=9": "--epochs",
    "--max_epochs=9": "--epochs",
    "--num_classes=10": "--dataset",
    "--output_dir=o": "--checkpoint_dir",
    "--device=cuda": "CUDA_VISIBLE_DEVICES",
    "--fp16": "--mixed_precision",
    "--val_split=0.1": "--split",
    "--validation_split=0.1": "--split",
    "--steps_per_epoch=100": "--steps",
    "--data=D": "--data_dir",
    "--imgsz=224": "--image_size",
    "--gradient_accumulation_steps=4": "--accumulate",
    "--gradient_checkpointing": "--recompute",
    "--num_workers=8": "--reader_threads",
    "--batch=64": "--batch_size",
    "--model-name=resnet50": "--model",
    "--use-ema": "--ema",
    "--results-file=F": "--json",
    "--opt-betas=0.9": "--beta2",
    "--train-interpolation=random": "leave it out",
    "--name=N": "--run_name",
    "--log_wandb": "metrics.jsonl",
    # modes and negations
    "--eval": "--mode=eval",
    "--train": "--mode=train",
    "--no-mixed-precision": "--nomixed_precision",
    "--no-amp": "--mixed_precision",
    "--batch-size=3": "--batch_size",
}


@pytest.mark.parametrize(("typed", "answer"), TYPED.items())
def test_flag_of_another_program_is_answered_with_ours(typed, answer):
    message = refusal(parse, typed)
    name = typed.partition("=")[0]
    assert message.startswith(f"{name}: unknown flag; ")
    advice = message.partition("; ")[2]
    assert re.search(rf"{re.escape(answer)}\b", advice), message


def test_every_flag_that_an_answer_names_exists():
    named = set()
    for name in [*foreign_flags.ANSWERS, *(t.lstrip("-").partition("=")[0] for t in TYPED)]:
        named |= {*re.findall(r"--(\w+)", foreign_flags.advise(name))}
    assert named - {"nomixed_precision", "nolinear_scaling"} <= all_flags().keys()


def test_names_of_other_programs_are_not_ours_and_mean_one_flag():
    others = [n for flag in all_flags().values() for n in flag.other_names.split()]
    others += foreign_flags.ANSWERS
    assert len({*others}) == len(others)
    assert not {*others} & all_flags().keys()
    assert all(re.fullmatch("[a-z0-9_]+", name) for name in others)


@pytest.mark.parametrize("name", ["modle", "learning_rates", "epohcs"])
def test_misspelled_flag(name):
    advice = foreign_flags.advise(name)
    assert {"modle": "--model", "learning_rates": "--learning_rate"}.get(name, "--epochs") in advice


@pytest.mark.parametrize(
    ("typed", "answer"),
    {
        "lr": "here it is --learning_rate: .* or --nolinear_scaling for the rate itself",
        "batch-size": "here it is --batch_size: .* of all GPUs together",
        "b32": "here it is --batch_size: .* of all GPUs together",
        "norm-weight-decay": "norms and biases never decay",
        "lr-warmup-decay": "rises linearly from zero over --warmup_epochs, so leave it out",
        "model-ema-steps": "each step updates the average",
        "cache-dataset": "here it is --cache: ",
        "ra-reps": "here it is --repeated_augmentation: ",
        "hflip": r"--augment='standard,flip\(0\)' turns it off",
        "no-aug": "give --augment=none",
        "no-amp": "leave --mixed_precision out",
        "bn-eps": "there is nothing like it here, so leave it out",
        "use-deterministic-algorithms": "here it is --deterministic: ",
        # A name with one more word is another thing, even if most letters are equal.
        "bn_weight_decay": "--weight_decay has only a similar name; .*--helpfull lists all flags",
        "batchsize": r"did you mean --batch_size.*\?",
    }.items(),
)
def test_answer_does_not_mislead(typed, answer):
    assert re.search(answer, foreign_flags.advise(typed))


def test_answers_name_valid_augmentations_and_the_recipe_of_torchvision():
    """Its recipe for 600 epochs at batch 1024 updates with decay 0.99998 every 32 steps."""
    for text in foreign_flags.ANSWERS.values():
        for value in re.findall("--augment='?([^' ]*)", text):
            augment_spec.read(parse(f"--augment={value}").data)
    assert augment_spec.read(parse("--augment=standard,flip(0)").data)["flip"] == {"probability": 0}
    decay = 1 - (1 - 0.99998) * 1024 / 600
    assert recipes.read("tv2", all_flags())["ema"] == pytest.approx(decay, abs=1e-7)


def test_unlike_any_flag():
    assert foreign_flags.advise("qqqq") == "python main.py --helpfull lists all flags"


@pytest.mark.parametrize(
    ("word", "answer"),
    [
        ("--dataset=imagenet", "did you mean ilsvrc2012?"),
        ("--dataset=ImageNet-1k", "did you mean ilsvrc2012?"),
        ("--dataset=ImageFolder", "did you mean folder?"),
        ("--optimizer=SGD", "did you mean sgd?"),
        ("--optimizer=Adam", "did you mean adamw?"),
        ("--loss=cross_entropy", "did you mean softmax?"),
        ("--half_dtype=fp16", "did you mean float16?"),
        ("--model=resnet50", "did you mean resnet_50?"),
        ("--model=seresnet50", "did you mean resnetse_50?"),
        ("--mode=test", "did you mean eval?"),
    ],
)
def test_value_of_another_program_is_answered_with_ours(word, answer):
    assert refusal(parse, word) == f"{word}: unknown value; {answer}"


def test_all_unknown_flags_and_words_are_answered_at_once(tmp_path):
    """As in the example of PyTorch. The value of a flag is not answered, unless it is a folder."""
    words = f"-a resnet50 --mode=train --lr 0.1 --pretrained {tmp_path} -j8 --lr=-1 --wd -1 eval"
    answers = re.split("; (?=-|')", refusal(parse, *words.split()))
    typed = [re.match(r"[^:]*?(?=:| is not)", text)[0] for text in answers]
    assert typed == ["-a", "--lr", "--pretrained", f"'{tmp_path}'", "-j8", "--wd", "'eval'"]
    assert [re.search(r"--\w+", text.partition(": ")[2])[0] for text in answers] == [
        *("--model", "--learning_rate", "--init_from", "--data_dir", "--reader_threads"),
        *("--weight_decay", "--mode"),
    ]
    assert refusal(parse, "--data-path", str(tmp_path)).count("--data_dir") == 1
    many = refusal(parse, *(f"{number}.jpg" for number in range(1000)))
    assert many.endswith("'19.jpg' is not a flag: flags look like --name=value; and 980 more")


def test_flags_with_the_same_answer_are_answered_together(tmp_path):
    """The folder of a run is the value of a flag, and no data set."""
    (tmp_path / "config.json").write_text("{}")
    words = "--dist-url=x --bce-loss --dist-backend=nccl --opt-betas 0.9 0.95 --checkpoint"
    message = refusal(parse, *words.split(), str(tmp_path))
    assert re.fullmatch(
        "--dist-url, --dist-backend: unknown flag; all GPUs of a machine are used; [^;]*"
        "; --bce-loss: unknown flag; give --loss=bce"
        "; --opt-betas: unknown flag; give --beta1=0.9 --beta2=0.999"
        "; --checkpoint: unknown flag; here it is --ckpt: [^;]*",
        message,
    )


def test_what_other_programs_call_values_are_choices():
    for flag in all_flags().values():
        assert {*flag.other_values.values()} <= {*flag.choices}, flag.name


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ("train", "'train' is not a flag: did you mean --mode=train?"),
        ("eval --ckpt=x", "'eval' is not a flag: did you mean --mode=eval?"),
        ("{folder}", "'{folder}' is not a flag: did you mean --data_dir={folder}?"),
        ("--mode=eval -- --ckpt=x", "'--ckpt=x' is not a flag: flags look like --name=value"),
        (
            "- --seed=1 -5",
            "'-' is not a flag: flags look like --name=value; "
            "'-5' is not a flag: flags look like --name=value",
        ),
        ("--batch_size=abc", "--batch_size=abc: must be a whole number"),
        ("--batch_size=64.0", "--batch_size=64.0: must be a whole number"),
        ("--learning_rate=a,b", "--learning_rate=a,b: must be a number"),
        ("--mean=1,x,2", "--mean=1,x,2: must be numbers separated by commas"),
        ("--mixed_precision=perhaps", "--mixed_precision=perhaps: must be true or false"),
    ],
)
def test_other_words(words, answer, tmp_path):
    with pytest.raises(UsageError) as caught:
        flags.parse(["main.py", *words.format(folder=tmp_path).split()])
    assert str(caught.value) == answer.format(folder=tmp_path)
