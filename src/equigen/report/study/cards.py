"""The generators' model card and the synthetic set's data set card, as Markdown."""

from __future__ import annotations

import json
import re
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from equigen.report.figures import REFERENCES
from equigen.report.findings import is_group, without_intersections
from equigen.report.frames import json_value, unique_values
from equigen.report.metrics import lookup_metric
from equigen.report.rounding import estimate_text
from equigen.report.study.content import Content
from equigen.report.study.diagnosis import TOPIC as DIAGNOSIS
from equigen.report.study.differences import TOPIC as COMPARED
from equigen.report.study.memorisation import TOPIC as MEMORISATION
from equigen.report.study.quality import TOPIC as QUALITY
from equigen.report.study.semantic import TOPIC as SEMANTIC
from equigen.report.tables import WHOLE_SET

_SPECIAL = re.compile(r"([\\`*_{}\[\]|#])")


def escaped(value: Any) -> str:
    """Text that stays text in Markdown and in the HTML made from it: one line, no markup."""
    flat = " ".join(str(value).split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _SPECIAL.sub(r"\\\1", flat)


def model_card(content: Content) -> str:
    """Card of the generators: what they are for, what they learned from, how well they serve each group."""
    return _render("model_card.md", content, [QUALITY, MEMORISATION, SEMANTIC, COMPARED])


def dataset_card(content: Content) -> str:
    """Card of the synthetic set: how it was made, what it may be used for, how training on it turned out."""
    return _render("dataset_card.md", content, [DIAGNOSIS])


def _render(name: str, content: Content, topics: list[str]) -> str:
    environment = Environment(
        loader=PackageLoader("equigen.report"),
        autoescape=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["md"] = escaped
    settings = json.dumps(json_value(content.settings), indent=2, ensure_ascii=False)
    return environment.get_template(name).render(
        content=content,
        findings=[sentence for sentence in content.sentences if sentence.topic in topics],
        runs=[run for run in unique_values(content.quality["run"]) if run not in REFERENCES],
        recipes=unique_values(content.fairness["recipe"]),
        groups=_groups(content.counts),
        results=_results(content.quality),
        settings=settings.replace("```", "'''"),
    )


def _groups(counts: pd.DataFrame) -> dict[str, list[str]]:
    """Attribute -> its groups."""
    own = counts[(counts["attribute"] != "*") & (counts["group"] != "*")]
    return {a: unique_values(own.loc[own["attribute"] == a, "group"]) for a in unique_values(own["attribute"])}


def _results(quality: pd.DataFrame) -> list[tuple[str, str, str, str]]:
    """Run, metric, group and value of KD and FD for the whole set and each group."""
    quality = without_intersections(quality)
    rows = quality[quality["metric"].isin(["kd", "fd"]) & ((quality["group"] == "*") | is_group(quality))]
    result = []
    for _, row in rows.iterrows():
        words = lookup_metric(row["metric"])
        group = WHOLE_SET if row["group"] == "*" else f"{row['attribute']} {row['group']}"
        value = estimate_text(row["estimate"], row["ci_low"], row["ci_high"], words)
        result.append((row["run"], words.title, group, value))
    return result
