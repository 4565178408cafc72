"""Tests of the command line: accepted and refused flag values, error messages, `--help`."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

import flags
from input_pipeline.errors import UsageError
from loops.config import choices, flag_parsers, mode_flags, modes
from loops.config.config import Config, all_flags
from tests.command_line import leaf, parse, refusal, resolve
from tests.nets.model_sizes import MODEL_SIZES

ROOT = pathlib.Path(__file__).resolve().parents[1]
CHOICES = {name: flag.choices for name, flag in all_flags().items() if flag.choices}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in CHOICES.items() for value in values]
)
def test_every_flag_choice_is_accepted(name, value):
    config = parse(f"--{name}={value}")
    assert config.typed == {name}
    assert leaf(config, name) == value


def test_help_lists_every_flag_choice():
    text = re.sub(r"\n {20,}", " ", flags.format_help())  # join continuation lines
    for name, values in CHOICES.items():
        line = text[text.index(f"--{name} ") :].partition("\n")[0]
        assert f"One of: {', '.join(map(str, values))}." in line, name
    for name, flag in all_flags().items():
        head = "[no]" * (flag.type is bool) + name
        line = text[text.index(f"--{head} ") :].partition("\n")[0]
        assert ("FILE.py:FUNCTION" in line) == flag.accepts_code, name


def test_flag_choices_equal_the_registries():
    assert {*CHOICES["model"]} >= {*MODEL_SIZES}
    assert {*CHOICES["optimizer"]} == {*choices.OPTIMIZERS.names()}
    assert {*CHOICES["mode"]} == {*modes.MODES}


@pytest.mark.parametrize("name", CHOICES)
def test_unknown_flag_choice_is_refused(name):
    wrong = "7" if name == "crops" else "qqqq"
    message = refusal(parse, f"--{name}={wrong}")
    assert message.startswith(f"--{name}={wrong}: ")
    assert all(str(choice) in message for choice in CHOICES[name])


def test_flag_defaults_satisfy_their_own_checks():
    for flag in all_flags().values():
        flag.check_choice(flag.default)
        flag.check_range(flag.default)


@pytest.mark.parametrize(
    ("typed", "near"),
    [
        ("resnet50", "resnet_50"),
        ("resnetv2-50", "resnetv2_50"),
        ("ResNetV2_50", "resnetv2_50"),
        ("resnetse_51", "resnetse_50"),
    ],
)
def test_misspelled_model_flag_suggests_similar_names(typed, near):
    message = refusal(parse, f"--model={typed}")
    assert f"--model={typed}" in message
    assert "did you mean" in message
    assert near in message.partition("did you mean")[2]


def test_unknown_flag_suggests_similar_flag():
    message = refusal(parse, "--modle=resnet_18")
    assert "modle" in message and "model" in message.replace("modle", "")


@pytest.mark.parametrize(
    ("word", "flag"),
    [
        ("--steps=many", "steps"),
        ("--steps=1.5", "steps"),
        ("--momentum=much", "momentum"),
        ("--mixed_precision=perhaps", "mixed_precision"),
        ("--steps=", "steps"),
    ],
)
def test_flag_value_of_wrong_type_is_refused(word, flag):
    assert flag in refusal(parse, word)


def test_positional_arguments_are_no_flags():
    assert "'train'" in refusal(parse, "train")
    assert "'60'" in refusal(parse, "--mixed_precision", "60")


def test_boolean_flags_can_be_set_and_unset():
    assert parse("--mixed_precision").precision.mixed_precision is True
    assert parse("--nonesterov").optimization.nesterov is False
    assert parse("--nesterov=false").optimization.nesterov is False


def test_no_flags_give_default_config():
    config = parse()
    assert (config, config.typed) == (Config(), frozenset())


def test_typed_flags_are_recorded_even_if_equal_to_default():
    assert parse("--model=resnetv2_50", "--seed", "0").typed == {"model", "seed"}


@pytest.mark.parametrize(
    "words",
    [
        ("--epochs=2", "--steps=5"),
        ("--steps=5", "--examples=100"),
        ("--epochs=2", "--examples=100"),
        ("--epochs=2", "--steps=5", "--examples=100"),
    ],
)
def test_conflicting_length_flags_are_refused(words):
    message = refusal(resolve, *words)
    assert sum(word.split("=")[0] in message for word in words) >= 2


@pytest.mark.parametrize(
    "word",
    [
        "--epochs=-1",
        "--epochs=nan",
        "--epochs=inf",
        "--steps=0",
        "--steps=-3",
        "--examples=0",
        "--batch_size=0",
        "--image_size=31",
        "--image_size=-1",
        "--keep=0",
        "--cpu_devices=0",
        "--learning_rate=-0.1",
        "--learning_rate=nan",
        "--learning_rate=inf",
        "--weight_decay=-1",
        "--weight_decay=nan",
        "--label_smoothing=1.5",
        "--label_smoothing=nan",
        "--min_crop_area=-0.1",
        "--min_crop_area=2",
        "--momentum=1.1",
        "--mixup=-0.1",
        "--mixup=nan",
        "--cutmix=-1",
        "--cutmix=inf",
        "--augment=",
        "--augment=standart",
        "--augment=none,hsv",
        "--augment=classic,randaugment",
        "--augment=erasing(2)",
        "--randaugment=2",
        "--randaugment=2,11",
        "--randaugment=0,9",
        "--crop_fraction=0",
        "--crop_fraction=1.1",
        "--dropout=1",
        "--dropout=-0.1",
        "--stochastic_depth=1",
        "--stochastic_depth=-0.1",
        "--crop_fraction=nan",
        "--warmup_epochs=-1",
        "--warmup_epochs=nan",
        "--initial_loss_scale=0",
        "--initial_loss_scale=inf",
        "--eval_batch_size=-1",
        "--reader_threads=-1",
        "--seed=-1",
        f"--seed={2**63}",
        "--short_side=-1",
        "--quality=0",
        "--quality=101",
        "--shard_megabytes=0",
        "--save_every=0",
        "--save_every=often",
        "--save_every=nanepochs",
        "--eval_every=-1epochs",
        "--eval_every=infepochs",
        "--log_every=1.5",
        "--top_k=0",
        "--top_k=1,,5",
        "--top_k=five",
        "--accumulate=0",
        "--ema=1",
        "--ema=-0.1",
        "--clip_norm=-1",
        "--clip_factor=-1",
        "--final_learning_rate=-1",
        "--keep_every=often",
        "--milestones=30,10",
        "--beta2=1",
        "--epsilon=0",
        "--repeated_augmentation=0",
        "--mixup_off_epoch=-1",
        "--profile=5",
        "--profile=9,9",
        "--image_size_schedule=64",
        "--image_size_schedule=1:64",
        "--image_size_schedule=0:64,0:96",
        "--image_size_schedule=0:16",
        "--test_size=0",
        "--test_size=64,,32",
        "--test_size=64,64",
        "--save_logits=logits.npy",
        "--save_logits=nowhere/logits.npz",
        "--watch_patience=-1",
        "--calibration_images=0",
        "--bn_batches=0",
    ],
)
def test_flag_value_out_of_range_is_refused(word):
    message = refusal(resolve, word)
    assert message.startswith(word)


@pytest.mark.parametrize(
    "word",
    [
        "--epochs=0.5",
        "--image_size=32",
        "--batch_size=1",
        "--label_smoothing=0",
        "--label_smoothing=1",
        "--warmup_epochs=0",
        "--learning_rate=0",
        "--mixup=0",
        "--cutmix=0.2",
        "--augment=classic,erasing",
        "--augment=crop(0.35,1,0.75,1.33),flip(0)",
        "--randaugment=8,10",
        "--save_every=0.25epochs",
        "--top_k=5,1,3",
    ],
)
def test_flag_value_at_limit_of_range_is_accepted(word):
    name, _, value = word[2:].partition("=")
    assert str(leaf(resolve(word), name)) in (value, f"{value}.0")


def test_augment_and_an_older_flag_cannot_both_set_an_argument():
    message = refusal(resolve, "--augment=mixup(0.2)", "--mixup=0.1")
    assert message == "--mixup and --augment=mixup(0.2): both set mixup; drop one of them"
    assert resolve("--augment=mixup(0.2)", "--cutmix=1").data.cutmix == 1


def test_top_k_flag_is_sorted():
    assert flag_parsers.parse_top_k("5,1,3,5") == (1, 3, 5)


def test_dataset_defaults_fill_config():
    config = resolve("--dataset=ilsvrc2012", "--batch_size=512")
    assert (config.data.image_size, config.data.batch_size) == (224, 512)
    assert config.data.min_crop_area == 0.08
    assert (config.length.epochs, config.length.steps) == (50.0, None)
    config = resolve("--dataset=ilsvrc2012", "--steps=7")
    assert (config.length.epochs, config.length.steps) == (None, 7)


def test_help_lists_every_flag_once():
    listed = re.findall(r"^  --(?:\[no\])?(\w+)", flags.format_help(), re.MULTILINE)
    assert sorted(listed) == sorted(all_flags())
    assert len(listed) == len(set(listed)) > 35
    fields = {*Config().leaves()}
    assert set(listed) <= fields
    # These fields are derived from others. Any other field without a flag lacks a help text.
    assert fields - set(listed) == {"num_classes", "compute_dtype", "torchvision_rounding"} | {
        "input_size", "batch_norm_momentum", "batch_norm_epsilon", "pca_values", "pca_vectors",
    }  # fmt: skip


def test_help_describes_every_flag():
    for name, flag in all_flags().items():
        assert flag.help.strip().endswith((".", "?")), name
    usage = " ".join(flags.format_help().split())
    for name, flag in all_flags().items():
        default = f" (default: {flag.default})" if flag.default not in (None, "") else ""
        shown = f"--[no]{name}" if isinstance(flag.default, bool) else f"--{name}"
        assert f" {shown} {' '.join(flag.help.split())}{default}" in usage, name
    assert max(map(len, flags.format_help().splitlines())) <= 100


@pytest.fixture(scope="module")
def help_process():
    """A new process that parses flags, prints `--help` and checks which modules are imported."""
    code = (
        "import sys, flags\n"
        "flags.parse(['main.py', '--model=resnet_18'])\n"
        "loaded = {name.split('.')[0] for name in sys.modules}\n"
        "assert not loaded & {'tensorflow', 'keras', 'numpy', 'cv2'}, loaded\n"
        "import main\n"
        "code = main.main(['main.py', '--help'])\n"
        "loaded = {name.split('.')[0] for name in sys.modules}\n"
        "assert not loaded & {'tensorflow', 'keras'}, loaded\n"
        "sys.exit(code)\n"
    )
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )


def test_flags_and_help_do_not_import_tensorflow(help_process):
    assert help_process.returncode == 0, help_process.stderr
    assert help_process.stderr == ""


def test_help_omits_flags_of_libraries(help_process):
    assert help_process.stdout == flags.format_overview()
    for name in ("verbosity", "logtostderr", "flagfile", "pdb", "test_srcdir", "xml_output"):
        assert f"--{name}" not in flags.format_help()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--help"], flags.format_overview()),
        (["-h"], flags.format_overview()),
        (["--helpfull"], flags.format_help()),
        (["--mode=eval", "--help"], flags.format_help("eval")),
        (["-h", "--mode", "train"], flags.format_help("train")),
    ],
)
def test_help_flags_print_help(words, text, capsys):
    import main

    assert main.main(["main.py", "--model=nonsense", *words]) == 0
    assert capsys.readouterr().out == text


def test_no_arguments_print_the_overview_and_train_nothing(capsys, tmp_path, monkeypatch):
    import main

    monkeypatch.chdir(tmp_path)
    assert main.main(["main.py"]) == 2
    captured = capsys.readouterr()
    assert captured.out == flags.format_overview()
    assert captured.err == "error: --mode is missing: name a mode, as in --mode=train\n"
    assert not [*tmp_path.iterdir()]


def test_overview_has_a_line_for_each_mode_and_its_examples_parse():
    text = flags.format_overview()
    assert max(map(len, text.splitlines())) <= 80
    assert len(text.splitlines()) < 30
    for name in modes.names():
        assert len(re.findall(rf"^  --mode={name} +[A-Z].*\.$", text, re.MULTILINE)) == 1
    for command in re.findall(r"^  python main.py (.*)", text.partition("Help:")[0], re.MULTILINE):
        mode_flags.check_flags(parse(*command.split()))


@pytest.mark.parametrize("mode", modes.names())
def test_help_of_a_mode_lists_its_flags_once_the_common_ones_first(mode):
    text = flags.format_help(mode)
    listed = re.findall(r"^  --(?:\[no\])?(\w+)", text, re.MULTILINE)
    assert len(listed) == len({*listed})
    for name in listed:
        flag = all_flags()[name]
        assert mode in flag.modes or (mode == "benchmark" and flag.benchmarks), name
    common = {name for name, flag in all_flags().items() if mode in flag.common_in}
    assert {*listed[: len(common)]} == common and common
    needed = {name for name, flag in all_flags().items() if mode in flag.needed_by}
    assert needed <= common


def test_help_of_a_run_does_not_show_the_defaults_of_a_training():
    """Its net, data and precision are those of the run."""
    text = " ".join(flags.format_help("eval").split())
    for name in ("image_size", "crop_fraction", "exif", "[no]mixed_precision"):
        part = text.partition(f" --{name} ")[2].partition(" --")[0]
        assert "(default: as in the run)" in part, name
    for name, default in (("cache", "none"), ("split", "val"), ("crops", "10")):
        part = text.partition(f" --{name} ")[2].partition(" --")[0]
        assert f"(default: {default})" in part, name
    assert "as in the run" not in flags.format_help("train")


def test_help_of_training_leaves_out_what_other_modes_need():
    listed = re.findall(r"^  --(?:\[no\])?(\w+)", flags.format_help("train"), re.MULTILINE)
    assert {"mixup", "ema", "recompute", "clip_factor", "verbose"} <= {*listed}
    assert not {"ckpt", "image", "weights", "out", "logits", "mode"} & {*listed}
    # The config of the run decides these.
    predict = re.findall(r"^  --(?:\[no\])?(\w+)", flags.format_help("predict"), re.MULTILINE)
    assert {"ckpt", "image", "crops", "verbose"} <= {*predict}
    assert not {"model", "augment", "label_smoothing"} & {*predict}


def test_flagfile_is_replaced_by_its_lines(tmp_path):
    (tmp_path / "b.txt").write_text("--steps=7\n")
    (tmp_path / "a.txt").write_text(
        f"# a comment\n\n  --batch_size=8 \n--flagfile={tmp_path}/b.txt\n--nomixed_precision\n",
        encoding="utf-8-sig",
    )
    words = ["main.py", "--mode=train", "--flagfile", f"{tmp_path}/a.txt", "--batch_size=4"]
    config = flags.parse(words)
    assert (config.data.batch_size, config.length.steps) == (4, 7)
    assert "mixed_precision" in config.typed


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"--steps=\xff", "codec"),
        (b"--flagfile=SELF", "is named twice"),
        ("pipe", "is a folder, pipe, device or socket"),
        ("/dev/zero", "is a folder, pipe, device or socket"),
        ("folder", "is a folder, pipe, device or socket"),
        (b"#" * (2**20 + 1), "at most 1048576 are read"),
        (None, "No such file"),
    ],
)
def test_unreadable_flagfile_is_a_usage_error(tmp_path, content, message):
    path = tmp_path / "flags.txt"
    if isinstance(content, bytes):
        path.write_bytes(content.replace(b"SELF", bytes(path)))
    elif content == "pipe":
        os.mkfifo(path)
    elif content == "folder":
        path.mkdir()
    elif content:
        path.symlink_to(content)
    with pytest.raises(UsageError, match=f"^--flagfile={path}: .*{message}"):
        flags.parse(["main.py", f"--flagfile={path}"])


@pytest.mark.parametrize("name", ["model", "loss", "optimizer", "step"])
def test_file_without_a_function_is_told(name):
    with pytest.raises(UsageError, match=rf"--{name}=own\.py: .*; write own\.py:FUNCTION$"):
        flags.parse(["main.py", f"--{name}=own.py"])
