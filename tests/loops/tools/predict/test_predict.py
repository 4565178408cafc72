"""Tests prediction of files and folders against evaluation and against single nets."""

import csv
import io
import json
import re
import shutil
import sys
import time

import cv2
import numpy as np
import pytest
import tensorflow as tf

import flags
from input_pipeline import datasets
from input_pipeline.errors import DataError, UsageError
from loops import evaluate
from loops.tools.predict import (
    drawn_images,
    ensemble,
    explained_prediction,
    outputs,
    predict,
    views,
)

pytestmark = pytest.mark.usefixtures("tiny_net")


@pytest.fixture(scope="module")
def runs(make_run, tiny_folder, tmp_path_factory):
    """A folder of runs whose nets differ in weights, preprocessing or classes."""
    root = tmp_path_factory.mktemp("runs")
    make_run(root / "a", 1, data_dir=str(tiny_folder))
    make_run(root / "b", 2, image_size=40, interpolation="bicubic", crop_fraction=0.8)
    make_run(root / "a2", 3, data_dir=str(tiny_folder))
    make_run(root / "fewer", 4, ("disc", "grid"))
    make_run(root / "reordered", 5, ("grid", "disc", "stripes"))
    return root


@pytest.fixture
def pictures(tiny_folder, tmp_path):
    """A folder of three pictures (a, c, e) and two files that do not decode (b, d)."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, label in (("a.jpg", "disc"), ("c.jpg", "grid"), ("e.jpg", "stripes")):
        shutil.copy(tiny_folder / "val" / label / "00.jpg", folder / name)
    (folder / "b.jpg").write_bytes(b"no picture")
    (folder / "d.jpg").write_bytes((folder / "a.jpg").read_bytes()[:300])
    return folder


def run(*words):
    return predict.run(flags.parse(["main.py", "--mode=predict", *map(str, words)]))


def probabilities_by_class(image):
    """Returns the probability of each class by its name."""
    return {p["class"]: p["probability"] for p in image["predictions"]}


def test_predicting_a_folder_equals_evaluation(runs, tiny_folder, tmp_path):
    words = ["t", "--mode=eval", f"--ckpt={runs / 'a'}", "--crops=1"]
    expected = evaluate.run(flags.parse(words))
    out = tmp_path / "out.json"
    results = run(
        f"--ckpt={runs / 'a'}", f"--image={tiny_folder / 'val'}", "--crops=1", f"--json={out}"
    )
    assert json.loads(out.read_text()) == results
    assert len(results["images"]) == expected["num_examples"] == 11
    right = [
        f"/{image['predictions'][0]['class']}/" in image["path"] for image in results["images"]
    ]
    assert np.mean(right) == pytest.approx(expected["top1"])
    labels = [re.search(r"/val/(\w+)/", image["path"])[1] for image in results["images"]]
    assert [image["true_class"] for image in results["images"]] == labels
    label_probabilities = [
        probabilities_by_class(i)[label] for i, label in zip(results["images"], labels, strict=True)
    ]
    assert -np.log(label_probabilities).mean() == pytest.approx(expected["nll"], rel=1e-4)
    for image in results["images"]:
        assert sum(probabilities_by_class(image).values()) == pytest.approx(1.0)
        assert list(probabilities_by_class(image).values()) == sorted(
            probabilities_by_class(image).values(), reverse=True
        )


def test_ensemble_averages_nets_of_different_preprocessing(runs, tiny_folder):
    """The nets differ in image size, interpolation and crop. The last batch is smaller."""
    image = f"--image={tiny_folder / 'val'}"
    words = [image, "--eval_batch_size=4"]
    single = [run(f"--ckpt={runs / name}", *words) for name in ("a", "b", "a2")]
    together = run(f"--ckpt={','.join(str(runs / name) for name in ('a', 'b', 'a2'))}", *words)
    assert [m.split("/")[-2] for m in together["models"]] == ["a", "b", "a2"]
    for number, averaged in enumerate(together["images"]):
        by_class = [probabilities_by_class(result["images"][number]) for result in single]
        assert np.ptp([list(sorted(s.values())) for s in by_class], axis=0).max() > 0.01
        for name, probability in probabilities_by_class(averaged).items():
            assert probability == pytest.approx(np.mean([s[name] for s in by_class]), abs=1e-5)


def test_features_times_the_classifier_are_the_logits(runs, pictures, tmp_path, one_device):
    """Files that do not decode have no features. The mean over views of logits is linear."""
    out = tmp_path / "features.npz"
    ckpt = f"--ckpt={runs / 'a'},{runs / 'b'}"
    words = [ckpt, "--crops=10", f"--features={out}", "--eval_batch_size=2"]
    with pytest.raises(DataError, match="2 of 5 images not predicted"):
        run(*words, f"--image={pictures}", f"--json={tmp_path / 'out.json'}")
    results = json.loads((tmp_path / "out.json").read_text())
    file = np.load(out)
    names = [name.decode() for name in file["names"]]
    assert names == [str(pictures / name) for name in ("a.jpg", "c.jpg", "e.jpg")]
    assert json.loads(file["meta"].tobytes())["models"] == results["models"]
    for number, name in enumerate(("a", "b")):
        (predictor,) = ensemble.load(flags.parse(["t", f"--ckpt={runs / name}"])).predictors
        model = predictor.restore(one_device)
        kernel, bias = (v.numpy() for v in model.get_layer("logits").variables)
        views_of_image = views.preprocess_image(
            views.decode_file(str(pictures / "c.jpg")), predictor.preprocessing
        )
        expected = predictor.logits(views_of_image[None]).numpy()[0].mean(axis=0)
        features = file[f"features_{number}"]
        assert features.dtype == np.float32 and features.shape == (3, len(kernel))
        np.testing.assert_allclose(features[1] @ kernel + bias, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("batch_size", [2, 5])
def test_few_files_give_the_batches_of_a_dataset(pictures, batch_size):
    paths = [str(path) for path in sorted(pictures.iterdir())]
    preprocessings = [
        views.Preprocessing(24, 0.875, "bilinear", 10, False),
        views.Preprocessing(32, 1.0, "bicubic", 1, True, exif="apply"),
    ]
    few = [*views.load_batches(paths, preprocessings, batch_size)]
    many = [*views.make_dataset(paths, preprocessings, batch_size)]
    assert len(few) == len(many) == -(-len(paths) // batch_size)
    for batch, expected in zip(few, many, strict=True):
        tf.nest.map_structure(np.testing.assert_array_equal, batch, expected)


def test_seam_carving_is_the_eleventh_view(runs, tiny_folder):
    path = str(tiny_folder / "val" / "grid" / "00.jpg")
    ten = probabilities_by_class(run(f"--ckpt={runs / 'a'}", f"--image={path}")["images"][0])
    eleven = run(f"--ckpt={runs / 'a'}", f"--image={path}", "--seam_carving")
    assert eleven["seam_carving"] is True
    image = views.decode_file(path)
    preprocessing = views.Preprocessing(32, 0.875, "bilinear", 1, True)
    _, carved = views.preprocess_image(image, preprocessing)
    # The carved picture as a file of which the center crop is the whole image.
    words = [f"--ckpt={runs / 'a'}", "--crops=1", "--crop_fraction=1"]
    file = tiny_folder.parent / "carved.png"
    cv2.imwrite(str(file), carved.numpy()[..., ::-1])
    alone = probabilities_by_class(run(*words, f"--image={file}")["images"][0])
    for name, probability in probabilities_by_class(eleven["images"][0]).items():
        assert probability == pytest.approx((10 * ten[name] + alone[name]) / 11, abs=1e-5)


def test_files_that_do_not_decode_are_listed_and_the_others_predicted(
    runs, pictures, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(sys, "argv", ["main.py", "--image=two words"])
    words = [f"--ckpt={runs / 'a'}", f"--image={pictures}", f"--json={tmp_path / 'o.json'}"]
    words += [f"--csv={tmp_path / 'o.csv'}", f"--report={tmp_path / 'o.html'}", "--crops=1"]
    with pytest.raises(DataError, match=r"2 of 5 images.*b\.jpg.*d\.jpg"):
        run(*words)
    out = capsys.readouterr().out
    results = json.loads((tmp_path / "o.json").read_text())
    assert [i["path"][-5:] for i in results["images"]] == ["a.jpg", "c.jpg", "e.jpg"]
    assert [i["path"][-5:] for i in results["bad"]] == ["b.jpg", "d.jpg"]
    assert all(i["path"] in out for i in results["images"])
    assert not any("true_class" in image for image in results["images"])  # "pictures" is no class
    # The predictions are the same without the files that do not decode.
    (pictures / "b.jpg").unlink()
    (pictures / "d.jpg").unlink()
    assert run(*words[:2], "--crops=1")["images"] == results["images"]
    rows = list(csv.DictReader(io.StringIO((tmp_path / "o.csv").read_text())))
    assert [row["path"][-5:] for row in rows] == ["a.jpg", "c.jpg", "e.jpg", "b.jpg", "d.jpg"]
    assert [bool(row["error"]) for row in rows] == [False, False, False, True, True]
    for row, image in zip(rows, results["images"], strict=False):
        for k, p in enumerate(image["predictions"], 1):
            assert (row[f"class{k}"], row[f"name{k}"]) == (p["class"], p["name"])
            assert float(row[f"probability{k}"]) == pytest.approx(p["probability"], rel=1e-5)
        assert row["true_class"] == row["split"] == ""
    page = (tmp_path / "o.html").read_text()
    assert page.count("<details") == 3 and "Not predicted" in page and "d.jpg" in page
    assert page.count("First-layer filters") == page.count("How to read the explanations") == 1
    for name, value in (
        ("Date", time.strftime("%Y-")),
        ("Run", f"{runs / 'a' / 'step-00000004'}</dd>"),
        ("Classes", "3</dd>"),
        ("Command", "python main.py &#x27;--image=two words&#x27;</dd>"),
    ):
        assert f"<dt>{name}</dt><dd>{value}" in page
    assert ", 32 px</dd>" in page


def test_report_of_only_files_that_do_not_decode(runs, pictures, tmp_path):
    words = [f"--ckpt={runs / 'a'}", f"--image={pictures / 'b.jpg'}", "--explain"]
    with pytest.raises(DataError, match=r"1 of 1 image not predicted"):
        run(*words, f"--report={tmp_path / 'o.html'}")
    assert "Not predicted" in (tmp_path / "o.html").read_text()


def test_image_without_finite_logits_is_not_predicted(runs, pictures, tmp_path, monkeypatch):
    """A net that overflows on one image has an answer for the others only."""
    make_logits_fn = ensemble.make_logits_fn

    def make_overflowing(*arguments):
        compute = make_logits_fn(*arguments)

        def compute_and_overflow(views):
            is_first = tf.range(tf.shape(views)[0]) == 0
            return tf.where(is_first[:, None, None], np.inf, compute(views))

        return compute_and_overflow

    monkeypatch.setattr(ensemble, "make_logits_fn", make_overflowing)
    words = [f"--ckpt={runs / 'a'}", f"--image={pictures}/a.jpg,{pictures}/c.jpg", "--crops=1"]
    with pytest.raises(DataError, match=r"1 of 2 images not predicted: .*a\.jpg .*not finite"):
        run(*words, f"--json={tmp_path / 'o.json'}")
    results = json.loads((tmp_path / "o.json").read_text())
    assert [i["path"][-5:] for i in results["images"]] == ["c.jpg"]
    assert [i["path"][-5:] for i in results["bad"]] == ["a.jpg"]


def test_extreme_aspect_ratio_is_not_resized_as_a_whole(runs, tmp_path):
    """With its short side resized to 37 px, the whole image would have 2,960,000 columns."""
    cv2.imwrite(str(tmp_path / "strip.png"), np.tile(np.uint8([0, 90, 200]), (1, 80_000, 1)))
    cv2.imwrite(str(tmp_path / "patch.png"), np.tile(np.uint8([0, 90, 200]), (60, 60, 1)))
    words = [f"--ckpt={runs / 'a'}", "--seam_carving", f"--report={tmp_path / 'o.html'}"]
    patch, strip = run(*words, f"--image={tmp_path}")["images"]
    assert (patch["path"][-9:], strip["path"][-9:]) == ("patch.png", "strip.png")
    for one, other in zip(patch["predictions"], strip["predictions"], strict=True):
        assert one["class"] == other["class"]
        assert one["probability"] == pytest.approx(other["probability"], abs=1e-4)
    page = (tmp_path / "o.html").read_text()
    assert "80000" in page
    assert page.count("<h3>Seam carving") == 1  # no seam is removed from a square


def test_explain_folder_that_cannot_be_created_is_an_error(runs, tiny_folder):
    (runs / "b" / "explain").write_text("")
    with pytest.raises(UsageError, match=r"--explain: .*b/explain cannot be created"):
        run(f"--ckpt={runs / 'b'}", f"--image={tiny_folder / 'val'}", "--explain")


@pytest.mark.parametrize(("other", "message"), [("fewer", "'stripes'"), ("reordered", "order")])
def test_ensemble_of_different_classes_is_rejected(runs, tiny_folder, other, message):
    ckpt = f"--ckpt={runs / 'a'},{runs / other}"
    with pytest.raises(UsageError, match=rf"--ckpt=\S*{other}: .*{message}"):
        run(ckpt, f"--image={tiny_folder / 'val'}")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--ckpt={a}", "--image={jpg}", "--csv={a}"], "--csv=.*a folder"),
        (["--ckpt={a}", "--image={jpg}", "--report={a}/no/o.html"], "--report=.*no folder"),
        (["--ckpt={a},", "--image={jpg}"], "--ckpt is missing"),
        (["--ckpt={a},{a}/nowhere", "--image={jpg}"], "--ckpt=.*nowhere: there is no such"),
        (["--ckpt={a}", "--image={jpg}", "--image_size=20"], "--image_size=20"),
        (["--ckpt={a}", "--image="], "--image is missing"),
        (["--ckpt={a}", "--image={a}"], "the folder contains no image"),
    ],
)
def test_invalid_commands(runs, tiny_folder, words, message):
    places = {"a": runs / "a", "jpg": tiny_folder / "val" / "grid" / "00.jpg"}
    with pytest.raises(UsageError, match=message):
        run(*(word.format(**places) for word in words))


def test_explain_without_report_writes_figures(runs, tiny_folder):
    folder = tiny_folder / "val" / "grid"
    out = runs / "a2" / "o.json"
    words = [f"--ckpt={runs / 'a2'}", f"--image={folder}", "--crops=1", f"--json={out}"]
    results = run(*words, "--explain")
    assert json.loads(out.read_text()) == results
    paths = [image["figure"] for image in results["images"]]
    assert len(set(paths)) == 4 and all(str(runs / "a2") in path for path in paths)
    assert cv2.imread(paths[0]).shape[1] == 1120


def test_report_when_training_removes_the_checkpoint_during_prediction(
    make_run, pictures, tmp_path, monkeypatch
):
    """The float32 weights of the report are read before the prediction."""
    folder = make_run(tmp_path / "a")
    predict_images = ensemble.Ensemble.predict

    def predict_and_remove(nets, paths, keep_features=None):
        yield from predict_images(nets, paths, keep_features)
        shutil.rmtree(folder / "step-00000004")

    monkeypatch.setattr(ensemble.Ensemble, "predict", predict_and_remove)
    out = tmp_path / "o.html"
    run(f"--ckpt={folder}", f"--image={pictures / 'a.jpg'}", f"--report={out}", "--crops=1")
    assert out.read_text().count("<details") == 1


@pytest.mark.parametrize(
    ("error", "expected", "message"),
    [
        (
            tf.errors.ResourceExhaustedError,
            UsageError,
            "--report, --explain: out of memory; predict on a CPU",
        ),
        (tf.errors.NotFoundError, DataError, r"a\.jpg does not decode any longer"),
    ],
)
def test_errors_while_drawing(runs, pictures, monkeypatch, error, expected, message):
    def fail(*_):
        raise error(None, None, "reason")

    monkeypatch.setattr(explained_prediction, "explain_image", fail)
    with pytest.raises(expected, match=message):
        run(f"--ckpt={runs / 'a'}", f"--image={pictures / 'a.jpg'}", "--crops=1", "--explain")


def test_ensemble_of_a_fixed_size_net_and_one_with_an_image_size_schedule(
    make_run, pictures, tmp_path
):
    """The image sizes of one net's training do not apply to the others."""
    grown = make_run(tmp_path / "grown", image_size_schedule="0:32,1:40")
    sized = make_run(tmp_path / "sized", 2, model="alexnet", image_size=64)
    words = [f"--image={pictures / 'a.jpg'}", "--crops=1"]
    both = [run(f"--ckpt={a},{b}", *words) for a, b in ((grown, sized), (sized, grown))]
    top1 = [image["predictions"][0]["probability"] for b in both for image in b["images"]]
    assert top1[0] == pytest.approx(top1[1])


def test_path_with_parent_of_a_linked_folder(runs, pictures, tmp_path):
    """`link/..` is the parent of the link's target, as for the operating system."""
    (tmp_path / "far/album").mkdir(parents=True)
    shutil.copy(pictures / "a.jpg", tmp_path / "far/a.jpg")
    (tmp_path / "album").symlink_to(tmp_path / "far/album")
    results = run(f"--ckpt={runs / 'a'}", f"--image={tmp_path / 'album/../a.jpg'}", "--crops=1")
    assert len(results["images"]) == 1 and not results["bad"]


def test_show_draws_a_figure_for_a_notebook(runs, tiny_folder):
    """Uses two nets of different sizes, with eleven views each."""
    image = tiny_folder / "val" / "disc" / "01.jpg"
    figure = predict.show(f"{runs / 'a'},{runs / 'b'}", image, top_k=2)
    pixels = tf.io.decode_png(figure._repr_png_()).numpy()
    np.testing.assert_array_equal(pixels, figure.pixels)
    assert pixels.shape[0] > 2000 and pixels.shape[1:] == (1120, 3)
    with pytest.raises(UsageError, match="4 images"):
        predict.show(runs / "a", image.parent)


def test_number_of_drawn_images_is_limited(runs, tiny_folder, tmp_path, monkeypatch, caplog):
    """With true classes, the most confident mistakes are drawn, most confident first."""
    monkeypatch.setattr(drawn_images, "MAX_DRAWN_IMAGES", 2)
    words = [f"--ckpt={runs / 'a'}", f"--image={tiny_folder / 'val'}", "--crops=1"]
    out = tmp_path / "o.html"
    images = run(*words, f"--report={out}")["images"]
    top1 = [image["predictions"][0] for image in images]
    is_wrong = [top["class"] not in image["path"] for top, image in zip(top1, images, strict=True)]
    certainties = np.where(is_wrong, [top["probability"] for top in top1], -1)
    chosen = [*np.argsort(certainties)[:-3:-1]]
    assert chosen != sorted(chosen) and sum(is_wrong) > 2  # or else the test shows nothing
    page = out.read_text()
    drawn = re.findall(r"<p>(/[^,]*), \d+ × \d+ px</p>", page)
    assert drawn == [images[i]["path"] for i in chosen]
    which = f"the 2 most confident of {sum(is_wrong)} mistakes"
    assert "11 pictures predicted" in page and f"The page shows {which};" in page
    assert f"drawing {which}; 9 images not drawn" in caplog.text
    with_figure = [
        i for i, image in enumerate(run(*words, "--explain")["images"]) if "figure" in image
    ]
    assert with_figure == sorted(chosen)


@pytest.mark.parametrize(
    ("verdicts", "kept", "description"),
    [
        ("------", [0, 1, 2], "the first 3"),
        ("rrrrrr", [0, 1, 2], "the first 3"),
        ("rr-rwr", [4, 0, 1], "all mistakes (1) and the first 2 others"),
        ("rwrwrw", [1, 5, 3], "all mistakes (3)"),
        ("wwwwww", [2, 0, 4], "the 3 most confident of 6 mistakes"),
    ],
)
def test_choice_of_drawn_images(monkeypatch, verdicts, kept, description):
    """The slice of a batch is copied, since it would keep the batch in memory."""
    monkeypatch.setattr(drawn_images, "MAX_DRAWN_IMAGES", 3)
    batch, images = np.random.default_rng(0).normal(size=(6, 1, 1, 4)), []
    drawn = drawn_images.DrawnImages()
    for number, (verdict, certainty) in enumerate(zip(verdicts, (4, 3, 9, 1, 4, 2), strict=True)):
        images.append({"predictions": [{"class": "cat", "probability": certainty / 10}]})
        if verdict != "-":
            images[-1]["true_class"] = "cat" if verdict == "r" else "dog"
        drawn.add(number, images[-1], f"{number}.jpg", batch[number])
    chosen = drawn.in_order()
    assert [(number, path) for number, path, _ in chosen] == [(n, f"{n}.jpg") for n in kept]
    for number, _, logits in chosen:
        np.testing.assert_array_equal(logits, batch[number])
        assert logits.base is None
    assert drawn_images.describe(images, 3) == description


def test_summary_of_many_images_has_one_line_per_image(capsys):
    """If a table or a page has them, only their accuracy is printed."""
    predictions = [{"class": "n01440764", "name": "tench", "probability": 0.5}]
    images = [{"path": f"{i}.jpg", "predictions": predictions} for i in range(21)]
    outputs.summarize(images, has_files=False)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 22 and re.fullmatch(r"  20\.jpg\s+50\.00%  tench", lines[-1])
    outputs.summarize(images, has_files=True)
    assert capsys.readouterr().out == "21 images\n"
    for number, image in enumerate(images):
        image["true_class"] = "n01440764" if number % 3 else "n02102040"
    for has_files in (False, True):
        outputs.summarize(images, has_files)
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == (2 if has_files else 23)
        assert re.fullmatch(r"  top-1\s+14 of 21 right \(66\.7 %\)", lines[-1])


@pytest.mark.parametrize(("name", "advice"), [("a.HEIC", "; convert it to JPEG"), ("a.jpg", "")])
def test_pictures_of_other_formats_are_to_be_converted(tmp_path, name, advice):
    (tmp_path / name).write_bytes(b"\0\0\0\x18ftypheic")
    reason = views.describe_decode_error(str(tmp_path / name))
    assert reason.startswith("not a JPEG") and reason.partition(";")[1:] == (advice[:1], advice[1:])


def test_images_of_the_training_are_told(runs, tiny_folder, tmp_path, capsys):
    """Their accuracy flatters. A link to one is one, a copy elsewhere is not recognized."""
    link = tmp_path / "disc" / "link.jpg"
    link.parent.mkdir()
    link.symlink_to(tiny_folder / "train/disc/00.jpg")
    words = [f"--ckpt={runs / 'a'}", f"--image={tiny_folder},{link}", "--crops=1"]
    page = tmp_path / "o.html"
    images = run(*words, f"--report={page}", f"--csv={tmp_path}/o.csv")["images"]
    is_trained = ["/train/" in image["path"] or "link" in image["path"] for image in images]
    assert [image.get("split") == "train" for image in images] == is_trained
    assert (len(images), sum(is_trained)) == (23 + 11 + 5 + 1, 24)
    is_right = [i["predictions"][0]["class"] == i["true_class"] for i in images]
    others = [right for right, trained in zip(is_right, is_trained, strict=True) if not trained]
    text = f"; 24 training images among them, without them {sum(others)} of 16 right ("
    assert text in capsys.readouterr().out and text in page.read_text()
    table = list(csv.DictReader(io.StringIO((tmp_path / "o.csv").read_text())))
    assert [row["split"] for row in table] == ["train" if known else "" for known in is_trained]
    assert [row["true_class"] for row in table] == [image["true_class"] for image in images]


def test_top_classes_orders_ties_by_class_index():
    top = predict.top_classes(np.array([0.2, 0.4, 0.4]), ("a", "n01440764", "c"), 2)
    assert [p["class"] for p in top] == ["n01440764", "c"]
    assert top[0]["name"] == datasets.display_name("n01440764") == "tench"


class ClosedPipe(io.StringIO):
    def write(self, text):
        raise BrokenPipeError


def test_output_files_are_written_before_stdout_breaks(runs, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdout", ClosedPipe())
    (pictures / "b.jpg").unlink()
    (pictures / "d.jpg").unlink()
    files = [tmp_path / "p.csv", tmp_path / "p.json"]
    with pytest.raises(BrokenPipeError):
        words = [f"--ckpt={runs / 'a'}", f"--image={pictures}", "--crops=1"]
        run(*words, f"--csv={files[0]}", f"--json={files[1]}")
    assert len(files[0].read_text().splitlines()) == 4
    assert len(json.loads(files[1].read_text())["images"]) == 3


def test_figure_name_of_an_image_with_a_long_name(runs, pictures):
    long = pictures / ("n" * 245 + ".jpg")
    shutil.copy(pictures / "a.jpg", long)
    results = run(f"--ckpt={runs / 'a'}", f"--image={long}", "--explain", "--crops=1")
    assert re.search(r"explain/01-pictures-n+\.png$", results["images"][0]["figure"])
