"""Metrics of `--metrics`: values against scikit-learn, intervals, and what functions may return."""

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from loops.config.choices import METRICS
from loops.metrics import confidence_intervals, metrics
from tests.command_line import parse, refusal

RNG = np.random.default_rng(3)


def predictions(images=60, classes=5):
    """Returns probabilities and labels; the labels lack the last class."""
    probs = RNG.dirichlet(np.ones(classes), images)
    return probs, RNG.integers(0, classes - 1, images)


@pytest.mark.parametrize(
    ("name", "oracle"),
    [
        ("macro_precision", sklearn_metrics.precision_score),
        ("macro_recall", sklearn_metrics.recall_score),
        ("macro_f1", sklearn_metrics.f1_score),
    ],
)
@pytest.mark.parametrize("classes", [3, 5, 40])
def test_macro_averages_equal_scikit_learn(name, oracle, classes):
    probs, labels = predictions(classes=classes)
    expected = oracle(labels, probs.argmax(axis=1), average="macro", zero_division=0)
    assert metrics.compute(name, probs, labels) == pytest.approx(expected, rel=1e-12)


@pytest.mark.filterwarnings("ignore:y_pred contains classes")
def test_balanced_accuracy_equals_scikit_learn():
    probs, labels = predictions()
    expected = sklearn_metrics.balanced_accuracy_score(labels, probs.argmax(axis=1))
    assert metrics.compute("balanced_accuracy", probs, labels) == pytest.approx(expected)


def test_images_without_a_prediction_count_as_wrong():
    probs, labels = predictions()
    probs[::2] = 0.0
    labels[::2] = 0  # argmax of zeros
    right = np.bincount(labels[1::2][probs[1::2].argmax(axis=1) == labels[1::2]], minlength=4)
    expected = (right / np.bincount(labels, minlength=4)).mean()
    assert metrics.compute("balanced_accuracy", probs, labels) == pytest.approx(expected)


@pytest.fixture
def register(tmp_path, monkeypatch):
    """Returns a function that writes a metric into a file and returns its name."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))

    def write(decorator, result, name="f"):
        path = tmp_path / "own.py"
        path.write_text(
            "import numpy as np\nfrom loops.metrics import metrics\n"
            f"@metrics.{decorator}\ndef {name}(probs, labels): return {result}\n"
        )
        return parse(f"--metrics={path}:{name}").evaluation.metrics

    return write


def test_the_interval_is_that_of_the_means(register):
    """A metric of all predictions that is a mean has the interval of this mean."""
    probs, labels = predictions()
    name = register("metric", "probs[range(len(labels)), labels].mean()")
    values = probs[np.arange(60), labels]
    ((low, high),) = confidence_intervals.bootstrap_mean_intervals(values[None])
    results = metrics.evaluate([name], probs, labels)
    assert results == pytest.approx({"f": values.mean(), "f_low": low, "f_high": high})
    name = register("per_image", "probs[range(len(labels)), labels]")
    assert metrics.evaluate([name], probs, labels) == pytest.approx(results)


def test_a_value_that_is_not_finite_is_left_out(register, caplog):
    assert metrics.evaluate([register("metric", "np.nan")], *predictions()) == {}
    assert "own.py:f is nan" in caplog.text


@pytest.mark.parametrize(
    ("decorator", "result", "words"),
    [
        ("metric", "probs", "must return one number"),
        ("metric", "'a'", "must return one number"),
        ("per_image", "1.0", "a number for each of 60 images"),
        ("per_image", "labels[1:]", "a number for each of 60 images"),
    ],
)
def test_a_function_that_returns_something_else(register, decorator, result, words):
    message = refusal(metrics.compute, register(decorator, result), *predictions())
    assert message.startswith("own.py:f: the metric returned") and words in message


def test_names(register):
    assert metrics.parse("") == ()
    assert metrics.parse("nll,macro_f1,macro_f1") == ("macro_f1",)
    clash = f"macro_f1,{register('metric', '1', 'macro_f1')}"
    assert "another metric is called macro_f1" in refusal(metrics.parse, clash)
    assert "another metric is called ece" in refusal(metrics.parse, register("metric", "1", "ece"))
    message = refusal(parse, "--metrics=macro_f1,makro_recall")
    assert "--metrics=makro_recall: unknown value; did you mean macro_recall or" in message
    assert {*METRICS.names()} > {*metrics.STANDARD}
