"""Calibration of the guidance per group by Bayesian optimisation against held-out real images."""

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
from equigen.files import write_json
from equigen.integrity import read_record
from equigen.latents import Autoencoder
from equigen.parquet import read_parquet, write_parquet
from equigen.progress import progress_bar
from equigen.quality import Encoder, ResamplingSettings, identity, load_encoder
from equigen.synthesis.calibration.checks import (
    check_cohorts,
    check_options,
    eligible_groups,
    images_per_group,
    ordered_levels,
    require_autoencoder,
)
from equigen.synthesis.calibration.gain import measure_gain
from equigen.synthesis.calibration.measurement import Evaluator, group_rows, make_groups
from equigen.synthesis.calibration.search import GRID, INITIAL_POINTS, Goal, search
from equigen.synthesis.calibration.tables import calibration_table, choice_table, chosen_guidance
from equigen.synthesis.chunks import Batched
from equigen.synthesis.generation import open_pipeline
from equigen.synthesis.guidance import DEFAULT, Guidance, Objective, load_calibration
from equigen.synthesis.policies import Reference
from equigen.training import Run

TABLE, GAIN, INPUTS_FILE = "calibration.parquet", "gain.parquet", "claim.json"


@dataclass(frozen=True)
class Calibration:
    """The result of ``calibrate``: the chosen guidance and its tables.

    ``table`` (``calibration.parquet``): one row for each group of each ``kind`` and ``name``:

    * ``evaluated`` (``name`` 0, 1, ..., in sequence): the measured evaluations;
    * ``curve`` (``name``: the guidance): mean excess KD of the Gaussian process at each guidance, with ``low`` and
      ``high`` two standard deviations below and above;
    * ``shared`` (``name``: the guidance): all groups at one guidance;
    * ``front`` (``name`` 0, 1, ...: from the lowest mean to the smallest gap): the Pareto-optimal choices;
    * ``chosen`` (``name``: default, common, group): the three choices that are compared.

    Columns: ``kind, name, group, guidance, estimate, floor, excess, low, high, mean, gap, worst``; the last three are
    the mean, gap and greatest excess KD over the groups of the choice.

    ``gain`` (``gain.parquet``) is None without confirming images. Columns: ``set`` (default, common,
    group), ``figure`` (overall, group, mean, worst, gap), ``group``, ``n_real, n_generated, estimate, floor, excess,
    ci_low, ci_high`` (of the excess), ``reference`` ("" or the set of the difference), ``difference, difference_low,
    difference_high, p_value, note``.
    """

    folder: Path
    guidance: Guidance
    table: pd.DataFrame
    gain: pd.DataFrame | None

    @property
    def choice(self) -> pd.DataFrame:
        """One row a group: the guidance and the excess KD on the tuning images by each of the three choices.

        Columns ``group``, ``default, common, calibrated`` (guidance), ``excess_default, excess_common,
        excess_calibrated``, ``change_default`` and ``change_common`` (calibrated less that choice; positive: the group
        gets worse), ``note``.
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
    against: Reference = "images",
    confirm_images: int = 1000,
    replicates: int = 500,
    min_patients: int = 30,
    seed: int = 0,
    batch: int = 32,
    device: str | None = None,
    show: bool = True,
) -> Calibration:
    """Choose the guidance of each group by Bayesian optimisation against held-out real images (METHODS section 3).

    The effect of guidance on quality differs between groups. The excess KD e_g(w_g) of a group depends on its own
    guidance alone, so each group has its own curve (``search``), on prompts and seeds that are the same at every
    guidance. The choice is the exact minimum over the curves; the best common guidance is reported with it:

        worst:  min_w max_g e_g(w_g)         gap:  min_w mean_g e_g(w_g) + gap_weight (max_g e_g(w_g) - min_g e_g(w_g))

    With ``gap`` a gap may be closed by making the best groups worse (levelling down); ``Calibration.choice`` shows
    each group's change. The numbers of ``table`` are optimistic, since the choice was made on them; ``gain`` is
    measured on other patients and seeds and is the estimate to report. ``calibration.json`` is saved with the
    generator and in ``out``.

    Args:
        generator: its folder, a finished run, or an open pipeline (then ``out`` must be given).
        tune: held-out real images to tune on (the validation split), none of the training split.
        confirm: real images of other patients to measure the gain on (the test split); None: no gain.
        attribute: the attribute whose groups are calibrated, or an intersection such as "sex & age". Groups with too
            few patients take the common guidance.
        out: folder of the tables and generated images; ``<generator>/calibration`` by default. An interrupted call is
            resumed by the same call; a complete one returns its saved result.
        objective: "worst" or "gap".
        gap_weight: multiple of the gap, 0 or more; only with "gap".
        budget: greatest number of images of the search; those of the gain are not counted.
        bounds: least and greatest guidance.
        images: images of a group in each evaluation; None: as many as allow eight evaluations of each group, up to
            250.
        steps: of the sampler.
        encoder: as for ``evaluate``.
        against: "images", or "reconstructions": the real images after the generator's autoencoder, which excludes its
            loss. Guidance cannot restore that loss, and it differs between groups.
        confirm_images: images of each of the three sets of the gain.
        replicates: bootstrap replicates of the gain.
        min_patients: groups with fewer patients in ``tune`` take the common guidance.
        seed: of prompts, seeds and resampling.
        batch: images in memory at once.
        device: for the generator.
        show: show progress bars.

    Raises:
        InputError: before any image is generated, for invalid options, an unknown attribute or level, fewer than two
            groups with enough patients, training images or shared patients among the real images, or a budget that is
            too small.

    """
    check_options(objective, gap_weight, budget, bounds, images, steps, confirm_images, replicates, against)
    check_cohorts(tune, confirm, attribute)
    home = generator.folder if isinstance(generator, Run) else None
    if isinstance(generator, (str, Path)):
        home = Path(generator)
    folder = Path(out) if out is not None else home / "calibration" if home is not None else None
    if folder is None:
        problem = Problem("an open pipeline has no folder", "say with out where the calibration is to be kept")
        raise InputError("There is no place for the calibration.", [problem])
    for cohort in [tune] if home is None or confirm is None else [tune, confirm]:
        check_unseen(cohort, [("the generator", home)] if home is not None else [], "This cohort cannot calibrate")
    pipeline = open_pipeline(generator, device)
    network, limits = load_encoder(encoder), (float(bounds[0]), float(bounds[1]))
    names, left_out = eligible_groups(tune, attribute, min_patients)
    count = images_per_group(images, budget, len(names), INITIAL_POINTS)
    rows = group_rows(tune, names, attribute, count, steps, seed)
    pipeline.check(rows.assign(guidance=limits[0]))
    autoencoder = require_autoencoder(pipeline) if against == "reconstructions" else None
    settings = Guidance(
        attribute=attribute,
        groups={},
        common=DEFAULT,
        default=DEFAULT,
        objective=objective,
        left_out=left_out,
        gap_weight=float(gap_weight),
        bounds=limits,
        budget=budget,
        spent=0,
        images=count,
        steps=steps,
        seed=seed,
        encoder=identity(network),
        cohort=tune.name,
        cohort_hash=tune.hash,
        generator=pipeline.hash,
        split=", ".join(sorted(set(tune.frame["split"]))),
        equigen=equigen.__version__,
        against=against,
    )
    confirming = None if confirm is None else [confirm.hash, confirm_images, replicates, min_patients]
    inputs = {"asked": asdict(settings) | {"bounds": list(limits)}, "confirm": confirming}
    result = _read_finished(folder, inputs)
    if result is None:
        guidance, table = _search_guidance(settings, tune, rows, network, pipeline, folder, show, autoencoder)
        gain = None if confirm is None else measure_gain(
            pipeline, confirm, guidance, ordered_levels(tune, attribute), network, images=confirm_images,
            settings=ResamplingSettings(replicates=replicates, seed=seed, min_patients=min_patients),
            out=folder / "confirm", batch=batch, show=show, autoencoder=autoencoder,
        )  # fmt: skip
        result = Calibration(folder, guidance, table, gain)
        (folder / INPUTS_FILE).unlink(missing_ok=True)  # written last: it marks a complete calibration
        write_parquet(folder / TABLE, table)
        if gain is not None:
            write_parquet(folder / GAIN, gain)
        else:
            (folder / GAIN).unlink(missing_ok=True)
        guidance.save(folder)
        write_json(folder / INPUTS_FILE, inputs)
    if home is not None:
        result.guidance.save(home)
    return result


def _search_guidance(
    settings: Guidance,
    tune: Cohort,
    rows: pd.DataFrame,
    network: Encoder,
    pipeline: Generator,
    folder: Path,
    show: bool,
    autoencoder: Autoencoder | None,
) -> tuple[Guidance, pd.DataFrame]:
    """The chosen guidance and the table of the search; evaluations of an earlier run are read from disk."""
    groups = make_groups(
        tune,
        rows,
        settings.attribute,
        network,
        pipeline.size,
        seed=settings.seed,
        cache=folder / "features",
        show=show,
        autoencoder=autoencoder,
    )
    evaluator = Evaluator(Batched(pipeline), settings.generator, network, pipeline.size, folder / "evaluations")
    goal = Goal(settings.objective, settings.gap_weight, settings.bounds)
    evaluations = min(settings.budget // settings.images, GRID * len(groups))
    with progress_bar("Calibrating (images)", evaluations * settings.images, show=show) as bar:

        def measure(index: int, guidance: float) -> float:
            group = groups[index]
            bar.note(f"{group.name} at {guidance:g}")
            features = evaluator.features(group.rows.assign(guidance=guidance), bar.advance)
            return group.kernel_distance(features) - group.floor

        points = search(len(groups), evaluations, goal, measure)
    table = calibration_table(groups, points, goal)
    spent = int((table["kind"] == "evaluated").sum()) * settings.images
    return replace(settings, spent=spent, **chosen_guidance(table)), table


def _read_finished(folder: Path, inputs: dict[str, Any]) -> Calibration | None:
    """The saved result of an earlier call with the same inputs; None without a complete one."""
    if read_record(folder / INPUTS_FILE) != json.loads(json.dumps(inputs)):
        return None
    gain = read_parquet(folder / GAIN) if inputs["confirm"] is not None else None
    return Calibration(folder, load_calibration(folder), read_parquet(folder / TABLE), gain)
