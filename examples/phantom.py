"""From images to a report in Python: artificial images, a generator, generated images, and their quality for each group.

Run it with `python examples/phantom.py [FOLDER]`; it needs no data and no network. The training is far too short for
good images: it shows the calls, not a result.
"""

import sys
from pathlib import Path

import equigen as eg
from equigen.cohort import PhantomSettings, write_phantom


def main(folder):
    # a folder of images, a table, and a cohort.yaml that says which column is what; yours would be read the same way
    written = write_phantom(folder / "phantom", images=400, seed=0, settings=PhantomSettings(size=32), show=False)
    cohort = eg.Cohort.read(written / "cohort.yaml", show_progress=False)
    print(cohort)

    settings = eg.TrainSettings(size=32, preset="tiny", images=160, batch=16, probe_images=16, mechanism="balanced")
    run = eg.train(cohort, settings=settings, out=folder / "generators" / "balanced", show=False)
    print(run)

    plan = eg.plan(cohort, policy="match", size=80, steps=2)
    synthetic = eg.generate(run, plan, folder / "synthetic", show=False)

    quality = eg.evaluate(
        real=cohort.split("test", domain="id"),
        generated=synthetic,
        groups=["sex"],
        encoder="efficientnet-lite0@64",  # half the usual resolution, to be quick
        metrics=["kd"],
        replicates=50,
        min_patients=20,
        show=False,
    )
    print(quality.overall)  # distance to real images, and what real images reach among themselves (floor)
    print(quality.by_group)
    print(quality.gaps)  # with the interval, and the gap that chance alone gives
    print(eg.report(quality, path=folder / "report"))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "phantom-example"))
