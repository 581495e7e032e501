"""Damage to every kind of file of a finished small study: what the next run of the same command does about it.

The reduced demo is run once. Then, for one file of every kind of every stage and each harm, a copy of the folder is
harmed and the demo is run again. Each ends as

* mended: exit status 0, the file is named, and all tables are those of the first run;
* silent: exit status 0 and the tables of the first run, without a word about the file, since nothing has read it;
* refused: exit status 2, with the file's name;
* unnoticed: exit status 0 and other tables, or a refusal that does not name the file;
* failure: a traceback.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import pandas as pd

from equigen.config import parse_override
from equigen.errors import InputError
from equigen.files import hash_file, read_json
from equigen.study import run_study

SMALL = {
    "phantom.images": "60", "size": "32", "train.images": "16", "train.batch": "16", "mechanisms": "{none: {}}",
    "plans.match": "{policy: match, size: 6, steps: 1}", "plans.balanced": "{policy: balanced, size: 6, steps: 1}",
    "evaluate.encoder": "efficientnet-lite0@64", "evaluate.replicates": "20", "diagnose.images": "16",
    "diagnose.width": "8", "audit.replicates": "20", "audit.permutations": "20", "evaluate.groups": "[]",
    "audit.groups": "[]",
}  # fmt: skip
OUTPUTS = ("report", "stale", "logs")  # written anew at every run, or read by nothing


def truncate(path: Path) -> None:
    """Keep the first half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    """Flip one bit in the middle of a file's last third, and keep its size and time."""
    data, old = bytearray(path.read_bytes()), path.stat()
    if data:
        data[len(data) * 5 // 6] ^= 4
    path.write_bytes(data)
    os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))


def zero(path: Path) -> None:
    """Make all bytes of a file zero, and keep its size."""
    path.write_bytes(bytes(path.stat().st_size))


def delete(path: Path) -> None:
    """Remove a file."""
    path.unlink()


def edit(path: Path) -> None:
    """Change a value of a table, a JSON file or a text; the result can be read."""
    if path.suffix == ".parquet":
        frame = pd.read_parquet(path)
        number = next((name for name in frame.columns if frame[name].dtype.kind == "f"), None)
        if number is None:
            frame = frame.iloc[:-1]
        else:
            frame[number] = frame[number] + 0.125
        frame.to_parquet(path, index=False)
        return
    text = path.read_text()
    path.write_text(re.sub(r"[1-8](?=\D*$)", lambda found: str(int(found[0]) + 1), text, count=1))


HARMS: Mapping[str, Callable[[Path], None]] = {
    "flip": flip, "truncate": truncate, "zero": zero, "delete": delete, "edit": edit,
}  # fmt: skip
TEXTS = {".json", ".csv", ".yaml", ".md", ".parquet"}


def kinds(folder: Path) -> list[Path]:
    """One file of every kind of every folder below a run folder, by its folder and suffix, or its name if a record."""
    chosen: dict[tuple[str, str], Path] = {}
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if path.is_file() and relative.parts[0] not in OUTPUTS and not path.name.startswith("."):
            numbered = re.fullmatch(r"(shard-.*|[0-9a-f]{16}|.*\d+)\.(safetensors|png)", path.name)
            name = path.suffix if numbered or path.suffix == ".png" else path.name
            chosen.setdefault((relative.parent.as_posix(), name), relative)
    return sorted(chosen.values())


@dataclass(frozen=True)
class Ended:
    """How a run ended: its exit status, and all that it printed."""

    status: int
    words: str


def run(folder: Path) -> Ended:
    """Run the reduced demo into a folder, in this process."""
    printed = io.StringIO()
    demo = Path(str(resources.files("equigen.study") / "demo.yaml"))
    settings = {key: parse_override(key, value) for key, value in SMALL.items()}
    with redirect_stderr(printed), redirect_stdout(printed):
        try:
            run_study(demo, folder, settings, show=False)
        except InputError as error:
            return Ended(2, f"{printed.getvalue()}\n{error}")
        except Exception:
            return Ended(1, f"{printed.getvalue()}\n{traceback.format_exc()}")
    return Ended(0, printed.getvalue())


def results(folder: Path) -> dict[str, str]:
    """Hashes of all tables of a run, and of the generated images; the report's JSON without its timings."""
    chosen = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix in {".parquet", ".png"}
              and path.relative_to(folder).parts[0] not in {"stale", "report"}]  # fmt: skip
    tables = {path.relative_to(folder).as_posix(): hash_file(path) for path in chosen
              if path.name not in {"history.parquet"}}  # fmt: skip
    report = read_json(folder / "report" / "report.json")
    shown = {key: report[key] for key in ("quality", "fairness") if key in report}
    return {**tables, "report": json.dumps(shown, sort_keys=True)}


def attempt(original: Path, before: dict[str, str], file: Path, harm: str, place: Path) -> dict[str, str]:
    """Harm one file of a copy of a run, run it again and say how that ended."""
    copy = place / "run"  # where the first run was made, since tables hold paths
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(original, copy)
    try:
        content = (copy / file).read_bytes()
        HARMS[harm](copy / file)
        if harm != "delete" and (copy / file).read_bytes() == content:
            return {"file": file.as_posix(), "harm": harm, "outcome": "none", "detail": "nothing to change"}
        ended = run(copy)
        words = ended.words
        named = file.name in "".join(words.split())
        detail = ""
        if "Traceback" in words or ended.status not in (0, 2):
            outcome, detail = "failure", words.strip()[-300:]
        elif ended.status == 2:
            outcome, detail = ("refused" if named else "unnoticed"), words.strip()[-300:]
        else:
            after = results(copy)
            other = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
            outcome = "unnoticed" if other else "mended" if named else "silent"
            detail = ", ".join(other)[:300]
        return {"file": file.as_posix(), "harm": harm, "outcome": outcome, "detail": detail}
    except Exception:
        return {"file": file.as_posix(), "harm": harm, "outcome": "failure", "detail": traceback.format_exc()[-300:]}


def measure(only: str = "", harms: Collection[str] = tuple(HARMS), limit: float = 7200) -> dict[str, Any]:
    """Outcomes of all harms to all kinds of files; ``only``: a regular expression that files' names must have.

    ``limit``: seconds after which no further harm is begun; those are counted as left.
    """
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="equigen-damage-") as name:
        place = Path(name)
        original = place / "original"
        first = run(place / "run")
        if first.status:
            raise RuntimeError(first.words)
        (place / "run").rename(original)
        before = results(original)
        files = [file for file in kinds(original) if re.search(only, file.as_posix())]
        tasks = [(file, harm) for harm in harms for file in files if harm != "edit" or file.suffix in TEXTS]
        print(f"{len(tasks)} harms", flush=True)

        rows = []
        for file, harm in tasks:
            row = {"file": file.as_posix(), "harm": harm, "outcome": "left", "detail": ""}
            if time.monotonic() - started <= limit:
                row = attempt(original, before, file, harm, place)
            rows.append(row)
            print(*row.values(), flush=True)
    counts = Counter(row["outcome"] for row in rows)
    return {
        "figure": "harms to files of a finished study that end in other tables or a traceback",
        "target": "0",
        "counts": dict(counts),
        "rows": rows,
    }


if __name__ == "__main__":
    figures = measure(sys.argv[1] if len(sys.argv) > 1 else "")
    print(pd.DataFrame(figures["rows"]).groupby(["harm", "outcome"]).size().to_string())
