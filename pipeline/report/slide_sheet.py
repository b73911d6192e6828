"""A sheet for each slide: its pictures, numbers, doubts and provenance in one file, which can be mailed and printed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from pipeline.model.quality import Quality
from pipeline.output.run_record import NOTICE
from pipeline.output.slide_folder import GALLERY
from pipeline.report.embedded import data_uri
from pipeline.report.figures import MISSING, bar, bytes_in_words, number, show
from pipeline.report.page import write_page
from stages.place import told
from stages.prediction.chance import brief_chance

WORDS = ("what", "how_sure", "how_good", "evidence", "not_read", "unusual")
"""What a commit mark says in sentences, in their order here; others come last."""
CHANCE = "prob_"


def write_slide_sheet(path: Path, commit: Mapping[str, Any], pictures: Sequence[tuple[str, str, bytes]]) -> None:
    """Write a slide's sheet, to lie in its folder.

    The label is not in it, for a table may change that while the slide's result stands: the report has it.

    Args:
        path: the HTML file.
        commit: the slide's commit mark.
        pictures: of each the file in the folder that has it larger, what it shows, and it, as JPEG.
    """
    row, name = commit["row"], path.parent.name
    of = f" of patient {commit['patient']}" if commit.get("patient") else ""
    body = [
        f"<h1>{escape(name + of)}</h1>",
        f'<p class="notice">{escape(NOTICE)}</p>',
        _doubts(commit),
        _words(commit["words"]),
        *(_figure(*one) for one in pictures),
        f"<h2>In numbers</h2>{_values(row)}{_table(_reading(row))}",
        f"<h2>How it was made</h2>{_table(_origin(commit))}",
        '<p class="soft">In the same folder: <a href="overlay.jpg">overlay</a>, <a href="evidence.jpg">evidence</a>, '
        '<a href="overlay.geojson">GeoJSON</a> for QuPath, <a href="prediction.json">prediction.json</a>. Its label, '
        'where there is one, is in <a href="../../report.html">the report</a>.</p>',
    ]
    write_page(path, f"Saccade: {name}{of}", body, upright=True)


def _figure(file: str, what: str, image: bytes) -> str:
    """A picture, which leads to the file that has it larger."""
    kind = ' class="gallery"' if file == GALLERY else ""  # whose letters would be too small on a narrow screen
    picture = f'<a{kind} href="{file}"><img src="{data_uri(image)}" alt="{escape(what)}"></a>'
    return f'<figure class="sheet">{picture}<figcaption class="soft">{escape(what)}</figcaption></figure>'


def warned_of(commit: Mapping[str, Any]) -> list[str]:
    """What makes a prediction doubtful, of the slide and of the model, as its commit mark has it."""
    quality = None if commit.get("quality") is None else Quality.from_json(commit["quality"])
    of_model = None if quality is None else quality.warning
    return [str(one) for one in (*commit["row"].get("warnings", ()), of_model) if one]


def _doubts(commit: Mapping[str, Any]) -> str:
    lines = warned_of(commit)
    if not lines:
        return ""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f'<section class="failed"><h2 class="bad">Warnings</h2><ul>{items}</ul></section>'


def _words(words: Mapping[str, str]) -> str:
    first = [name for name in WORDS if name in words]
    order = [*first, *(name for name in words if name not in first)]
    return "".join(f"<p>{escape(str(words[name]))}</p>" for name in order)


def _values(row: Mapping[str, Any]) -> str:
    """Each value that is told, with its interval."""
    lines = []
    for column in [key for key in row if f"{key}_low" in row and f"{key}_high" in row]:
        ends = [row[f"{column}{end}"] for end in ("", "_low", "_high")]
        is_chance = column.startswith(CHANCE)
        value, low, high = (_chance(one) if is_chance else show(one, ".4g") for one in ends)
        name = f"probability of {column.removeprefix(CHANCE)}" if is_chance else column
        words = f"{name}: {value}, interval {low} to {high}"
        picture = bar(ends[0], ends[1], ends[2], words) if is_chance else ""
        lines.append(
            f'<tr><th scope="row">{escape(name)}</th><td class="number">{escape(value)}</td>'
            f'<td class="number">{escape(low)} to {escape(high)}</td><td>{picture}</td></tr>'
        )
    return (
        '<div class="wide"><table class="narrow"><thead><tr><th scope="col"></th>'
        '<th scope="col" class="number">value</th>'
        '<th scope="col" class="number">interval for what was not read</th><th scope="col"></th></tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _chance(value: Any) -> str:
    """A probability, which is never told as certain."""
    found = number(value)
    return MISSING if found is None else brief_chance(found)


def _reading(row: Mapping[str, Any]) -> dict[str, Any]:
    predicted = row.get("predicted")
    unlike = number(row.get("out_of_distribution"))
    patches = f"{show(row.get('patches_read'), ',.0f')} of {show(row.get('cells'), ',.0f')} with tissue"
    return {
        "predicted": predicted if isinstance(predicted, str) else show(predicted, ".4g"),
        "decision": row.get("decision"),
        "call": row.get("call"),
        "patches read": patches,
        "share of the tissue": show(row.get("fraction_read"), ".1%"),
        "bytes read": bytes_in_words(row.get("bytes_read")),
        "time": f"{show(row.get('seconds'), '.1f')} s",
        "unlike the training": None if unlike is None else f"{unlike:.2f} (the limit is 1)",
    }


def _origin(commit: Mapping[str, Any]) -> dict[str, Any]:
    """What it follows from: enough to make it again, or to tell that it is the same."""
    made, encoder = commit["made_of"], commit.get("encoder") or {}
    licence = encoder.get("licence") or "not known"
    read_by = commit.get("read_by") or {}
    return {
        "slide": told(str(commit.get("path", ""))),
        "level 0": " x ".join(f"{one:g}" for one in commit["mpp"]) + " µm/px",
        "slide's fingerprint": commit.get("fingerprint"),
        "model's digest": made.get("model"),
        "encoder": f"{encoder['name']} ({encoder.get('source', '')}; licence: {licence})" if encoder else None,
        "encoder's digest": encoder.get("digest"),
        "settings": ", ".join(
            f"{name} {'all' if name == 'samples' and value == 0 else value}"
            for name, value in made.items()
            if name not in ("model", "version", "slides") and value is not None and isinstance(value, str | int | float)
        ),
        "versions": ", ".join(f"{name} {value}" for name, value in read_by.items() if value),
        "written": commit.get("written"),
        "key of the result": commit.get("key"),
    }


def _table(facts: Mapping[str, Any]) -> str:
    lines = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td><code>{escape(str(value))}</code></td></tr>'
        for name, value in facts.items()
        if value not in (None, "")
    )
    return f'<div class="wide"><table class="facts"><tbody>{lines}</tbody></table></div>'
