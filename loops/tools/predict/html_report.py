"""Renders explained predictions as one self-contained HTML page.

The page makes no request, and all text is escaped. Its content security policy allows only its
own script, by its hash. This is a second line of defense if unescaped text got in. Without
scripts, the page shows everything in the order of the images.
"""

import base64
import hashlib
import html
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from input_pipeline import datasets
from input_pipeline.text import pluralize
from loops.tools.predict import drawn_images, image_paths, overlays, training_images
from loops.tools.predict.explained_prediction import (
    ClassProbability,
    ExplainedPrediction,
    Panel,
    shrink_to_fit,
)

_THUMBNAIL_SIDE = 112  # twice its side on the page, for screens of high resolution
_LARGE_HEIGHT = 256  # of heat maps, in pixels
_MAX_OPEN = 3  # of more images, the details are closed until one is chosen
_STYLE = """
:root { color-scheme: light dark; --paper: #f6f7f9; --card: #fff; --ink: #181b1f;
  --quiet: #626973; --line: #e3e6ea; --rail: #e9ecf0; --bar: #2563be;
  --good: #1a7f37; --bad: #b42318; }
@media (prefers-color-scheme: dark) { :root { --paper: #14161a; --card: #1c1f25; --ink: #e8eaed;
  --quiet: #9aa3ae; --line: #2c313a; --rail: #2a2f38; --bar: #6ea3ff;
  --good: #6bd08a; --bad: #ff8a7a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1120px; padding: 32px 20px 64px; background: var(--paper);
  color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 26px; margin: 0 0 4px; }
h2 { font-size: 20px; margin: 0 0 12px; overflow-wrap: anywhere; }
h3 { font-size: 15px; margin: 28px 0 10px; overflow-wrap: anywhere; }
h2 small, h3 small { font-weight: 400; color: var(--quiet); font-size: 13px; margin-left: 8px; }
p, li { color: var(--quiet); margin: 0; overflow-wrap: anywhere; }
a { color: inherit; }
article, section, details { background: var(--card); border: 1px solid var(--line);
  border-radius: 12px; padding: 24px; margin-top: 24px; }
.front { display: flex; flex-wrap: wrap; gap: 28px; }
.front > ol { flex: 1 1 300px; min-width: 0; }
.front > img { width: auto; height: auto; max-width: min(100%, 480px); max-height: 420px;
  align-self: flex-start; border-radius: 8px; }
.front > img.wide { width: 240px; }
.front > img.tall { height: 240px; }
ol { list-style: none; margin: 0; padding: 0; }
.bars li { color: var(--ink); display: grid; grid-template-columns: minmax(0, 1fr) auto;
  column-gap: 12px; margin-bottom: 12px; }
.bars small { color: var(--quiet); }
.bars b { font-variant-numeric: tabular-nums; }
.bars i { grid-column: 1 / 3; height: 8px; border-radius: 4px; background: var(--rail);
  overflow: hidden; }
.bars i i { display: block; background: var(--bar); border-radius: 0; }
.panels { display: grid; grid-template-columns: repeat(5, minmax(0, 1fr)); gap: 18px 16px; }
.panels.large { display: flex; flex-wrap: wrap; }
figure { margin: 0; }
figure img { width: 100%; height: auto; border-radius: 6px; display: block; }
.large figure { width: min-content; min-width: 224px; max-width: 100%; }
.large img { max-width: 100%; }
@media (max-width: 700px) { .panels { grid-template-columns: repeat(2, minmax(0, 1fr)); } }
.tiny img { image-rendering: pixelated; }
figcaption { font-size: 13px; line-height: 1.35; margin-top: 6px; }
figcaption span { display: block; color: var(--quiet); overflow-wrap: anywhere; }
.bad h2, .bad b, .wrong { color: var(--bad); }
.bad ol { max-height: 240px; overflow-y: auto; }
.right { color: var(--good); }
.right, .wrong { font-weight: 600; }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: 2px 16px;
  margin: 12px 0 0; font-size: 13px; }
dt { color: var(--quiet); }
dd { margin: 0; overflow-wrap: anywhere; }
details { padding: 14px 24px; margin-top: 8px; }
details[open] { padding-bottom: 24px; }
summary { cursor: pointer; }
summary h2 { display: inline; font-size: 16px; }
details p { margin: 4px 0 16px; }
#controls { display: flex; flex-wrap: wrap; gap: 8px 20px; margin-bottom: 12px; }
#controls[hidden] { display: none; }
select { font: inherit; color: inherit; background: var(--rail); border: 1px solid var(--line);
  border-radius: 6px; padding: 2px 6px; }
table { width: 100%; border-collapse: collapse; }
th { text-align: left; font-size: 13px; font-weight: 400; color: var(--quiet); }
th, td { padding: 4px 12px 4px 0; border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
td img { display: block; width: auto; height: auto; max-width: 56px; max-height: 56px;
  border-radius: 4px; }
td:first-child { width: 68px; }
th:nth-child(4) { text-align: right; padding-right: 32px; }
.percent { white-space: nowrap; text-align: right; padding-right: 32px;
  font-variant-numeric: tabular-nums; }
@media (max-width: 700px) { article, section, details { padding: 14px; }
  thead { display: none; } tr { display: grid; padding: 6px 0; column-gap: 12px;
  grid-template-columns: 56px minmax(0, 1fr) auto; border-bottom: 1px solid var(--line); }
  tr[hidden] { display: none; } td { border: 0; padding: 0; grid-column: 2; }
  td:first-child { width: auto; grid-column: 1; grid-row: 1 / 5; }
  td:nth-child(2) { grid-column: 2 / 4; } summary small { display: block; margin: 0; }
  td.percent, td.true + td { grid-column: 3; grid-row: 2; text-align: right; padding: 0; }
  td.true + td { grid-row: 3; } td.true::before { content: "true: "; } }
section p + p { margin-top: 8px; }
.legend img { height: 14px; margin-bottom: 4px; }
.legend { max-width: 320px; margin: 12px 0; }
.legend figcaption { display: flex; justify-content: space-between; color: var(--quiet); }
"""
# Sorting and filtering of the index and of the details. A link in the index opens the details.
_SCRIPT = """
const rows = [...document.querySelectorAll('#index tbody tr')];
const keys = {
  given: row => 0,
  least: row => Number(row.dataset.certainty),
  most: row => -row.dataset.certainty,
  wrong: row => (row.dataset.verdict === 'wrong' ? -2 : 0) - row.dataset.certainty,
};
function value(id) { return document.getElementById(id)?.value ?? ''; }
function details(row) { return document.getElementById(row.dataset.details); }
function update() {
  const key = keys[value('order')], [low, high] = value('certainty').split(' ').map(Number);
  const verdict = value('verdict');
  let shown = 0;
  for (const row of [...rows].sort((a, b) => key(a) - key(b))) {
    const certainty = Number(row.dataset.certainty);
    const visible = low <= certainty && certainty < high
      && (!verdict || row.dataset.verdict === verdict);
    shown += visible;
    for (const element of [row, details(row)]) {
      element.hidden = !visible;
      element.parentNode.append(element);
    }
  }
  document.getElementById('shown').value = `${shown} of ${rows.length} shown`;
}
function reveal(id) {
  const element = document.getElementById(id);
  if (element?.tagName === 'DETAILS') element.open = true;
}
const controls = document.getElementById('controls');
if (controls) {
  controls.hidden = false;
  controls.addEventListener('change', update);
  update();
}
document.addEventListener('click', event => reveal(event.target.closest('a')?.hash.slice(1)));
reveal(location.hash.slice(1));
"""
_LEGEND = """<p><b>Grad-CAM</b> (Selvaraju et al. 2017) asks where the evidence for the class is.
It weights the channels of one of the net's last feature maps by how much the score of the class
rises with them, and adds them up. The map is coarse, because the feature map is.</p>
<p><b>Occlusion</b> (Zeiler &amp; Fergus 2014) hides one place after another under a patch in the
mean color, a quarter of the view wide. Bright places are those without which the probability of
the class falls most.</p>
<p>Each map has its own scale: compare places within a map, not the brightness of two maps.</p>"""


def render_page(
    predictions: Iterable[ExplainedPrediction],
    count: int,
    results: Mapping[str, Any],
    facts: Sequence[tuple[str, str]],
    filters: Sequence[Panel] = (),
) -> str:
    """Returns the HTML of the whole page.

    Args:
      predictions: the images to show. Each is rendered before the next one is made.
      count: their number.
      results: the JSON results of the prediction.
      facts: (name, value) of what a reader may ask about the prediction, such as the net.
      filters: the filters of each net's first convolution.
    """
    has_true_classes = any("true_class" in image for image in results["images"])
    rows, articles = [], []
    for number, prediction in enumerate(predictions, 1):
        rows.append(_render_row(prediction, f"picture-{number}", has_true_classes))
        articles.append(render_article(prediction, f"picture-{number}", count <= _MAX_OPEN))
    parts = [
        f"<header><h1>Predictions</h1>\n<p>{_summarize(results, count)}</p>",
        _render_facts(facts),
        "</header>",
        _render_failures(results["bad"]),
        _render_index(rows, has_true_classes),
        _render_legend() if articles else "",
        "<main>",
        *articles,
        "</main>",
        _render_filters(filters),
    ]
    return render_document("Predictions", parts, _SCRIPT)


def render_document(title: str, parts: Sequence[str], script: str = "") -> str:
    """Returns the HTML of a page with this title; the parts are its body."""
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    if script:
        digest = hashlib.sha256(script.encode()).digest()
        policy += f"; script-src 'sha256-{base64.b64encode(digest).decode()}'"
        parts = [*parts, f"<script>{script}</script>"]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<link rel="icon" href="data:,">\n<title>{title}</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n" + "\n".join(parts) + "\n</body>\n</html>\n"
    )


def _summarize(results: Mapping[str, Any], count: int) -> str:
    """Returns how many images were predicted, how many of them right, and how many are shown."""
    images = results["images"]
    accuracy = training_images.describe_accuracy(images)
    text = f"{pluralize(len(images), 'picture')} predicted"
    text += f", {accuracy}" if accuracy else ""
    if results["bad"]:
        text += f", {len(results['bad'])} not predicted"
    text += ". The true class is the name of the folder." if accuracy else "."
    if count < len(images):
        text += f" The page shows {drawn_images.describe(images, count)}; --csv=FILE lists all."
    return text


def _render_facts(facts: Sequence[tuple[str, str]]) -> str:
    items = [f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts]
    return f"<dl>{''.join(items)}</dl>"


def _render_index(rows: Sequence[str], has_true_classes: bool) -> str:
    """Renders the table of all images, with the controls that its script shows."""
    if len(rows) < 2:
        return ""
    verdicts = {"": "all", "right": "right", "wrong": "wrong"}
    ranges = {"0 2": "any", "0 0.5": "below 50 %", "0.5 0.9": "50 to 90 %", "0.9 2": "from 90 %"}
    orders = {"given": "as given", "least": "least certain first", "most": "most certain first"}
    columns = ["", "Picture", "Predicted", "Certainty"]
    selects = [_render_select("Certainty", ranges), _render_select("Order", orders)]
    if has_true_classes:
        columns += ["True class", "Verdict"]
        orders = {"wrong": "wrong first", **orders}
        selects = [_render_select("Verdict", verdicts), selects[0], _render_select("Order", orders)]
    header = "".join(f"<th>{column}</th>" for column in columns)
    return (
        f'<section id="index"><p id="controls" hidden>{"".join(selects)}'
        f'<output id="shown"></output></p>\n<table><thead><tr>{header}</tr></thead>\n<tbody>\n'
        + "\n".join(rows)
        + "\n</tbody></table></section>"
    )


def _render_select(label: str, options: Mapping[str, str]) -> str:
    items = "".join(f'<option value="{value}">{text}</option>' for value, text in options.items())
    return f'<label>{label} <select id="{label.lower()}">{items}</select></label>'


def _render_row(prediction: ExplainedPrediction, anchor: str, has_true_classes: bool) -> str:
    """Renders the line of the index about one image; `anchor` is the id of its details."""
    top, link = prediction.top[0], f'<a href="#{anchor}">'
    thumbnail = _render_image(shrink_to_fit(prediction.picture, _THUMBNAIL_SIDE), "", "thumbnail")
    cells = [
        f"<td>{link}{thumbnail}</a></td>",
        f"<td>{link}{_short_name(prediction)}</a></td>",
        f"<td><b>{escape(top['name'])}</b></td>",
        f'<td class="percent">{escape(overlays.format_percent(top["probability"]))}</td>',
    ]
    if has_true_classes:
        name = escape(datasets.display_name(prediction.true_class or ""))
        cells += [f'<td class="true">{name}</td>', f"<td>{_render_verdict(prediction)}</td>"]
    data = f'data-certainty="{top["probability"]:.6f}" data-verdict="{prediction.verdict}"'
    return f'<tr data-details="{anchor}" {data}>{"".join(cells)}</tr>'


def _render_verdict(prediction: ExplainedPrediction) -> str:
    return f'<span class="{prediction.verdict}">{prediction.verdict}</span>'


def _short_name(prediction: ExplainedPrediction) -> str:
    """Returns the escaped names of the file and of its folder."""
    path = image_paths.replace_non_utf8(prediction.path)
    return escape(os.path.join(*pathlib.PurePath(path).parts[-2:]))


def render_article(prediction: ExplainedPrediction, anchor: str, is_open: bool) -> str:
    """Returns the HTML of the part of the page about one image, which can be opened and closed."""
    height, width = prediction.size
    path = escape(image_paths.replace_non_utf8(prediction.path))
    picture, bars = _render_picture(prediction.picture), _render_bars(prediction.top)
    is_ensemble = len(prediction.model_explanations) > 1
    top, note = prediction.top[0], ""
    if prediction.true_class is not None:
        note = f", {_render_verdict(prediction)}: "
        note += f"the class is {escape(datasets.display_name(prediction.true_class))}"
    parts = [
        f'<details id="{anchor}"{" open" if is_open else ""}>',
        f"<summary><h2>{_short_name(prediction)}<small>{escape(top['name'])}"
        f" {escape(overlays.format_percent(top['probability']))}{note}</small></h2></summary>",
        f"<p>{path}, {width} × {height} px</p>",
        f'<div class="front">{picture}{bars}</div>',
    ]
    for explanation in prediction.model_explanations:
        parts.append(f"<h3>Views<small>{escape(explanation.name)}</small></h3>")
        parts.append(_render_bars(explanation.top[:3]) if is_ensemble else "")
        parts.append(render_panels(explanation.views))
        parts.append("<h3>Explanation<small>of the center view</small></h3>")
        parts.append(render_panels(explanation.heat_maps, "large"))
    if prediction.carving:
        parts.append("<h3>Seam carving<small>compared with plain resizing</small></h3>")
        parts.append(render_panels(prediction.carving, "large"))
    return "\n".join([*parts, "</details>"])


def _render_picture(pixels: np.ndarray) -> str:
    """Renders the picture. The style sheet enlarges a very small one along its longer side."""
    height, width = pixels.shape[:2]
    css_class = "" if max(height, width) >= 240 else "wide" if width >= height else "tall"
    return _render_image(pixels, "the picture", css_class)


def _render_bars(classes: Sequence[ClassProbability]) -> str:
    items = []
    for scored in classes:
        is_named = scored["class"] != scored["name"]
        code = f" <small>{escape(scored['class'])}</small>" if is_named else ""
        items.append(
            f"<li><span>{escape(scored['name'])}{code}</span>"
            f"<b>{escape(overlays.format_percent(scored['probability']))}</b>"
            f'<i><i style="width: {100 * scored["probability"]:.2f}%; height: 8px"></i></i></li>'
        )
    return f'<ol class="bars">{"".join(items)}</ol>'


def render_panels(panels: Sequence[Panel], css_class: str = "") -> str:
    """Returns the HTML of a grid of panels."""
    figures = []
    for panel in panels:
        height, width = panel.pixels.shape[:2]
        # The height of a large image, unless the page is narrower than the image.
        shown = max(1, round(_LARGE_HEIGHT * width / height)) if css_class == "large" else 0
        style = f' style="width: max(224px, {shown}px)"' if shown else ""
        image = _render_image(panel.pixels, panel.title, width=shown)
        caption = f"{escape(panel.title)}<span>{escape(panel.note)}</span>"
        figures.append(f"<figure{style}>{image}<figcaption>{caption}</figcaption></figure>")
    tiny = " tiny" if panels and panels[0].pixels.shape[0] < 100 else ""
    return f'<div class="panels {css_class}{tiny}">{"".join(figures)}</div>'


def _render_legend() -> str:
    """Renders what the heat maps mean, with their colors from low to high."""
    ramp = np.linspace(0, 1, 320)[None]
    gray = np.full((14, 320, 3), 128, np.uint8)
    colors = _render_image(overlays.draw_heat_map(gray, ramp), "colors of the maps")
    ends = "<figcaption><i>no evidence</i><i>most evidence</i></figcaption>"
    return (
        "<section><h2>How to read the explanations</h2>"
        f'{_LEGEND}<figure class="legend">{colors}{ends}</figure></section>'
    )


def _render_filters(panels: Sequence[Panel]) -> str:
    if not panels:
        return ""
    return f"<section><h2>First-layer filters</h2>{render_panels(panels, 'large')}</section>"


def _render_failures(bad: Sequence[Mapping[str, str]]) -> str:
    if not bad:
        return ""
    items = [f"<li><b>{escape(file['path'])}</b>: {escape(file['reason'])}</li>" for file in bad]
    return f'<section class="bad"><h2>Not predicted</h2><ol>{"".join(items)}</ol></section>'


def _render_image(pixels: np.ndarray, alt: str, css_class: str = "", width: int = 0) -> str:
    """Renders an <img> that contains its file: PNG for small images, JPEG for photographs.

    The style sheet decides on its size unless a width is given.
    """
    is_small = max(pixels.shape[:2]) < 100 and css_class != "thumbnail"
    mime, data = (
        ("png", overlays.encode_png(pixels)) if is_small else ("jpeg", overlays.encode_jpeg(pixels))
    )
    style = f' style="width: {width}px"' if width else ""
    height, width = pixels.shape[:2]
    source = f"data:image/{mime};base64,{base64.b64encode(data).decode('ascii')}"
    attributes = f'class="{css_class}" width="{width}" height="{height}"'
    return f'<img src="{source}" {attributes}{style} alt="{escape(alt)}">'


def escape(value: object) -> str:
    """Returns text whose special characters are escaped."""
    return html.escape(str(value), quote=True)
