"""Prediction of files and folders, against the evaluation's own figures and one net at a time."""

import csv
import io
import json
import re
import shutil

import cv2
import numpy as np
import pytest
import tensorflow as tf

import flags
from input_pipeline import datasets
from input_pipeline.errors import DataError, UsageError
from loops import evaluate
from loops.tools.predict import ensemble, explained_prediction, outputs, predict, views

pytestmark = pytest.mark.usefixtures("tiny_net")


@pytest.fixture(scope="module")
def runs(make_run, tiny_folder, tmp_path_factory):
    """Run folders by name: nets that differ in weights, in preprocessing, in classes."""
    root = tmp_path_factory.mktemp("runs")
    make_run(root / "a", 1, data_dir=str(tiny_folder))
    make_run(root / "b", 2, image_size=40, interpolation="bicubic", crop_fraction=0.8)
    make_run(root / "a2", 3, data_dir=str(tiny_folder))
    make_run(root / "fewer", 4, ("disc", "grid"))
    make_run(root / "reordered", 5, ("grid", "disc", "stripes"))
    return root


@pytest.fixture
def pictures(tiny_folder, tmp_path):
    """A folder of three pictures and, between them in order, two files that are none."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, label in (("a.jpg", "disc"), ("c.jpg", "grid"), ("e.jpg", "stripes")):
        shutil.copy(tiny_folder / "val" / label / "00.jpg", folder / name)
    (folder / "b.jpg").write_bytes(b"no picture")
    (folder / "d.jpg").write_bytes((folder / "a.jpg").read_bytes()[:300])
    return folder


def run(*words):
    return predict.run(flags.parse(["main.py", "--mode=predict", *map(str, words)]))


def shares(image):
    """Probability by class name."""
    return {p["class"]: p["probability"] for p in image["predictions"]}


def test_folder_scores_as_evaluation_does(runs, tiny_folder, tmp_path):
    words = ["t", "--mode=eval", f"--ckpt={runs / 'a'}", "--crops=1"]
    expected = evaluate.run(flags.parse(words))
    out = tmp_path / "out.json"
    found = run(
        f"--ckpt={runs / 'a'}", f"--image={tiny_folder / 'val'}", "--crops=1", f"--json={out}"
    )
    assert json.loads(out.read_text()) == found
    assert len(found["images"]) == expected["num_examples"] == 11
    right = [f"/{image['predictions'][0]['class']}/" in image["path"] for image in found["images"]]
    assert np.mean(right) == pytest.approx(expected["top1"])
    labels = [re.search(r"/val/(\w+)/", image["path"])[1] for image in found["images"]]
    of_label = [shares(i)[label] for i, label in zip(found["images"], labels, strict=True)]
    assert -np.log(of_label).mean() == pytest.approx(expected["nll"], rel=1e-4)
    for image in found["images"]:
        assert sum(shares(image).values()) == pytest.approx(1.0)
        assert list(shares(image).values()) == sorted(shares(image).values(), reverse=True)


def test_nets_are_averaged(runs, tiny_folder):
    """Each with its own size, interpolation and crop; the batches are of an odd size."""
    image = f"--image={tiny_folder / 'val'}"
    words = [image, "--eval_batch_size=4"]
    alone = [run(f"--ckpt={runs / name}", *words) for name in ("a", "b", "a2")]
    together = run(f"--ckpt={','.join(str(runs / name) for name in ('a', 'b', 'a2'))}", *words)
    assert [m.split("/")[-2] for m in together["models"]] == ["a", "b", "a2"]
    for number, found in enumerate(together["images"]):
        of_each = [shares(result["images"][number]) for result in alone]
        assert np.ptp([list(sorted(s.values())) for s in of_each], axis=0).max() > 0.01
        for name, probability in shares(found).items():
            assert probability == pytest.approx(np.mean([s[name] for s in of_each]), abs=1e-5)


def test_seam_carving_is_the_eleventh_view(runs, tiny_folder):
    path = str(tiny_folder / "val" / "grid" / "00.jpg")
    ten = shares(run(f"--ckpt={runs / 'a'}", f"--image={path}")["images"][0])
    eleven = run(f"--ckpt={runs / 'a'}", f"--image={path}", "--seam_carving")
    assert eleven["seam_carving"] is True
    image = views.decode_file(path)
    sight = views.Preprocessing(32, 0.875, "bilinear", 1, True)
    _, carved = views.preprocess_image(image, sight)
    # The carved picture, as a file of the size at which a centre crop takes all of it.
    words = [f"--ckpt={runs / 'a'}", "--crops=1", "--crop_fraction=1"]
    file = tiny_folder.parent / "carved.png"
    cv2.imwrite(str(file), carved.numpy()[..., ::-1])
    alone = shares(run(*words, f"--image={file}")["images"][0])
    for name, probability in shares(eleven["images"][0]).items():
        assert probability == pytest.approx((10 * ten[name] + alone[name]) / 11, abs=1e-5)


def test_bad_files_are_listed_and_the_others_predicted(runs, pictures, tmp_path, capsys):
    words = [f"--ckpt={runs / 'a'}", f"--image={pictures}", f"--json={tmp_path / 'o.json'}"]
    words += [f"--csv={tmp_path / 'o.csv'}", f"--report={tmp_path / 'o.html'}", "--crops=1"]
    with pytest.raises(DataError, match=r"2 of 5 images.*b\.jpg.*d\.jpg"):
        run(*words)
    out = capsys.readouterr().out
    found = json.loads((tmp_path / "o.json").read_text())
    assert [i["path"][-5:] for i in found["images"]] == ["a.jpg", "c.jpg", "e.jpg"]
    assert [i["path"][-5:] for i in found["bad"]] == ["b.jpg", "d.jpg"]
    assert all(i["path"] in out for i in found["images"])
    # The good files get the answer that they get without the bad ones beside them.
    (pictures / "b.jpg").unlink()
    (pictures / "d.jpg").unlink()
    assert run(*words[:2], "--crops=1")["images"] == found["images"]
    rows = list(csv.DictReader(io.StringIO((tmp_path / "o.csv").read_text())))
    assert [row["path"][-5:] for row in rows] == ["a.jpg", "c.jpg", "e.jpg", "b.jpg", "d.jpg"]
    assert [bool(row["error"]) for row in rows] == [False, False, False, True, True]
    for row, image in zip(rows, found["images"], strict=False):
        for k, p in enumerate(image["predictions"], 1):
            assert (row[f"class{k}"], row[f"name{k}"]) == (p["class"], p["name"])
            assert float(row[f"probability{k}"]) == p["probability"]
    page = (tmp_path / "o.html").read_text()
    assert page.count("<article") == 4 and "Not decoded" in page and "d.jpg" in page


def test_only_bad_files(runs, pictures, tmp_path):
    words = [f"--ckpt={runs / 'a'}", f"--image={pictures / 'b.jpg'}", "--explain"]
    with pytest.raises(DataError, match=r"1 of 1 image not decoded"):
        run(*words, f"--report={tmp_path / 'o.html'}")
    assert "Not decoded" in (tmp_path / "o.html").read_text()


def test_a_strip_is_predicted_as_eval_sees_it(runs, tmp_path):
    """Its short side at 37 px, the whole of it would be 37 x 2,960,000."""
    cv2.imwrite(str(tmp_path / "strip.png"), np.tile(np.uint8([0, 90, 200]), (1, 80_000, 1)))
    cv2.imwrite(str(tmp_path / "patch.png"), np.tile(np.uint8([0, 90, 200]), (60, 60, 1)))
    words = [f"--ckpt={runs / 'a'}", "--seam_carving", f"--report={tmp_path / 'o.html'}"]
    patch, strip = run(*words, f"--image={tmp_path}")["images"]
    assert (patch["path"][-9:], strip["path"][-9:]) == ("patch.png", "strip.png")
    for one, other in zip(patch["predictions"], strip["predictions"], strict=True):
        assert one["class"] == other["class"]
        assert one["probability"] == pytest.approx(other["probability"], abs=1e-4)
    assert "80000" in (tmp_path / "o.html").read_text()


def test_figures_that_have_no_place(runs, tiny_folder):
    (runs / "b" / "explain").write_text("")
    with pytest.raises(UsageError, match=r"--explain: .*b/explain cannot be made"):
        run(f"--ckpt={runs / 'b'}", f"--image={tiny_folder / 'val'}", "--explain")


@pytest.mark.parametrize(("other", "words"), [("fewer", "'stripes'"), ("reordered", "order")])
def test_other_classes_are_refused(runs, tiny_folder, other, words):
    ckpt = f"--ckpt={runs / 'a'},{runs / other}"
    with pytest.raises(UsageError, match=rf"--ckpt=\S*{other}: .*{words}"):
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
        (["--ckpt={a}", "--image={a}"], "no image in this folder"),
    ],
)
def test_wrong_commands(runs, tiny_folder, words, message):
    places = {"a": runs / "a", "jpg": tiny_folder / "val" / "grid" / "00.jpg"}
    with pytest.raises(UsageError, match=message):
        run(*(word.format(**places) for word in words))


def test_explain_without_a_page_writes_figures(runs, tiny_folder):
    folder = tiny_folder / "val" / "grid"
    out = runs / "a2" / "o.json"
    words = [f"--ckpt={runs / 'a2'}", f"--image={folder}", "--crops=1", f"--json={out}"]
    found = run(*words, "--explain")
    assert json.loads(out.read_text()) == found
    paths = [image["figure"] for image in found["images"]]
    assert len(set(paths)) == 4 and all(str(runs / "a2") in path for path in paths)
    assert cv2.imread(paths[0]).shape[1] == 1120


def test_a_checkpoint_that_training_removes_while_pictures_are_predicted(
    make_run, pictures, tmp_path, monkeypatch
):
    """The page's own float32 weights have been read by then."""
    folder = make_run(tmp_path / "a")
    predicted = ensemble.Ensemble.predict

    def pruned(nets, paths):
        yield from predicted(nets, paths)
        shutil.rmtree(folder / "step-00000004")

    monkeypatch.setattr(ensemble.Ensemble, "predict", pruned)
    out = tmp_path / "o.html"
    run(f"--ckpt={folder}", f"--image={pictures / 'a.jpg'}", f"--report={out}", "--crops=1")
    assert out.read_text().count("<article") == 1


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (tf.errors.ResourceExhaustedError, UsageError, "out of memory while drawing"),
        (tf.errors.NotFoundError, DataError, r"a\.jpg does not decode any more"),
    ],
)
def test_what_hinders_the_drawing_is_one_line(runs, pictures, monkeypatch, error, kind, said):
    def fails(*_):
        raise error(None, None, "so it is")

    monkeypatch.setattr(explained_prediction, "explain_image", fails)
    with pytest.raises(kind, match=said):
        run(f"--ckpt={runs / 'a'}", f"--image={pictures / 'a.jpg'}", "--crops=1", "--explain")


def test_nets_of_one_size_beside_one_that_grew(make_run, pictures, tmp_path):
    """The sizes that a member was trained at bind no other member."""
    grown = make_run(tmp_path / "grown", image_size_schedule="0:32,1:40")
    sized = make_run(tmp_path / "sized", 2, model="alexnet", image_size=64)
    words = [f"--image={pictures / 'a.jpg'}", "--crops=1"]
    both = [run(f"--ckpt={a},{b}", *words) for a, b in ((grown, sized), (sized, grown))]
    shares = [image["predictions"][0]["probability"] for b in both for image in b["images"]]
    assert shares[0] == pytest.approx(shares[1])


def test_a_path_back_from_a_linked_folder(runs, pictures, tmp_path):
    """Where the link leads, as for every other program."""
    (tmp_path / "far/album").mkdir(parents=True)
    shutil.copy(pictures / "a.jpg", tmp_path / "far/a.jpg")
    (tmp_path / "album").symlink_to(tmp_path / "far/album")
    found = run(f"--ckpt={runs / 'a'}", f"--image={tmp_path / 'album/../a.jpg'}", "--crops=1")
    assert len(found["images"]) == 1 and not found["bad"]


def test_shown_in_a_notebook(runs, tiny_folder):
    """Two nets of different sizes, eleven views each; the answer is that of the command."""
    image = tiny_folder / "val" / "disc" / "01.jpg"
    figure = predict.show(f"{runs / 'a'},{runs / 'b'}", image, top_k=2)
    pixels = tf.io.decode_png(figure._repr_png_()).numpy()
    np.testing.assert_array_equal(pixels, figure.pixels)
    assert pixels.shape[0] > 2000 and pixels.shape[1:] == (1120, 3)
    with pytest.raises(UsageError, match="4 images"):
        predict.show(runs / "a", image.parent)


def test_most_drawn(runs, tiny_folder, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(predict, "MAX_DRAWN_IMAGES", 2)
    out = tmp_path / "o.html"
    run(f"--ckpt={runs / 'a'}", f"--image={tiny_folder / 'val'}", f"--report={out}", "--crops=1")
    assert out.read_text().count("<article") == 2
    assert "9 more pictures" in out.read_text() and "9 are not" in caplog.text


def test_many_images_get_a_line_each(capsys):
    found = [{"class": "n01440764", "name": "tench", "probability": 0.5}]
    outputs.summarize([{"path": f"{i}.jpg", "predictions": found} for i in range(21)])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 22 and re.fullmatch(r"  20\.jpg\s+50\.00%  tench", lines[-1])


def test_top_classes_prefers_the_lower_of_equals():
    found = predict.top_classes(np.array([0.2, 0.4, 0.4]), ("a", "n01440764", "c"), 2)
    assert [p["class"] for p in found] == ["n01440764", "c"]
    assert found[0]["name"] == datasets.display_name("n01440764") == "tench"


def test_nobody_reads_what_is_said_but_the_files_are_there(runs, pictures, tmp_path, monkeypatch):
    def closed(*_):
        raise BrokenPipeError

    monkeypatch.setattr(outputs.console, "print_summary", closed)
    (pictures / "b.jpg").unlink()
    (pictures / "d.jpg").unlink()
    files = [tmp_path / "p.csv", tmp_path / "p.json"]
    with pytest.raises(BrokenPipeError):
        words = [f"--ckpt={runs / 'a'}", f"--image={pictures}", "--crops=1"]
        run(*words, f"--csv={files[0]}", f"--json={files[1]}")
    assert len(files[0].read_text().splitlines()) == 4
    assert len(json.loads(files[1].read_text())["images"]) == 3


def test_a_figure_of_a_picture_with_a_long_name(runs, pictures):
    long = pictures / ("n" * 245 + ".jpg")
    shutil.copy(pictures / "a.jpg", long)
    found = run(f"--ckpt={runs / 'a'}", f"--image={long}", "--explain", "--crops=1")
    assert re.search(r"explain/01-pictures-n+\.png$", found["images"][0]["figure"])
