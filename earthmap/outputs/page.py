"""The shell of a report: one HTML file with its style, script and pictures, which loads nothing from anywhere."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from earthmap.outputs.markup import escaped

_POLICY = (
    "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; font-src data:; "
    "script-src 'unsafe-inline' 'unsafe-eval'"
)

_STYLE = """
:root { --ink: #1d2b33; --quiet: #5f6f78; --line: #e1e7e9; --accent: #1f6fb2; }
* { box-sizing: border-box; }
body { margin: 0; background: #f5f7f7; color: var(--ink); line-height: 1.5;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1040px; margin: 0 auto; padding: 36px 24px 64px; }
header { margin-bottom: 22px; }
h1 { font-size: 27px; line-height: 1.25; margin: 0 0 4px; letter-spacing: -0.01em; overflow-wrap: anywhere; }
h2 { font-size: 17px; margin: 0 0 12px; }
.quiet { color: var(--quiet); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(235px, 1fr)); gap: 14px; margin: 0 0 16px; }
.card, section { background: #fff; border: 1px solid var(--line); border-radius: 10px; }
.card { padding: 16px 18px; }
.card b { display: block; font-size: 27px; line-height: 1.2; font-weight: 650; letter-spacing: -0.015em;
  margin: 4px 0; }
.card p { margin: 0; overflow-wrap: anywhere; }
.card .also { font-size: 12.5px; margin-top: 6px; }
section { padding: 20px 22px; margin: 0 0 16px; }
section ul { margin: 0; padding-left: 20px; }
section li { margin: 3px 0; overflow-wrap: anywhere; }
.map { overflow-x: auto; touch-action: pan-y; }
.note { background: #fff8e8; border-left: 3px solid #d8a03d; padding: 8px 12px; margin: 12px 0 0; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: 7px 12px 7px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; color: var(--quiet); font-size: 13px; }
td.n, th.n { text-align: right; padding-right: 0; font-variant-numeric: tabular-nums; }
td.g { width: 45%; padding-left: 16px; }
tr:last-child td, tr:last-child th { border-bottom: 0; }
.bar { display: block; height: 6px; margin-top: 9px; border-radius: 3px; background: #b9c4c9; min-width: 2px; }
code, pre { font: 13px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
pre { background: #f5f7f7; border: 1px solid var(--line); border-radius: 8px; padding: 12px 14px; overflow-x: auto;
  margin: 8px 0; }
summary { cursor: pointer; color: var(--accent); }
footer { color: var(--quiet); font-size: 13px; }
h3 { font-size: 14px; margin: 16px 0 8px; color: var(--quiet); }
figure { margin: 0 0 18px; }
figcaption, caption { font-weight: 600; text-align: left; padding: 4px 0; overflow-wrap: anywhere; }
figcaption .quiet, caption .quiet { font-weight: 400; }
.bars { margin: 0 0 18px; } .bars th { font-weight: 400; color: var(--ink); overflow-wrap: anywhere; }
.bars .bar { height: 12px; margin-top: 5px; box-shadow: inset 0 0 0 1px #0003; }
.bars td.n { white-space: nowrap; }
.shares th { width: 42%; } .shares td .quiet { font-size: 13px; }
.stack { display: flex; height: 13px; border-radius: 3px; overflow: hidden; background: #eef1f0; margin-top: 5px; }
.share { display: inline-block; height: 13px; min-width: 0; }
.share.answered { background: #2e8b57; }
.share.skipped { background: repeating-linear-gradient(135deg, #414e56 0 1.5px, #e3e8ea 1.5px 6px); }
.share.failed { background: repeating-linear-gradient(45deg, #fff 0 1.5px, #b5402f 1.5px 6px); }
.key { list-style: none; display: flex; flex-wrap: wrap; gap: 4px 18px; padding: 0; margin: 4px 0 0; font-size: 13px; }
.key .share { width: 22px; vertical-align: -2px; border-radius: 2px; }
.key svg { vertical-align: -1px; }
.chart { width: 100%; height: auto; display: block; }
.chart text { font-size: 12px; fill: #5f6f78; } .chart .rule { stroke: #e3e8ea; }
.chart .dot:hover circle, .chart .dot:hover rect, .chart .dot:hover path { stroke: #1d2b33; }
.two { position: relative; overflow: hidden; background: #eef1f0; border: 1px solid #c9d1d4; --at: 50%; }
.two img, .two svg { position: absolute; display: block; }
.two svg { inset: 0; width: 100%; height: 100%; }
.two .cut { position: absolute; inset: 0; clip-path: inset(0 0 0 var(--at)); background: #eef1f0; }
.two .divider { position: absolute; top: 0; bottom: 0; left: var(--at); width: 3px; margin-left: -1.5px;
  background: #fff; box-shadow: 0 0 0 1px #1d2b33; pointer-events: none; }
.two .divider::after { content: "\\2194"; position: absolute; top: 50%; left: 50%; width: 34px; height: 34px;
  margin: -17px; border-radius: 50%; background: #fff; color: #1d2b33; text-align: center; line-height: 32px;
  font-size: 20px; box-shadow: 0 0 0 1px #1d2b33; }
.two input { position: absolute; inset: 0; width: 100%; height: 100%; margin: 0; opacity: 0; cursor: ew-resize;
  touch-action: pan-y; }
.two input:focus-visible + .divider, .two:focus-within .divider { box-shadow: 0 0 0 3px #1f6fb2; }
.two .date { position: absolute; top: 8px; padding: 1px 8px; border-radius: 4px; background: #ffffffdd;
  font-size: 13px; pointer-events: none; }
.two .left { left: 8px; } .two .right { right: 8px; }
.tiles { display: flex; flex-wrap: wrap; gap: 14px; }
.tile { margin: 0; max-width: 370px; } .tile div { display: flex; gap: 4px; }
.tile img, .tile .none { border-radius: 6px; border: 1px solid #c9d1d4; }
.tile .none { width: 176px; height: 176px; display: grid; place-items: center; color: #5f6f78;
  background: repeating-linear-gradient(45deg, #fff 0 6px, #f0e4e2 6px 7px); }
.reliability { max-width: 304px; margin: 0; } .reliability .quiet { font-size: 12.5px; margin: 4px 0; }
.tile figcaption { font-size: 13px; max-width: 178px; } .tile figcaption > * { display: block; }
.scroll { overflow-x: auto; }
a { color: var(--accent); } :focus-visible { outline: 2px solid #1f6fb2; outline-offset: 2px; }
@media (max-width: 640px) {
  main { padding: 20px 12px 40px; } section { padding: 16px 14px; } h1 { font-size: 22px; }
  td.g { width: 34%; padding-left: 8px; } .bars td.n { white-space: normal; }
  .tile, .tile figcaption { max-width: 100%; }
}
@media print {
  body { background: #fff; } main { max-width: none; padding: 0; }
  section, .card, figure, tr { break-inside: avoid; } section, .card { border-color: #c9d1d4; }
  .noprint { display: none; } #map-view { zoom: 0.72; }  /* as wide as a sheet of A4 or Letter */
  * { -webkit-print-color-adjust: exact; print-color-adjust: exact; }
}
"""

_SCRIPT = """
const held = document.getElementById("pictures-data");
const pictures = held ? JSON.parse(held.textContent) : [];
for (const image of document.querySelectorAll("img[data-picture]")) image.src = pictures[Number(image.dataset.picture)];
for (const two of document.querySelectorAll(".two")) {
  const slider = two.querySelector("input");
  const move = () => two.style.setProperty("--at", slider.value + "%");
  slider.addEventListener("input", move);
  move();
  const results = two.parentElement.querySelector(".results");
  if (results) results.addEventListener("change", () => {
    two.querySelector("svg").style.display = results.checked ? "" : "none";
  });
}
const mapData = document.getElementById("map-data");
if (mapData) {
  const shown = (all, index) => JSON.stringify(pictures[index]);
  const text = mapData.textContent.replace(/"earthmap-picture:([0-9]+)"/g, shown);
  Bokeh.embed.embed_item(JSON.parse(text), "map-view").then(() => {
    const find = (name) => Bokeh.documents.map((one) => one.get_model_by_name(name)).find((one) => one);
    const figure = find("map"), widest = figure.frame_width, shape = figure.frame_height / figure.frame_width;
    const fit = () => {
      const room = document.getElementById("map-view").clientWidth;
      const width = Math.max(200, Math.min(widest, room - 88));
      if (Math.abs(figure.frame_width - width) < 2) return;
      const legend = figure.below.find((panel) => panel.name === "legend");
      if (legend) legend.ncols = Math.max(1, Math.min(4, Math.floor(width / 170)));
      const date = find("date");
      if (date) date.width = Math.min(520, room - 10);
      figure.frame_height = Math.round(width * shape);
      figure.frame_width = width;
    };
    fit();
    window.addEventListener("resize", fit);
  });
}
for (const part of document.querySelectorAll("details")) {
  window.addEventListener("beforeprint", () => { part.dataset.was = part.open; part.open = part.id !== "job-file"; });
  window.addEventListener("afterprint", () => { part.open = part.dataset.was === "true"; });
}
"""


def render_page(title: str, sections: Iterable[str], *, pictures: Sequence[str], with_bokeh: bool) -> str:
    """The whole file.

    Args:
        title: of the page, any text.
        sections: HTML.
        pictures: `data:` addresses; images say by `data-picture` which they show, a bokeh model by its placeholder.
        with_bokeh: whether a model is mounted (`mount`).
    """
    from bokeh.resources import Resources

    scripts = ""
    if with_bokeh:
        # mathjax is left out: it is large, and a formula in a label would be fetched from elsewhere.
        scripts = Resources(mode="inline", components=["bokeh", "bokeh-widgets"]).render()
    body = "\n".join(section for section in sections if section)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{escaped(title)}</title><link rel="icon" href="data:,"><style>{_STYLE}</style></head>'
        f"<body><main>\n{body}\n</main>\n{_held('pictures', list(pictures))}{scripts}\n"
        f"<script>{_SCRIPT}</script></body></html>\n"
    )


def mount(name: str, model: Any) -> str:
    """A place for a bokeh model, and its data."""
    from bokeh.embed import json_item

    return f'<div id="{name}-view"></div>{_held(name, json_item(model))}'


def _held(name: str, content: Any) -> str:
    """JSON that no text in it can end early."""
    data = json.dumps(content, separators=(",", ":"))
    data = data.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
    return f'<script type="application/json" id="{name}-data">{data}</script>'
