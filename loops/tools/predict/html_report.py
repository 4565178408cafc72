"""Exhibits as one self-contained HTML page: no script, no request, every text escaped.

The page's own policy forbids scripts and requests, so that even a text that slipped through could
do nothing.
"""

import base64
import html

from input_pipeline.text import pluralize
from loops.tools.predict import image_paths, overlays

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
article { background: var(--card); border: 1px solid var(--line); border-radius: 12px;
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


def render_page(articles, results, omitted):
    """The whole page.

    Args:
      articles: list of str, each from `render_article`.
      results: as in the JSON file of the prediction.
      omitted: number of predicted pictures that have no exhibit here.

    Returns:
      str of HTML.
    """
    total = len(results["images"])
    title = f"{pluralize(total, 'picture')} predicted"
    nets = ", ".join(results["models"])
    views = pluralize(results["crops"], "crop")
    views += " and seam carving" if results["seam_carving"] else ""
    parts = [
        f"<header><h1>{title}</h1>",
        f"<p>By {_escape(nets)}; the mean over {_escape(views)}.</p>",
        f"<p>{pluralize(omitted, 'more picture')} predicted but not shown.</p>" if omitted else "",
        "</header>",
        *articles,
        _render_failures(results["bad"]),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_CONTENT_SECURITY_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<link rel="icon" href="data:,">\n<title>{title}</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n" + "\n".join(parts) + "\n</body>\n</html>\n"
    )


def render_article(exhibit):
    """The part of the page about one picture.

    Args:
      exhibit: `explained_prediction.ExplainedPrediction`.

    Returns:
      str of HTML.
    """
    height, width = exhibit.size
    name = _escape(image_paths.replace_non_utf8(exhibit.path))
    several = len(exhibit.model_explanations) > 1
    parts = [
        f"<article>\n<h2>{name}<small>{width} × {height} px</small></h2>",
        f'<div class="front">{_render_picture(exhibit.picture)}{_render_bars(exhibit.top)}</div>',
    ]
    for look in exhibit.model_explanations:
        title = "What one net saw" if several else "What the net saw"
        parts.append(f"<h3>{title}<small>{_escape(look.name)}</small></h3>")
        parts.append(_render_bars(look.top[:3]) if several else "")
        parts.append(_render_panels(look.views))
        parts.append("<h3>What the answer rests on<small>the centre view</small></h3>")
        parts.append(_render_panels(look.heat_maps, "large"))
    parts.append("<h3>Seam carving<small>beside plain resizing to the same square</small></h3>")
    parts.append(_render_panels(exhibit.carving, "large"))
    return "\n".join([*parts, "</article>"])


def _render_picture(pixels):
    """The picture as it is; a very small one is enlarged along its longer side."""
    height, width = pixels.shape[:2]
    kind = "" if max(height, width) >= 240 else "wide" if width >= height else "tall"
    return _render_image(pixels, "the picture", kind)


def _render_bars(top):
    rows = []
    for found in top:
        code = (
            "" if found["class"] == found["name"] else f" <small>{_escape(found['class'])}</small>"
        )
        rows.append(
            f"<li><span>{_escape(found['name'])}{code}</span>"
            f"<b>{_escape(overlays.format_percent(found['probability']))}</b>"
            f'<i><i style="width: {100 * found["probability"]:.2f}%; height: 8px"></i></i></li>'
        )
    return f'<ol class="bars">{"".join(rows)}</ol>'


def _render_panels(panels, kind=""):
    figures = [
        f"<figure>{_render_image(panel.pixels, panel.title)}<figcaption>{_escape(panel.title)}"
        f"<span>{_escape(panel.note)}</span></figcaption></figure>"
        for panel in panels
    ]
    tiny = " tiny" if panels and panels[0].pixels.shape[0] < 100 else ""
    return f'<div class="panels {kind}{tiny}">{"".join(figures)}</div>'


def _render_failures(bad):
    if not bad:
        return ""
    rows = [f"<li><b>{_escape(file['path'])}</b>: {_escape(file['reason'])}</li>" for file in bad]
    return f'<article class="bad"><h2>Not decoded</h2><ol>{"".join(rows)}</ol></article>'


def _render_image(pixels, text, kind=""):
    """An <img> with the file inside; small images keep every pixel, photographs are JPEGs."""
    small = max(pixels.shape[:2]) < 100
    form, data = (
        ("png", overlays.encode_png(pixels)) if small else ("jpeg", overlays.encode_jpeg(pixels))
    )
    height, width = pixels.shape[:2]
    source = f"data:image/{form};base64,{base64.b64encode(data).decode('ascii')}"
    shape = f'class="{kind}" width="{width}" height="{height}"'
    return f'<img src="{source}" {shape} alt="{_escape(text)}">'


def _escape(value):
    return html.escape(str(value), quote=True)
