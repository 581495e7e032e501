"""Reading a cohort and auditing predictions load no torch."""

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

import equigen

folder = Path(sys.argv[1])
rng = np.random.default_rng(0)
patients = [f"p{number}" for number in range(8)]
for patient in patients:
    Image.fromarray(rng.integers(0, 255, (8, 8), dtype=np.uint8)).save(folder / f"{patient}.png")
table = pd.DataFrame({"file": [f"{patient}.png" for patient in patients], "patient": patients, "sex": list("FM") * 4})
table.to_csv(folder / "cohort.csv", index=False)
cohort = equigen.Cohort.from_table(folder / "cohort.csv", ["sex"], show_progress=False)
assert len(cohort.frame) == 8

predictions = pd.DataFrame(
    {"truth": [0, 1] * 20, "probability": rng.random(40), "patient": range(40), "sex": list("FFMM") * 10}
)
rows = equigen.audit(predictions, ["sex"], replicates=20, permutations=20, min_patients=2).table
assert len(rows) > 0
print("torch" in sys.modules)
"""


def test_a_cohort_is_read_and_predictions_are_audited_without_torch(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1] == "False"
