"""Calibration: which guidance does each group get? Bayesian optimisation against held-out real images."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

import equigen
from equigen.cohort import Cohort, check_unseen
from equigen.diffusion import Generator
from equigen.errors import InputError, Problem
from equigen.files import read_json, read_parquet, write_json, write_parquet
from equigen.latents import Autoencoder
from equigen.progress import progress_bar
from equigen.quality import Encoder, Settings, identity, load_encoder
from equigen.synthesis.calibration.checks import (
    check_options,
    check_sides,
    eligible_groups,
    images_each,
    ordered_levels,
)
from equigen.synthesis.calibration.gain import measure_gain
from equigen.synthesis.calibration.measurement import Group, Maker, group_rows, make_groups
from equigen.synthesis.calibration.search import GRID, START, Goal, search
from equigen.synthesis.calibration.tables import calibration_table, choice_table, chosen_guidance
from equigen.synthesis.chunks import Batched
from equigen.synthesis.generation import opened
from equigen.synthesis.guidance import DEFAULT, Against, Guidance, Objective, load_calibration
from equigen.training import Run

TABLE, GAIN, CLAIM = "calibration.parquet", "gain.parquet", "claim.json"


@dataclass(frozen=True)
class Calibration:
    """What ``calibrate`` found, as tables.

    ``table`` (``calibration.parquet``): one row for each group of each ``kind`` and ``name``:

    * ``evaluated`` (``name`` 0, 1, ...: the order of work): what was measured;
    * ``curve`` (``name``: the guidance): excess KD over guidance by the Gaussian process, with ``low`` and ``high``
      two standard deviations off;
    * ``shared`` (``name``: the guidance): all groups at one guidance;
    * ``front`` (``name`` 0, 1, ...: from the lowest mean to the smallest gap): the choices that nothing beats in both;
    * ``chosen`` (``name``: default, common, group): the three that are compared.

    Columns: ``kind, name, group, guidance, estimate, floor, excess, low, high, mean, gap, worst``; the last three are
    those of the whole choice (excess KD over the groups).

    ``gain`` (``gain.parquet``) is None where no images to confirm on were given. Columns: ``set`` (default, common,
    group), ``figure`` (overall, group, mean, worst, gap), ``group``, ``n_real, n_generated, estimate, floor, excess,
    ci_low, ci_high`` (of the excess), ``reference`` ("" or the set it is held against), ``difference, difference_low,
    difference_high, p_value, note``.
    """

    folder: Path
    guidance: Guidance
    table: pd.DataFrame
    gain: pd.DataFrame | None

    @property
    def choice(self) -> pd.DataFrame:
        """One row a group: ``group``, guidance, and excess KD on the images tuned on, by each of the three choices.

        Columns ``default, common, calibrated`` (guidance), ``excess_default, excess_common, excess_calibrated``,
        ``change_default`` and ``change_common`` (calibrated less that one; positive: the group gets worse), ``note``.
        """
        return choice_table(self.table, self.guidance)

    @property
    def settings(self) -> dict[str, Any]:
        """The content of ``calibration.json``."""
        return asdict(self.guidance)


def calibrate(
    generator: str | Path | Run | Generator,
    tune: Cohort,
    confirm: Cohort | None,
    *,
    attribute: str,
    out: str | Path | None = None,
    objective: Objective = "worst",
    gap_weight: float = 1.0,
    budget: int = 4000,
    bounds: tuple[float, float] = (1.0, 4.0),
    images: int | None = None,
    steps: int = 20,
    encoder: str | Encoder = "efficientnet-lite0",
    against: Against = "images",
    confirm_images: int = 1000,
    replicates: int = 500,
    min_patients: int = 30,
    seed: int = 0,
    batch: int = 32,
    device: str | None = None,
    show: bool = True,
) -> Calibration:
    """Choose the guidance of each group by Bayesian optimisation against held-out real images (METHODS section 3).

    Guidance moves quality at first order and differently in each group. The excess KD e_g(w_g) of a group depends on
    its own guidance alone, so each group has a curve of its own (``search``), on prompts and seeds that are the same
    at every guidance. Chosen is the exact minimum over the curves, beside it the best guidance that all groups share:

        worst:  min_w max_g e_g(w_g)         gap:  min_w mean_g e_g(w_g) + gap_weight (max_g e_g(w_g) - min_g e_g(w_g))

    With ``gap`` a gap may be closed by making the best groups worse (levelling down); ``Calibration.choice`` shows
    each group's change. The numbers of ``table`` are those that were searched, so they flatter the choice: ``gain``,
    measured on other patients, other prompts' seeds, is what may be quoted. ``calibration.json`` is saved with the
    generator and in ``out``.

    Args:
        generator: its folder, a finished run, or an open pipeline (then ``out`` must be given).
        tune: held-out real images to tune on: the validation split. None may be of the training split.
        confirm: other real images, of other patients, to measure the gain on: the test split. None: no gain.
        attribute: of which groups, or an intersection such as "sex & age". Groups with too few patients take the
            common guidance.
        out: folder of tables and of everything that was made; ``<generator>/calibration`` by default. Interrupted, the
            same call goes on from there; done, it returns what it found.
        objective: "worst" or "gap".
        gap_weight: multiple of the gap, 0 or more; only with "gap".
        budget: images that the search may make, never exceeded; those of the gain are not counted.
        bounds: least and greatest guidance.
        images: images of a group in each evaluation; None: so many that each group has eight, at most 250.
        steps: of the sampler.
        encoder: as for ``evaluate``.
        against: "images", or "reconstructions": the real images as the generator's autoencoder keeps them, so that
            what it loses, which no guidance brings back and which differs between groups, is not counted.
        confirm_images: images of each of the three sets that the gain is measured on.
        replicates: bootstrap replicates of the gain.
        min_patients: groups with fewer patients among ``tune`` get no guidance of their own.
        seed: of prompts, seeds and resampling.
        batch: images held at once.
        device: for the generator.
        show: show progress bars.

    Raises:
        InputError: before any image is made, for options that make no sense, an attribute or level that is unknown,
            fewer than two groups that are large enough, training images or shared patients among the real ones, a
            budget that is too small.

    """
    check_options(objective, gap_weight, budget, bounds, images, steps, confirm_images, replicates, against)
    check_sides(tune, confirm, attribute)
    home, folder = _places(generator, out)
    for side in [tune] if home is None or confirm is None else [tune, confirm]:
        check_unseen(side, [("the generator", home)] if home is not None else [], "This cohort cannot calibrate")
    pipeline = opened(generator, device)
    network, low_high = load_encoder(encoder), (float(bounds[0]), float(bounds[1]))
    names, left_out = eligible_groups(tune, attribute, min_patients)
    each = images_each(images, budget, len(names), START)
    rows = group_rows(tune, names, attribute, each, steps, seed)
    pipeline.check(rows.assign(guidance=low_high[0]))
    through = _coder(pipeline) if against == "reconstructions" else None
    asked = Guidance(
        attribute=attribute, groups={}, common=DEFAULT, default=DEFAULT, objective=objective, left_out=left_out,
        gap_weight=float(gap_weight), bounds=low_high, budget=budget, spent=0, images=each, steps=steps, seed=seed,
        encoder=identity(network), cohort=tune.name, cohort_hash=tune.hash, generator=pipeline.hash,
        split=", ".join(sorted(set(tune.frame["split"]))), equigen=equigen.__version__,
        against=against,
    )
    confirming = None if confirm is None else [confirm.hash, confirm_images, replicates, min_patients]
    claim = {"asked": asdict(asked) | {"bounds": list(low_high)}, "confirm": confirming}
    done = _finished(folder, claim)
    if done is None:
        chosen, table = _tuned(asked, tune, rows, network, pipeline, folder, show, through)
        settings = Settings(replicates=replicates, seed=seed, min_patients=min_patients)
        gain = None if confirm is None else measure_gain(
            pipeline, confirm, chosen, ordered_levels(tune, attribute), network, images=confirm_images,
            settings=settings, out=folder / "confirm", batch=batch, show=show, through=through,
        )  # fmt: skip
        done = Calibration(folder, chosen, table, gain)
        _save(done, claim)
    if home is not None:
        done.guidance.save(home)
    return done


def _tuned(
    asked: Guidance, tune: Cohort, rows: pd.DataFrame, network: Encoder, pipeline: Generator, folder: Path,
    show: bool, through: Autoencoder | None,
) -> tuple[Guidance, pd.DataFrame]:
    """The choice, and the table of the search that it comes from."""
    size, cache = pipeline.size, folder / "features"
    groups = make_groups(tune, rows, asked.attribute, network, size, seed=asked.seed, cache=cache, show=show,
                         through=through)
    maker = Maker(Batched(pipeline), asked.generator, network, size, folder / "evaluations")
    table = _searched(groups, asked, maker, show)
    spent = int((table["kind"] == "evaluated").sum()) * asked.images
    return replace(asked, spent=spent, **chosen_guidance(table)), table


def _searched(groups: list[Group], asked: Guidance, maker: Maker, show: bool) -> pd.DataFrame:
    """Spend the budget and table what was found; evaluations that an earlier run made are read back."""
    goal = Goal(asked.objective, asked.gap_weight, asked.bounds)
    evaluations = min(asked.budget // asked.images, GRID * len(groups))
    with progress_bar("Calibrating (images)", evaluations * asked.images, show=show) as bar:

        def measure(number: int, guidance: float) -> float:
            group = groups[number]
            bar.note(f"{group.name} at {guidance:g}")
            made = maker.features(group.rows.assign(guidance=guidance), bar.advance)
            return group.kernel_distance(made) - group.floor

        points = search(len(groups), evaluations, goal, measure)
    return calibration_table(groups, points, goal)


def _coder(pipeline: Generator) -> Autoencoder:
    """The autoencoder of a generator."""
    found: Autoencoder | None = getattr(pipeline, "autoencoder", None)
    if found is None:
        problem = Problem("the generator has no autoencoder", "calibrate against images")
        raise InputError("There are no reconstructions.", [problem])
    return found


def _places(generator: str | Path | Run | Generator, out: str | Path | None) -> tuple[Path | None, Path]:
    """The generator's folder (None: it has none) and that of the calibration."""
    if isinstance(generator, (str, Path, Run)):
        home = generator.folder if isinstance(generator, Run) else Path(generator)
        return home, Path(out) if out is not None else home / "calibration"
    if out is None:
        problem = Problem("an open pipeline has no folder", "say with out where the calibration is to be kept")
        raise InputError("There is no place for the calibration.", [problem])
    return None, Path(out)


def _finished(folder: Path, claim: dict[str, Any]) -> Calibration | None:
    """What an earlier call with the same inputs found; None where there was none, or it was interrupted."""
    place = folder / CLAIM
    if not place.is_file() or read_json(place) != json.loads(json.dumps(claim)):
        return None
    gain = read_parquet(folder / GAIN) if claim["confirm"] is not None else None
    return Calibration(folder, load_calibration(folder), read_parquet(folder / TABLE), gain)


def _save(found: Calibration, claim: dict[str, Any]) -> None:
    """Tables first, the claim that all is done last."""
    (found.folder / CLAIM).unlink(missing_ok=True)
    write_parquet(found.folder / TABLE, found.table)
    if found.gain is not None:
        write_parquet(found.folder / GAIN, found.gain)
    else:
        (found.folder / GAIN).unlink(missing_ok=True)
    found.guidance.save(found.folder)
    write_json(found.folder / CLAIM, claim)
