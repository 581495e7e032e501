"""Sentences on the error of the autoencoder alone, the limit of a diffusion model trained on its latents."""

from __future__ import annotations

from equigen.report.comparison.view import View, guidance_phrase
from equigen.report.layout import Sentence
from equigen.report.rounding import is_finite, listing, number

TOPIC = "What does the autoencoder cost?"


def autoencoder_sentences(views: list[View], reference: str) -> list[Sentence]:
    """A sentence for each setting: the value of reconstructed held-out images beside the reference's, and its gaps."""
    by_setting: dict[str, View] = {}
    for view in views:
        if view.metric.name == views[0].metric.name and view.reconstruction:
            by_setting.setdefault(view.setting, view)
    sentences = []
    for setting, view in by_setting.items():
        topic = f"{TOPIC} Setting {setting}" if len(by_setting) > 1 else TOPIC
        overall = view.reconstruction_row("*", "overall")
        if overall is None or not is_finite(overall["estimate"]):
            sentences.append(Sentence("What the autoencoder alone costs was not measured.", "missing", topic))
            continue
        rows = [view.row(reference, guidance, "*", "overall") for guidance in view.guidances]
        values = [
            f"{number(row['estimate'], view.metric)} {guidance_phrase(row['guidance'])}"
            for row in rows
            if row is not None and is_finite(row["estimate"])
        ]
        text = (
            f"Held-out images that go through the autoencoder and back stand at {view.estimate_text(overall)} "
            f"({view.unit}), which is about where perfect training of the diffusion model would lead"
        )
        text += f"; {reference} stands at {listing(values)}." if values else "."
        text += (
            " Distances do not add up: a generator that stands near this may still err in other ways, which a "
            "measurement against reconstructions shows."
        )
        parts = []  # as "by age: gap 29 (8 to 50), chance about 17; under 40 159, 40 to 59 188"
        for attribute in view.attributes:
            gap = view.reconstruction_row(attribute, "gap")
            if gap is None or not is_finite(gap["estimate"]):
                continue
            chance = f", chance about {number(gap['null_gap'], view.metric)}" if is_finite(gap["null_gap"]) else ""
            groups = {group: view.reconstruction_row(attribute, group) for group in view.groups(attribute)}
            values = [
                f"{group} {number(row['estimate'], view.metric)}"
                for group, row in groups.items()
                if row is not None and is_finite(row["estimate"])
            ]
            parts.append(f"by {attribute}: gap {view.estimate_text(gap)}{chance}; {', '.join(values)}")
        sentences.append(Sentence(text, "note", topic, tuple(parts)))
    return sentences
