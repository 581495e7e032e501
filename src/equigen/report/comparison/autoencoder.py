"""What the autoencoder alone costs, in words: how near perfect training of the diffusion model would come."""

from __future__ import annotations

from typing import Any

from equigen.report.comparison.view import View, at, value_text
from equigen.report.layout import Sentence
from equigen.report.rounding import is_finite, listing, number

TOPIC = "What does the autoencoder cost?"


def autoencoder_sentences(parts: list[View], reference: str) -> list[Sentence]:
    """For each setting: where reconstructions of held-out images stand, beside the reference; then their gaps."""
    found: dict[str, View] = {}
    for view in parts:
        if view.words.name == parts[0].words.name and view.reconstruction:
            found.setdefault(view.setting, view)
    several = len(found) > 1
    return [_sentence(view, reference, f"{TOPIC} Setting {setting}" if several else TOPIC)
            for setting, view in found.items()]


def _sentence(view: View, reference: str, topic: str) -> Sentence:
    whole = view.alone("*", "overall")
    if whole is None or not is_finite(whole["estimate"]):
        return Sentence("What the autoencoder alone costs was not measured.", "missing", topic)
    rows = [view.row(reference, guidance, "*", "overall") for guidance in view.guidances]
    told = [f"{number(row['estimate'], view.words)} {at(row['guidance'])}" for row in rows
            if row is not None and is_finite(row["estimate"])]
    text = (f"Held-out images that go through the autoencoder and back stand at {value_text(whole, view.words)} "
            f"({view.unit}), which is about where perfect training of the diffusion model would lead")
    text += f"; {reference} stands at {listing(told)}." if told else "."
    text += (" Distances do not add up: a generator that stands near this may still err in other ways, which a "
             "measurement against reconstructions shows.")
    return Sentence(text, "note", topic, tuple(filter(None, (_gap(view, name) for name in view.attributes))))


def _gap(view: View, attribute: str) -> str:
    """``by age: gap 29 (8 to 50), chance about 17; under 40 159, 40 to 59 188``; empty where there is no number."""
    row = view.alone(attribute, "gap")
    if row is None or not is_finite(row["estimate"]):
        return ""
    chance = f", chance about {number(row['null_gap'], view.words)}" if is_finite(row["null_gap"]) else ""
    groups: list[tuple[str, Any]] = [(name, view.alone(attribute, name)) for name in view.groups(attribute)]
    told = [f"{name} {number(own['estimate'], view.words)}" for name, own in groups
            if own is not None and is_finite(own["estimate"])]
    return f"by {attribute}: gap {value_text(row, view.words)}{chance}; {', '.join(told)}"
