"""A mechanism of one's own in one file, trained here on artificial images and held against plain training.

In Python: `python examples/tilt.py`. With the command: `equigen train cohort.yaml --mechanism examples/tilt.py:Tilt`,
and in a study.yaml: `mechanisms: {tilt: {mechanism: examples/tilt.py:Tilt, power: 3}}`.
"""

import sys
from pathlib import Path

from equigen.equity import CensusMechanism, running_means


class Tilt(CensusMechanism):
    """Weights in proportion to a power of the group's moving mean loss."""

    name = "tilt"

    def __init__(self, groups, seed, *, power=2.0):
        super().__init__(groups, seed, {"power": power})  # a resumed run must have the same settings
        self.power = power
        self.memory["losses"] = running_means.empty_means(len(groups))  # what is in `memory` is in every checkpoint

    def weights(self, losses, groups, timesteps, images_seen):
        cells = self.census.find(groups)  # which combination of groups each image has
        for column, part in enumerate(self.groups.slices.values()):
            known = groups[:, column] >= 0  # -1: unknown
            place, values = part.start + groups[known, column].long(), losses[known].double()
            self.memory["losses"] = running_means.update_means(self.memory["losses"], place, values, 300.0)
        return self.cell_weights()[cells].to(losses)

    def cell_weights(self):  # logged per group as `weight`
        means = running_means.means(self.memory["losses"])  # NaN: not seen yet
        relative = (means / means.nanmean()).nan_to_num(1.0)
        return self.census.combine(relative**self.power, "mean", 0.1, 10.0)  # mean 1 over the training set, bounded


def main(folder):
    """Train with the mechanism and plainly, and print the weights that the groups had at the end."""
    import pandas as pd

    import equigen as eg
    from equigen.cohort.phantom import PhantomSettings, write_phantom

    written = write_phantom(folder / "phantom", images=120, seed=0, settings=PhantomSettings(size=32))
    cohort = eg.Cohort.read(written / "cohort.yaml")
    settings = eg.TrainSettings(size=32, preset="tiny", images=96, batch=16, probe_images=16, log_every=32)
    for mechanism in ("none", Tilt):
        out = folder / "generators" / getattr(mechanism, "name", "none")
        run = eg.train(cohort, mechanism, settings=settings, out=out)
        print(run)
    history = pd.read_parquet(run.folder / "history.parquet")
    weights = history[history["kind"] == "weight"]
    last = weights[weights["images_seen"] == weights["images_seen"].max()]
    print(last[["attribute", "group", "value"]].to_string(index=False))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "tilt-example"))
