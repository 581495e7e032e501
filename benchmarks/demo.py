"""The demo from a warm install: wall time and peak memory of the whole process."""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def measure() -> dict[str, Any]:
    """Seconds and GiB of `equigen demo` in an empty folder, which is kept so that its report can be looked at."""
    folder = Path(tempfile.mkdtemp(prefix="equigen-demo-"))
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "equigen", "demo", "--out", str(folder / "demo")], check=True)
    seconds = time.perf_counter() - started
    print(f"the report is at {folder / 'demo' / 'report' / 'index.html'}")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    target = "under 360 s and 4 GiB"
    return {"figure": "equigen demo, warm install", "target": target, "seconds": seconds, "peak_gib": peak}
