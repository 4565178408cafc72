"""Renders explained predictions as one self-contained HTML page.

The page contains no script and makes no request, and all text is escaped. Its content security
policy forbids scripts and requests, as a second line of defense if unescaped text got in.
"""

import base64
import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from input_pipeline.text import pluralize
from loops.tools.predict import image_paths, overlays
from loops.tools.predict.explained_prediction import (
    ClassProbability,
    ExplainedPrediction,
    Panel,
)

_CONTENT_SECURITY_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE = """
:root { color-scheme: light dark; --paper: #f6f7f9; --card: #fff; --ink: #181b1f;
  --quiet: #626973; --line: #e3e6ea; --rail: #e9ecf0; --bar: #2563be; --bad: #b42318; }
@media (prefers-color-scheme: dark) { :root { --paper: #14161a; --card: #1c1f25; --ink: #e8eaed;
  --quiet: #9aa3ae; --line: #2c313a; --rail: #2a2f38; --bar: #6ea3ff; --bad: #ff8a7a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1120px; padding: 32px 20px 64px; background: var(--paper);
  color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 26px; margin: 0 0 4px; }
h2 { font-size: 20px; margin: 0 0 12px; overflow-wrap: anywhere; }
h3 { font-size: 15px; margin: 28px 0 10px; overflow-wrap: anywhere; }
h2 small, h3 small { font-weight: 400; color: var(--quiet); font-size: 13px; margin-left: 8px; }
p, li { color: var(--quiet); margin: 0; overflow-wrap: anywhere; }
article, section { background: var(--card); border: 1px solid var(--line); border-radius: 12px;
  padding: 24px; margin-top: 24px; }
.front { display: grid; grid-template-columns: minmax(0, 5fr) minmax(0, 6fr); gap: 28px; }
.front > img { width: auto; height: auto; max-width: 100%; max-height: 420px;
  border-radius: 8px; }
.front > img.wide { width: 240px; }
.front > img.tall { height: 240px; }
@media (max-width: 700px) { .front { grid-template-columns: minmax(0, 1fr); } }
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
.large figure { width: min-content; min-width: 224px; }
.large img { width: auto; height: 256px; }
@media (max-width: 700px) { .panels { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  .panels.large figure { width: 100%; } .panels.large img { width: 100%; height: auto; } }
.tiny img { image-rendering: pixelated; }
figcaption { font-size: 13px; line-height: 1.35; margin-top: 6px; }
figcaption span { display: block; color: var(--quiet); overflow-wrap: anywhere; }
.bad b { color: var(--bad); }
"""


def render_page(
    articles: Sequence[str],
    results: Mapping[str, Any],
    omitted: int,
    filters: Sequence[Panel] = (),
) -> str:
    """Returns the HTML of the whole page.

    Args:
      articles: HTML of each image, from `render_article`.
      results: the JSON results of the prediction.
      omitted: number of predicted images without an article.
      filters: the filters of each net's first convolution.
    """
    total = len(results["images"])
    title = f"{pluralize(total, 'picture')} predicted"
    nets = ", ".join(results["models"])
    views = pluralize(results["crops"], "crop")
    views += " and seam carving" if results["seam_carving"] else ""
    parts = [
        f"<header><h1>{title}</h1>",
        f"<p>By {escape(nets)}, averaged over {escape(views)}.</p>",
        f"<p>{pluralize(omitted, 'more picture')} predicted but not shown.</p>" if omitted else "",
        "</header>",
        *articles,
        _render_filters(filters),
        _render_failures(results["bad"]),
    ]
    return render_document(title, parts)


def render_document(title: str, parts: Sequence[str]) -> str:
    """Returns the HTML of a page with this title; the parts are its body."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_CONTENT_SECURITY_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<link rel="icon" href="data:,">\n<title>{title}</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n" + "\n".join(parts) + "\n</body>\n</html>\n"
    )


def render_article(prediction: ExplainedPrediction) -> str:
    """Returns the HTML of the part of the page about one image."""
    height, width = prediction.size
    path = escape(image_paths.replace_non_utf8(prediction.path))
    picture, bars = _render_picture(prediction.picture), _render_bars(prediction.top)
    is_ensemble = len(prediction.model_explanations) > 1
    parts = [
        f"<article>\n<h2>{path}<small>{width} × {height} px</small></h2>",
        f'<div class="front">{picture}{bars}</div>',
    ]
    for explanation in prediction.model_explanations:
        parts.append(f"<h3>Views<small>{escape(explanation.name)}</small></h3>")
        parts.append(_render_bars(explanation.top[:3]) if is_ensemble else "")
        parts.append(render_panels(explanation.views))
        parts.append("<h3>Explanation<small>of the center view</small></h3>")
        parts.append(render_panels(explanation.heat_maps, "large"))
    parts.append("<h3>Seam carving<small>compared with plain resizing</small></h3>")
    parts.append(render_panels(prediction.carving, "large"))
    return "\n".join([*parts, "</article>"])


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
    figures = [
        f"<figure>{_render_image(panel.pixels, panel.title)}<figcaption>{escape(panel.title)}"
        f"<span>{escape(panel.note)}</span></figcaption></figure>"
        for panel in panels
    ]
    tiny = " tiny" if panels and panels[0].pixels.shape[0] < 100 else ""
    return f'<div class="panels {css_class}{tiny}">{"".join(figures)}</div>'


def _render_filters(panels: Sequence[Panel]) -> str:
    if not panels:
        return ""
    return f"<section><h2>First-layer filters</h2>{render_panels(panels, 'large')}</section>"


def _render_failures(bad: Sequence[Mapping[str, str]]) -> str:
    if not bad:
        return ""
    items = [f"<li><b>{escape(file['path'])}</b>: {escape(file['reason'])}</li>" for file in bad]
    return f'<article class="bad"><h2>Not predicted</h2><ol>{"".join(items)}</ol></article>'


def _render_image(pixels: np.ndarray, alt: str, css_class: str = "") -> str:
    """Renders an <img> that contains its file: PNG for small images, JPEG for photographs."""
    is_small = max(pixels.shape[:2]) < 100
    mime, data = (
        ("png", overlays.encode_png(pixels)) if is_small else ("jpeg", overlays.encode_jpeg(pixels))
    )
    height, width = pixels.shape[:2]
    source = f"data:image/{mime};base64,{base64.b64encode(data).decode('ascii')}"
    attributes = f'class="{css_class}" width="{width}" height="{height}"'
    return f'<img src="{source}" {attributes} alt="{escape(alt)}">'


def escape(value: object) -> str:
    """Returns text whose special characters are escaped."""
    return html.escape(str(value), quote=True)
