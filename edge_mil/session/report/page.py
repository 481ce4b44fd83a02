"""One session as one HTML page that needs nothing else: no script, no network, no second file."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping
from dataclasses import dataclass, field

from edge_mil.session.report.charts import (
    INFLUENCE_LIMIT,
    HistoryPoint,
    SlidePicture,
    history_svg,
    legend_svg,
    slide_svg,
)
from edge_mil.session.report.layer_charts import WORDS as LAYER_WORDS
from edge_mil.session.report.style import STYLE
from edge_mil.types import RESEARCH_USE_ONLY, CellLayer, InfluenceMap, Region, SlideScore

VERDICT_WORDS = {
    "ACCEPTED": "brought something new to the score",
    "DUPLICATE": "showed only what was already counted",
    "BLANK": "showed no tissue",
    "BLURRED": "out of focus",
    "MOVING": "taken while the stage moved",
    "SATURATED": "too bright",
    "UNLOCATED": "position unknown",
    "OUT_OF_DISTRIBUTION": "unlike what the model was made for",
    "DROPPED": "the device was behind",
}


@dataclass(frozen=True, slots=True, eq=False)
class TopField:
    """A field that moved the score.

    Attributes:
        sequence: Its number.
        influence: Logit with it minus logit without it.
        cells: Instances of the bag that are its own.
        jpeg: Its picture.
        region: Where it lies, stage um; None without a stage.
    """

    sequence: int
    influence: float
    cells: int
    jpeg: bytes
    region: Region | None = None


@dataclass(frozen=True, slots=True, eq=False)
class ReportContent:
    """All that the page shows, as plain values.

    Attributes:
        title: Name of the slide.
        subtitle: A line below it: when, by which program.
        bundle_name: Of the model.
        bundle_digest: Of the model, "sha256:...".
        class_name: Whose score and influence are shown.
        score: The last score; None when there was none.
        coverage: Share held of the tissue cells known, 0 to 1.
        history: The score after each field, in order.
        verdicts: How many fields got each verdict, by name.
        picture: The slide as far as it was seen; None without positions.
        heat_map: Influence of each cell; None without positions.
        layers: How the slide was seen: focus and coverage; empty without positions.
        top_fields: Largest influence first.
        settings: What the session was opened with: name -> value, shown as they are.
        about_model: What the model is and was trained on, in paragraphs.
        warning: A sentence that stands above everything; "" for none.
    """

    title: str
    subtitle: str
    bundle_name: str
    bundle_digest: str
    class_name: str
    score: SlideScore | None
    coverage: float
    history: tuple[HistoryPoint, ...]
    verdicts: Mapping[str, int]
    picture: SlidePicture | None = None
    heat_map: InfluenceMap | None = None
    layers: tuple[CellLayer, ...] = ()
    top_fields: tuple[TopField, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    about_model: tuple[str, ...] = ()
    warning: str = ""


def render_report(content: ReportContent) -> str:
    """Return the page as HTML."""
    return "\n".join(
        (
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{_text(content.title)}: edge_mil report</title>",
            f"<style>{STYLE}</style></head><body><main>",
            _header(content),
            _numbers(content),
            _map(content),
            _course(content),
            _top(content),
            _about(content),
            f"<footer>{_text(RESEARCH_USE_ONLY)} Written by edge_mil; this page holds "
            "everything it shows and loads nothing.</footer>",
            "</main></body></html>",
            "",
        )
    )


def _header(content: ReportContent) -> str:
    warning = f'<p class="warning">{_text(content.warning)}</p>' if content.warning else ""
    return (
        f'<p class="banner">{_text(RESEARCH_USE_ONLY)}</p>{warning}'
        f"<header><h1>{_text(content.title)}</h1><p>{_text(content.subtitle)}</p></header>"
    )


def _numbers(content: ReportContent) -> str:
    score = content.score
    cards = []
    if score is None:
        cards.append(_card("no score yet", "Score", "no tissue was seen"))
    elif score.pooled:
        cards.append(_card(f"{len(score.pooled)}", "Pooled numbers", "no classifier follows"))
    elif score.value is not None:
        risk = bool(score.hazards)
        below = "of the survival curve" if risk else "the head's own number"
        cards.append(_card(f"{score.value:.3f}", "Risk" if risk else content.class_name, below))
    else:
        index = score.classes.index(content.class_name)
        logit = f"logit {score.logits[index]:+.2f}"
        if score.probabilities:
            value = score.probabilities[index]
            gauge = f'<i class="gauge"><b style="width:{100 * value:.1f}%"></b></i>'
            cards.append(
                _card(f"{value:.3f}", f"Probability of {content.class_name}", logit, gauge)
            )
        else:
            cards.append(_card(f"{score.logits[index]:+.2f}", f"Logit of {content.class_name}", ""))
    gauge = f'<i class="gauge grey"><b style="width:{100 * content.coverage:.1f}%"></b></i>'
    cards.append(
        _card(f"{content.coverage:.0%}", "Coverage", "of the tissue known was seen", gauge)
    )
    cells = score.instances if score else 0
    cards.append(_card(f"{cells}", "Instances", "places counted, each once"))
    fields = sum(content.verdicts.values())
    cards.append(
        _card(f"{fields}", "Fields", f"{content.verdicts.get('ACCEPTED', 0)} brought something new")
    )
    return f'<section class="cards">{"".join(cards)}</section>'


def _card(value: str, name: str, below: str, gauge: str = "") -> str:
    return (
        f'<div class="card"><h2>{_text(name)}</h2><p class="value">{_text(value)}</p>{gauge}'
        f"<p>{_text(below)}</p></div>"
    )


def _map(content: ReportContent) -> str:
    if content.picture is None:
        return ""
    if content.heat_map is None:
        drawn = slide_svg(content.picture, None, [], content.layers)
        return (
            f"<section><h2>What was seen</h2>{_switches(content)}"
            f'<div class="slide">{drawn}</div>{_layer_words(content)}</section>'
        )
    marks = [
        (number, top.region)
        for number, top in enumerate(content.top_fields, 1)
        if top.region is not None
    ]
    drawn = slide_svg(content.picture, content.heat_map, marks, content.layers)
    return (
        '<section><h2>What the score rests on</h2><input type="checkbox" id="heat" checked>'
        '<label for="heat">heat map</label><input type="checkbox" id="marks" checked>'
        f'<label for="marks">top fields</label>{_switches(content)}'
        f'<div class="slide">{drawn}</div>{_layer_words(content)}'
        f'<div class="legend">{legend_svg(content.class_name)}<p>Colour is the influence of each '
        f"place on the logit of <b>{_text(content.class_name)}</b>: the logit with it minus the "
        f"logit without it. The scale is fixed at {INFLUENCE_LIMIT:g} logits either way, so a "
        "slide with nothing to show stays pale. Places without colour changed little or were not "
        "seen.</p></div></section>"
    )


def _switches(content: ReportContent) -> str:
    return "".join(
        f'<input type="checkbox" id="{layer.name}"><label for="{layer.name}">{layer.name}</label>'
        for layer in content.layers
    )


def _layer_words(content: ReportContent) -> str:
    return "".join(
        f'<p class="{layer.name}-words">{_text(LAYER_WORDS[layer.name])}</p>'
        for layer in content.layers
    )


def _course(content: ReportContent) -> str:
    total = max(1, sum(content.verdicts.values()))
    rows = "".join(
        f'<tr><td><span class="dot {name}"></span>{_text(name)}</td><td class="n">{count}</td>'
        f'<td class="n">{count / total:.0%}</td>'
        f"<td>{_text(VERDICT_WORDS.get(name, ''))}</td></tr>"
        for name, count in content.verdicts.items()
        if count
    )
    return (
        '<section class="two"><div><h2>The score over the fields</h2>'
        f"{_history(content)}</div>"
        "<div><h2>What became of the fields</h2><table><thead><tr><th>verdict</th>"
        '<th class="n">fields</th><th class="n">share</th><th></th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div></section>"
    )


def _history(content: ReportContent) -> str:
    if content.score is not None and content.score.pooled:
        return "<p>No classifier follows the pooling, so there is no score to draw.</p>"
    return history_svg(content.history, content.class_name)


def _top(content: ReportContent) -> str:
    if not content.top_fields:
        return ""
    figures = "".join(
        f'<figure><img alt="field {top.sequence}" src="{data_url(top.jpeg)}">'
        f'<figcaption><b class="rank">{number}</b> field {top.sequence}'
        f'<span class="{"up" if top.influence >= 0 else "down"}">{top.influence:+.3f} logit</span>'
        "</figcaption></figure>"
        for number, top in enumerate(content.top_fields, 1)
    )
    return (
        "<section><h2>The fields that moved it most</h2><p>The influence of a field is the logit "
        f"of {_text(content.class_name)} with it minus the logit without it, both computed anew."
        f'</p><div class="fields">{figures}</div></section>'
    )


def _about(content: ReportContent) -> str:
    rows = "".join(
        f"<tr><th>{_text(name)}</th><td>{_text(value)}</td></tr>"
        for name, value in {
            "bundle": content.bundle_name,
            "digest": content.bundle_digest,
            **content.settings,
        }.items()
    )
    paragraphs = "".join(f"<p>{_text(paragraph)}</p>" for paragraph in content.about_model)
    return (
        '<section class="two"><div><h2>The model</h2>'
        f'{paragraphs}</div><div><h2>The session</h2><table class="plain">{rows}</table></div>'
        "</section>"
    )


def data_url(picture: bytes) -> str:
    """Return a PNG or JPEG as an address that holds it."""
    kind = "png" if picture.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


def _text(value: str) -> str:
    return html.escape(value, quote=True)
