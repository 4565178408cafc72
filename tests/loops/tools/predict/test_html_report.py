"""Tests the HTML report as parsed, and in a real browser: content, console, its only script."""

import collections
import dataclasses
import html.parser
import re
import shutil

import numpy as np
import pytest

from loops.tools.predict import figure, html_report
from loops.tools.predict.explained_prediction import ExplainedPrediction, ModelExplanation, Panel

HOSTILE = "<script>document.title = 'run'</script>"
QUOTED = "\" onerror=\"document.title='run'\" x='&lt;"
SIZES = [(640, 427), *[(64, 64)] * 2, *[(224, 224)] * 3, (299, 224), (128, 128), (1, 1), (900, 90)]
# Thumbnails and the legend, then the images of two predictions, then the filters.
PAGE_SIZES = [(112, 75)] * 2 + [(320, 14)] + SIZES[:-1] * 2 + SIZES[-1:]


def pixels(width, height):
    rng = np.random.default_rng(width)
    return rng.integers(0, 256, (height, width, 3)).astype(np.uint8)


def make_prediction(true_class=HOSTILE):
    """Returns a prediction by two nets. Its images are in the order of SIZES."""
    top = [{"class": HOSTILE, "name": HOSTILE, "probability": 0.9}]
    top += [{"class": "n1", "name": QUOTED, "probability": 1e-7}]
    panels = [Panel(pixels(*size), f"view {QUOTED}", HOSTILE) for size in SIZES[1:-1]]
    return ExplainedPrediction(
        path=f"/photos/{HOSTILE}{QUOTED}.jpg",
        picture=pixels(*SIZES[0]),
        size=(854, 1280),
        top=top,
        model_explanations=[
            ModelExplanation(HOSTILE, top, panels[:2], panels[2:4]),
            ModelExplanation(QUOTED, top, panels[4:5], []),
        ],
        carving=panels[5:],
        true_class=true_class,
    )


def make_page(predictions=(), omitted=0):
    """Returns a page, by default of two equal predictions, of which the first is right."""
    predictions = predictions or [make_prediction(), make_prediction(QUOTED)]
    images = [{"predictions": p.top, "true_class": p.true_class} for p in predictions]
    images = [{k: v for k, v in i.items() if v is not None} for i in images]
    results = {"images": images + images[:1] * omitted}
    results["bad"] = [{"path": QUOTED, "reason": HOSTILE}]
    filters = [Panel(pixels(*SIZES[-1]), f"view {QUOTED}", HOSTILE)]
    facts = [("Command", f"python main.py {QUOTED} {HOSTILE}")]
    return html_report.render_page(iter(predictions), len(predictions), results, facts, filters)


def make_ranked(certainties, verdicts):
    """Returns small predictions of these certainties that are right (r), wrong (w) or neither."""
    predictions = []
    for number, (certainty, verdict) in enumerate(zip(certainties, verdicts, strict=True)):
        predictions.append(
            ExplainedPrediction(
                path=f"/photos/cat/{number}.jpg",
                picture=pixels(40, 30),
                size=(30, 40),
                top=[{"class": "cat", "name": "cat", "probability": certainty}],
                model_explanations=[],
                carving=[],
                true_class={"r": "cat", "w": "dog", "-": None}[verdict],
            )
        )
    return predictions


class Page(html.parser.HTMLParser):
    """The elements of a page: (tag, attributes) of each, and the ids that links and rows name."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag  # elements are nested as HTML wants

    def find(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def test_index_names_each_picture_once():
    certainties, verdicts = [0.9, 0.25, 1.0, 0.7, 0.5], "rw-wr"
    page = Page(make_page(make_ranked(certainties, verdicts)))
    assert not page.open
    ids = collections.Counter(a["id"] for _, a in page.elements if "id" in a)
    assert set(ids.values()) == {1}
    rows = [a for a in page.find("tr") if "data-details" in a]
    assert [float(row["data-certainty"]) for row in rows] == certainties
    assert [row["data-verdict"] for row in rows] == ["right", "wrong", "", "wrong", "right"]
    assert [row["data-details"] for row in rows] == [d["id"] for d in page.find("details")]
    links = collections.Counter(a["href"] for a in page.find("a"))
    assert links == {f"#{row['data-details']}": 2 for row in rows}  # thumbnail and name
    # A thumbnail and a picture of each, then the legend and the filters.
    assert len(page.find("img")) == 2 * len(rows) + 2
    assert not any("open" in d for d in page.find("details"))  # five would be long


def test_page_without_true_classes_or_with_one_picture():
    page = make_page(make_ranked([0.9, 0.8], "--"), omitted=3)
    assert "True class" not in page and " right (" not in page
    assert "5 pictures predicted, 1 not predicted. The page shows the first 2" in page
    alone = make_page(make_ranked([0.9], "r"))
    assert "<table" not in alone and "1 of 1 right (100.0 %)" in alone
    assert alone.index("Not predicted") < alone.index("<details")
    assert "open" in Page(alone).find("details")[0]
    assert "Seam carving" not in alone and "Seam carving" in make_page()


@pytest.fixture(scope="module")
def browser():
    programs = (
        shutil.which("chromium") or shutil.which("google-chrome"),
        shutil.which("chromedriver"),
    )
    if not all(programs):
        pytest.skip("needs chromium and chromedriver: apt install chromium-driver")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for word in ("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run"):
        options.add_argument(f"--{word}")
    for word in ("background-networking", "component-update", "sync", "dev-shm-usage"):
        options.add_argument(f"--disable-{word}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(executable_path=programs[1])
    driver = webdriver.Chrome(options=options, service=service)
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def loaded(browser, tmp_path_factory):
    """The browser after loading the page."""
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(make_page(), encoding="utf-8")
    browser.get(path.as_uri())
    return browser


def test_page_logs_nothing_and_makes_no_request(loaded):
    assert loaded.get_log("browser") == []
    fetched = loaded.execute_script(
        "return performance.getEntriesByType('resource').map(entry => entry.name)"
    )
    assert [name for name in fetched if not name.startswith("data:")] == []


def test_all_images_are_loaded(loaded):
    sizes = loaded.execute_script(
        "return [...document.images].map(i => [i.naturalWidth, i.naturalHeight, i.complete])"
    )
    assert [tuple(size) for size in sizes] == [(*size, True) for size in PAGE_SIZES]


def test_images_keep_their_aspect_ratio_and_fit_the_window(loaded):
    for width in (1200, 420):
        loaded.set_window_size(width, 900)
        ratios = loaded.execute_script(
            "return [...document.images].map(i => i.width * i.naturalHeight"
            " / (i.height * i.naturalWidth))"
        )
        assert ratios == pytest.approx([1.0] * len(PAGE_SIZES), rel=0.03)
        overflow = "return document.documentElement.scrollWidth - window.innerWidth"
        assert loaded.execute_script(overflow) <= 0, width


def test_hostile_names_are_escaped(loaded):
    assert loaded.title == "Predictions"
    count = "return document.querySelectorAll(arguments[0]).length"
    assert loaded.execute_script(count, "script") == 1
    assert loaded.execute_script(count, "iframe, object, form") == 0
    assert loaded.execute_script(count, "[onerror], [onload], [onclick]") == 0
    text = loaded.find_element("tag name", "body").text
    assert text.count(HOSTILE) >= 6 and text.count(QUOTED) >= 4
    alts = loaded.execute_script("return [...document.images].map(i => i.alt)")
    assert alts.count(f"view {QUOTED}") == 2 * (len(SIZES) - 2) + 1


def test_content_security_policy_blocks_other_scripts(browser, tmp_path):
    """Loads the page with an unescaped script in it."""
    path = tmp_path / "page.html"
    path.write_text(make_page().replace("</details>", f"{HOSTILE}</details>", 1), encoding="utf-8")
    browser.get(path.as_uri())
    assert browser.execute_script("return document.scripts.length") == 2
    assert browser.title == "Predictions"
    assert browser.find_element("id", "shown").text == "2 of 2 shown"  # by its own script
    assert "Content Security Policy" in browser.get_log("browser")[0]["message"]


def test_index_is_sorted_and_filtered(browser, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(make_page(make_ranked([0.9, 0.25, 1.0, 0.7, 0.5], "rw-wr")), encoding="utf-8")
    browser.get(path.as_uri())

    def choose(**values):
        """Returns the numbers of the pictures that the index and the details show, in order."""
        for name, value in values.items():
            browser.execute_script(
                "const select = document.getElementById(arguments[0]);"
                "select.value = arguments[1];"
                "select.dispatchEvent(new Event('change', {bubbles: true}));",
                name,
                value,
            )
        index, details = (
            browser.execute_script(
                "return [...document.querySelectorAll(arguments[0])]"
                ".filter(e => e.checkVisibility()).map(e => e.innerText)",
                selector,
            )
            for selector in ("tbody tr td:nth-child(2)", "summary h2")
        )
        shown = [[re.search(r"(\d)\.jpg", text)[1] for text in texts] for texts in (index, details)]
        assert shown[0] == shown[1]
        return "".join(shown[0])

    assert choose() == "31204"  # wrong first
    assert choose(order="given") == "01234"
    assert choose(order="least") == "14302"
    assert choose(order="most") == "20341"
    assert choose(order="wrong") == "31204"
    assert choose(verdict="wrong") == "31"
    assert choose(verdict="right", order="given") == "04"
    assert choose(verdict="", certainty="0.5 0.9") == "34"
    assert choose(certainty="0.9 2") == "02"
    browser.find_element("css selector", "tbody tr:not([hidden]) a").click()
    assert browser.execute_script("return document.querySelector('details[open]').id") == (
        "picture-1"
    )


def test_bar_lengths_are_proportional_to_probabilities(browser, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(make_page(), encoding="utf-8")
    browser.get(path.as_uri())
    fractions = browser.execute_script(
        "const width = element => element.getBoundingClientRect().width;"
        "const bars = [...document.querySelectorAll('.bars i i')];"
        "return bars.map(bar => width(bar) / width(bar.parentElement));"
    )
    assert fractions[:2] == pytest.approx([0.9, 0.0], abs=0.005)


def test_figure_accepts_any_size_and_text():
    drawn = figure.draw(make_prediction())
    assert drawn.pixels.dtype == np.uint8 and drawn.pixels.shape[1] == 1120
    assert drawn.png()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("size", "css_class"), [((100, 50), "wide"), ((50, 100), "tall"), ((300, 200), "")]
)
def test_small_pictures_are_enlarged_by_the_style_sheet(size, css_class):
    prediction = dataclasses.replace(make_prediction(), picture=pixels(*size))
    article = html_report.render_article(prediction, "picture-1", is_open=True)
    (picture,) = re.findall(r'<img [^>]*alt="the picture">', article)
    assert f' class="{css_class}" ' in picture
    assert not css_class or f"img.{css_class} " in make_page()
