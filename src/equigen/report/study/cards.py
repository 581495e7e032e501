"""The generators' model card and the synthetic set's data set card, as Markdown."""

from __future__ import annotations

import json
import re
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from equigen.report.figures import REFERENCES
from equigen.report.findings import without_intersections
from equigen.report.frames import DERIVED, json_value, unique_values
from equigen.report.metrics import estimate_text, lookup_metric
from equigen.report.render import Content
from equigen.report.study.diagnosis import TOPIC as DIAGNOSIS
from equigen.report.study.differences import TOPIC as COMPARED
from equigen.report.study.memorisation import TOPIC as MEMORISATION
from equigen.report.study.quality import TOPIC as QUALITY
from equigen.report.study.semantic import TOPIC as SEMANTIC
from equigen.report.tables import WHOLE_SET

_SPECIAL = re.compile(r"([\\`*_{}\[\]|#])")


def escape_markdown(value: Any) -> str:
    """A value as one line of text without markup, in Markdown and in the HTML made from it."""
    text = " ".join(str(value).split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _SPECIAL.sub(r"\\\1", text)


def model_card(content: Content) -> str:
    """The model card of the generators: intended use, training data, quality for each group."""
    return _render_card("model_card.md", content, [QUALITY, MEMORISATION, SEMANTIC, COMPARED])


def dataset_card(content: Content) -> str:
    """The data set card of the synthetic images: content, intended use, results of training on them."""
    return _render_card("dataset_card.md", content, [DIAGNOSIS])


def _render_card(name: str, content: Content, topics: list[str]) -> str:
    """A card from its template, with the sentences of these topics and with KD and FD of each run and group."""
    environment = Environment(
        loader=PackageLoader("equigen.report"),
        autoescape=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["md"] = escape_markdown
    counts, quality = content.counts, without_intersections(content.quality)
    groups = {
        attribute: [group for group in unique_values(counts.loc[counts["attribute"] == attribute, "group"])
                    if group != "*"] for attribute in unique_values(counts["attribute"]) if attribute != "*"
    }  # fmt: skip
    results = []
    for _, row in quality[quality["metric"].isin(["kd", "fd"])].iterrows():
        if row["group"] not in DERIVED:
            metric = lookup_metric(row["metric"])
            group = WHOLE_SET if row["group"] == "*" else f"{row['attribute']} {row['group']}"
            value = estimate_text(row["estimate"], row["ci_low"], row["ci_high"], metric)
            results.append((row["run"], metric.title, group, value))
    settings = json.dumps(json_value(content.settings), indent=2, ensure_ascii=False)
    return environment.get_template(name).render(
        content=content,
        findings=[sentence for sentence in content.sentences if sentence.topic in topics],
        runs=[run for run in unique_values(content.quality["run"]) if run not in REFERENCES],
        recipes=unique_values(content.fairness["recipe"]),
        groups={attribute: names for attribute, names in groups.items() if names},
        results=results,
        settings=settings.replace("```", "'''"),
    )
