"""The audit of a table of predictions that any software made: gaps between groups, with intervals and what chance gives.

Run it with `python examples/audit.py [FOLDER]`. The table is artificial: a classifier that recognises the disease
equally well in both sexes, and less well in the patients of 60 and older.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

import equigen as eg


def predictions(patients=900, seed=0):
    """A row per image, two images per patient: truth, score, patient and groups."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(
        {
            "pid": [f"p{number:04d}" for number in range(patients)],
            "sex": rng.choice(["female", "male"], patients),
            "age": rng.choice(["under 60", "60 and over"], patients),
            "y": rng.integers(0, 2, patients),
        }
    )
    table = table.loc[table.index.repeat(2)].reset_index(drop=True)
    signal = np.where(table["age"] == "under 60", 2.2, 0.9)  # how far apart healthy and ill are scored
    table["p"] = 1 / (1 + np.exp(-(signal * (table["y"] - 0.5) + rng.normal(size=len(table)))))
    table["split"] = np.where(table["pid"].str[-1].isin(["0", "1", "2"]), "val", "test")  # thresholds come from val
    return table


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    table = folder / "predictions.csv"
    predictions().to_csv(table, index=False)

    audit = eg.audit(
        table, ["sex", "age"], truth="y", score="p", patient="pid", replicates=200, permutations=200
    )  # the same: equigen audit predictions.csv --truth y --score p --patient pid --groups sex,age --out result
    print(audit.overall)
    print(audit.by_group)
    gaps = audit.gaps.reset_index()
    gaps = gaps[gaps["metric"] == "auc"].set_index("attribute")
    print(gaps[["estimate", "ci_low", "ci_high", "null_high", "p_value"]])
    for attribute, row in gaps.iterrows():
        verdict = "more than chance gives" if row["estimate"] > row["null_high"] else "no more than chance gives"
        print(f"AUC gap by {attribute}: {row['estimate']:.3f}, {verdict} (up to {row['null_high']:.3f})")
    print(eg.report(fairness=audit, path=folder / "report"))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "audit-example"))
