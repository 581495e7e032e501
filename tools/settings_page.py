"""Write docs/settings.md from the descriptions of the settings: `python tools/settings_page.py`."""

from __future__ import annotations

from pathlib import Path

from equigen.comparison import ComparisonSettings
from equigen.fairness import AuditSettings
from equigen.quality import EvaluateSettings
from equigen.schema import SettingRow, json_schema, setting_rows
from equigen.study import StudySettings
from equigen.training import TrainSettings

PAGE = Path(__file__).parents[1] / "docs" / "settings.md"
HEAD = """# Settings

All keys of the settings files, made from the code by `python tools/settings_page.py`. `equigen list settings FILE`
prints the same in a terminal (`study`, `comparison`, `train`, `evaluate` or `audit`), with `--json` for programs. A key
with dots is nested; `NAME` is any name. `null` is an empty value in YAML.

## In an editor
Editors that know YAML schemas complete these keys and mark mistakes:
```
equigen list settings study --schema > study.schema.json
equigen list settings comparison --schema > comparison.schema.json
```
The first line of `study.yaml` then says `# yaml-language-server: $schema=study.schema.json`. VS Code reads it with the
extension YAML (redhat.vscode-yaml), Neovim, Emacs, Helix and others with yaml-language-server; JetBrains editors take
the file under Languages & Frameworks, Schemas and DTDs, JSON Schema Mappings.
"""
SECTIONS = {
    "study.yaml": (StudySettings, "What [`equigen run`](study.md) takes. The keys of `train` are [below](#train)."),
    "A comparison": (
        ComparisonSettings,
        "What [`equigen compare`](compare.md) takes. The keys of `train`, `pretrain` and `settings` are "
        "[below](#train).",
    ),
    "train": (
        TrainSettings,
        "`train` of a study or a comparison, where `size`, `mechanism`, `mechanism_settings` and `seed` are set by "
        "`size`, `mechanisms` and `seeds`; and the YAML of `equigen train --settings`.",
    ),
    "evaluate": (
        EvaluateSettings,
        "`equigen.EvaluateSettings`, and the options of [`equigen evaluate`](quality.md), with hyphens. `kinds` can be "
        "set in Python alone.",
    ),
    "audit": (
        AuditSettings,
        "`equigen.AuditSettings`, and the options of [`equigen audit`](audit.md), with hyphens. `--replicates` sets "
        "`permutations` too.",
    ),
}


def main() -> None:
    """Write the page."""
    PAGE.write_text(settings_page(), encoding="utf-8")


def settings_page() -> str:
    """Return the page as Markdown."""
    parts = [HEAD]
    for title, (model, text) in SECTIONS.items():
        lines = ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
        lines += [table_line(row) for row in setting_rows(json_schema(model, title))]
        parts.append(f"## {title}\n{text}\n\n" + "\n".join(lines) + "\n")
    return "\n".join(parts)


def table_line(row: SettingRow) -> str:
    """Return one line of the table."""
    cells = (f"`{row.key}`", row.type, row.default, row.description)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    main()
