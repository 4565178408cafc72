"""Tests the HTML report in a real browser: content, console, and that no script runs."""

import dataclasses
import re
import shutil

import numpy as np
import pytest

from loops.tools.predict import figure, html_report
from loops.tools.predict.explained_prediction import ExplainedPrediction, ModelExplanation, Panel

HOSTILE = "<script>document.title = 'run'</script>"
QUOTED = "\" onerror=\"document.title='run'\" x='&lt;"
SIZES = [(640, 427), *[(64, 64)] * 2, *[(224, 224)] * 3, (299, 224), (128, 128), (1, 1), (9, 9)]


def pixels(width, height):
    rng = np.random.default_rng(width)
    return rng.integers(0, 256, (height, width, 3)).astype(np.uint8)


def make_prediction():
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
    )


def make_page():
    results = {"models": [HOSTILE, "b"], "crops": 10, "seam_carving": True}
    results |= {"images": [{}], "bad": [{"path": QUOTED, "reason": HOSTILE}]}
    filters = [Panel(pixels(*SIZES[-1]), f"view {QUOTED}", HOSTILE)]
    articles = [html_report.render_article(make_prediction())]
    return html_report.render_page(articles, results, 3, filters)


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
    assert [tuple(size) for size in sizes] == [(*size, True) for size in SIZES]


def test_images_keep_their_aspect_ratio_and_fit_the_window(loaded):
    for width in (1200, 420):
        loaded.set_window_size(width, 900)
        ratios = loaded.execute_script(
            "return [...document.images].map(i => i.width * i.naturalHeight"
            " / (i.height * i.naturalWidth))"
        )
        assert ratios == pytest.approx([1.0] * len(SIZES), rel=0.03)
        overflow = "return document.documentElement.scrollWidth - window.innerWidth"
        assert loaded.execute_script(overflow) <= 0, width


def test_hostile_names_are_escaped(loaded):
    assert loaded.title == "1 picture predicted"
    count = "return document.querySelectorAll(arguments[0]).length"
    assert loaded.execute_script(count, "script, iframe, object, form") == 0
    assert loaded.execute_script(count, "[onerror], [onload], [onclick]") == 0
    text = loaded.find_element("tag name", "body").text
    assert text.count(HOSTILE) >= 6 and text.count(QUOTED) >= 4
    alts = loaded.execute_script("return [...document.images].map(i => i.alt)")
    assert alts[1:] == [f"view {QUOTED}"] * (len(SIZES) - 1)


def test_content_security_policy_blocks_scripts(browser, tmp_path):
    """Loads the page with an unescaped script in it."""
    path = tmp_path / "page.html"
    path.write_text(make_page().replace("</article>", f"{HOSTILE}</article>", 1), encoding="utf-8")
    browser.get(path.as_uri())
    assert browser.execute_script("return document.scripts.length") == 1
    assert browser.title == "1 picture predicted"
    assert "Content Security Policy" in browser.get_log("browser")[0]["message"]


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
    article = html_report.render_article(prediction)
    (picture,) = re.findall(r'<img [^>]*alt="the picture">', article)
    assert f' class="{css_class}" ' in picture
    assert not css_class or f"img.{css_class} " in make_page()
