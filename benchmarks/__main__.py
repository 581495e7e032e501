"""Run the benchmarks and keep their figures: `python -m benchmarks [loop] [cost] [latents] [demo] ...`.

Run it when nothing else runs. Figures go to benchmarks/results/, with the hardware named.
"""

from __future__ import annotations

import argparse
import platform
from pathlib import Path

import torch

from benchmarks import (
    cost,
    damage,
    demo,
    fairness,
    finetune,
    generation,
    hostile,
    latents,
    learning,
    loop,
    quality,
    scale,
    validity,
    validity_groups,
)
from equigen import __version__
from equigen.files import write_json

BENCHMARKS = {
    "loop": loop.measure,
    "cost": cost.measure,
    "latents": latents.measure,
    "demo": demo.measure,
    "quality": quality.measure,
    "validity": validity.measure,
    "validity-groups": validity_groups.measure,
    "fairness": fairness.measure_all,
    "finetune": finetune.measure,
    "generation": generation.measure,
    "scale": scale.measure,
    "learning": learning.measure,
    "damage": damage.measure,
    "hostile": hostile.measure,
}
RESULTS = Path(__file__).parent / "results"


def hardware() -> dict[str, object]:
    """What the figures were measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    return {
        "processor": model,
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "equigen": __version__,
    }


def main() -> None:
    """Measure what was asked for, print it and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*BENCHMARKS, []], help="which; all by default")
    for name in parser.parse_args().names or BENCHMARKS:
        figures = BENCHMARKS[name]()
        write_json(RESULTS / f"benchmark-{name}.json", {"hardware": hardware(), **figures})
        print(name, figures, flush=True)


if __name__ == "__main__":
    main()
