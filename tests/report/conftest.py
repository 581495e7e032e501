"""Made-up tables in the shape of the contract: plausible enough to look at, small enough to be fast."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from report_rows import ATTRIBUTES, NAN, SIZES, fairness_row, quality_row

from equigen.report import ClosePairs, Grid


def _quality_run(run, level, rng, metric="kd", scale=1.0):
    rows = [quality_row(run, "*", "*", level * scale, 0.012 * scale, metric)]
    for attribute, groups in ATTRIBUTES.items():
        values = {group: level + float(rng.normal(0, 0.08)) * level for group in groups}
        for group, value in values.items():
            small = SIZES[group] < 30
            more = (
                {
                    "estimate": NAN,
                    "ci_low": NAN,
                    "ci_high": NAN,
                    "floor": NAN,
                    "excess": NAN,
                    "note": "too small: 12 patients, 30 needed",
                }
                if small
                else {}
            )
            rows.append(
                quality_row(run, attribute, group, value * scale, 0.2 * scale / SIZES[group] ** 0.5, metric, more)
            )
        gap = (max(values.values()) - min(values.values())) * scale
        rows.append(
            quality_row(
                run,
                attribute,
                "gap",
                gap,
                0.02 * scale,
                metric,
                null_low=0.002 * scale,
                null_high=0.08 * scale,
                p_value=0.004 if gap > 0.08 * scale else 0.31,
            )
        )
        rows.append(
            quality_row(
                run,
                attribute,
                "es",
                (level + gap) * scale,
                0.03 * scale,
                metric,
                null_low=level * scale,
                null_high=(level + 0.05) * scale,
            )
        )
    return rows


@pytest.fixture(scope="session")
def quality():
    """Two mechanisms, the autoencoder, a metric of every family and intersections; one group is too small."""
    rng = np.random.default_rng(3)
    rows = []
    for run, level in {
        "reconstruction": 0.04,
        "none": 0.28,
        "perturbation": 0.25,
        "perturbation-released": 0.29,
    }.items():
        rows += _quality_run(run, level, rng) + _quality_run(run, 0.5, rng, "is", 10)
    for run in ("none", "perturbation", "perturbation-released"):
        for metric in ("oracle_accuracy", "semantic_auc", "coverage", "near_copies"):
            rows += _quality_run(run, 0.81, rng, metric, 1.0)
        for group, value in (("female & under 40", NAN), ("female & 40 to 59", 0.3), ("male & 40 to 59", 0.2)):
            note = "" if value == value else "too small: 3 patients"
            rows.append(quality_row(run, "sex & age", group, value, note=note))
    return pd.DataFrame(rows)


@pytest.fixture(scope="session")
def comparison():
    """One mechanism against another: overall, one attribute, its gap; one row without numbers."""
    rows = [
        {"run": "perturbation", "difference_to": "none", "encoder": "efficientnet-lite0", "metric": metric,
         "attribute": attribute, "group": group, "estimate": 0.25, "reference": 0.28, "difference": difference,
         "ci_low": difference - 0.02, "ci_high": difference + 0.02, "p_value": 0.01, "note": "paired"}
        for metric in ("kd", "near_copies", "coverage")
        for attribute, group, difference in (("*", "*", -0.03), ("sex", "female", 0.01), ("sex", "male", NAN),
                                             ("sex", "gap", 0.04))
    ]  # fmt: skip
    return pd.DataFrame(rows)


@pytest.fixture(scope="session")
def copies():
    """Three pairs of one run: images, and their rows."""
    images = np.random.default_rng(5).integers(0, 255, (2, 3, 64, 64, 3)).astype(np.uint8)
    table = pd.DataFrame({"run": "none", "rank": [1, 2, 3], "generated": ["a.png", "b.png", "c.png"],
                          "training": "row 7", "distance": [1.0, 1.5, NAN], "ratio": [0.5, 0.7, NAN],
                          "near_copy": [True, False, None], "attr.sex": ["female", None, "male"]})  # fmt: skip
    return [ClosePairs("none", images[0], images[1], ["one", "two", "three"], 1.2)], table


def _fairness_task(task, rng, tasks_rows):
    for recipe, gain in {"real": 0.0, "real+none@1": 0.012, "real+perturbation@1": 0.03}.items():
        for domain, level in {"id": 0.84, "ood": 0.74, "camera-b": 0.75}.items():
            pair = (
                {}
                if recipe == "real"
                else {
                    "difference_to": "real",
                    "difference": gain,
                    "difference_low": gain - 0.02,
                    "difference_high": gain + 0.022,
                }
            )
            tasks_rows.append(fairness_row(recipe, "*", "*", level + gain, domain, task=task, width=0.02, **pair))
            tasks_rows.append(
                fairness_row(
                    recipe,
                    "*",
                    "*",
                    level - 0.1 + gain,
                    domain,
                    "balanced_accuracy",
                    task=task,
                    width=0.02,
                    **pair,
                )
            )
            for attribute, groups in ATTRIBUTES.items():
                values = {group: level + gain + float(rng.normal(0, 0.03)) for group in groups}
                for group, value in values.items():
                    empty = (
                        {
                            "estimate": NAN,
                            "ci_low": NAN,
                            "ci_high": NAN,
                            "note": "too small: 12 patients, 30 needed",
                        }
                        if SIZES[group] < 30
                        else {}
                    )
                    tasks_rows.append(
                        fairness_row(
                            recipe,
                            attribute,
                            group,
                            value,
                            domain,
                            task=task,
                            width=0.8 / SIZES[group] ** 0.5,
                            more=empty,
                        )
                    )
                gap = max(values.values()) - min(values.values())
                change = (
                    {}
                    if recipe == "real"
                    else {
                        "difference_to": "real",
                        "difference": -0.01,
                        "difference_low": -0.05,
                        "difference_high": 0.03,
                    }
                )
                band = {"null_low": 0.01, "null_high": 0.15, "p_value": 0.4}
                tasks_rows.append(fairness_row(recipe, attribute, "gap", gap, domain, task=task, **band, **change))
                tasks_rows.append(
                    fairness_row(
                        recipe,
                        attribute,
                        "es",
                        level - gap,
                        domain,
                        task=task,
                        null_low=level - 0.2,
                        null_high=level,
                    )
                )
                for name in ("dpd", "deodds"):
                    tasks_rows.append(
                        fairness_row(recipe, attribute, "gap", gap * 1.5, domain, name, task=task, **band, **change)
                    )


@pytest.fixture(scope="session")
def fairness():
    """One binary task, three recipes, in and out of distribution and one site."""
    rows: list = []
    _fairness_task("glaucoma", np.random.default_rng(4), rows)
    return pd.DataFrame(rows)


@pytest.fixture(scope="session")
def many_tasks():
    """Nine tasks, two of them summaries."""
    rows: list = []
    for place, task in enumerate(["macro", "high_risk", "mel", "nv", "bcc", "akiec", "bkl", "df", "vasc"]):
        _fairness_task(f"dx:{task}", np.random.default_rng(place), rows)
    return pd.DataFrame(rows)


@pytest.fixture(scope="session")
def counts():
    """Counts per diagnosis, group and split."""
    rows = [
        {
            "label": "glaucoma",
            "level": level,
            "attribute": attribute,
            "group": group,
            "split": split,
            "images": max(1, int(SIZES[group] * share * part)),
            "patients": max(1, int(SIZES[group] * share * part / 2)),
            "small": SIZES[group] * share * part / 2 < 30,
        }
        for level, share in (("healthy", 0.6), ("glaucoma", 0.4))
        for attribute, groups in ATTRIBUTES.items()
        for group in groups
        for split, part in (("train", 0.7), ("val", 0.1), ("test", 0.2))
    ]
    return pd.DataFrame(rows)


@pytest.fixture(scope="session")
def history():
    """Two generators: batch and probe losses, sigma of one of them."""
    result = {}
    for place, name in enumerate(("none", "perturbation")):
        rng, rows = np.random.default_rng(place), []
        for seen in range(0, 40_000, 100):
            rows.append((seen, "train", "*", "*", 0.2 + np.exp(-seen / 8000) + rng.normal(0, 0.03)))
        for seen in range(0, 40_001, 2000):
            rows.append((seen, "probe_heldout", "*", "*", 0.2 + np.exp(-seen / 8000)))
            for attribute, groups in ATTRIBUTES.items():
                for offset, group in enumerate(groups):
                    rows.append((seen, "probe_heldout", attribute, group, 0.18 + 0.02 * offset + np.exp(-seen / 8000)))
                    if place:
                        rows.append((seen, "sigma", attribute, group, float(rng.uniform())))
        result[name] = pd.DataFrame(rows, columns=["images_seen", "kind", "attribute", "group", "value"])
    return result


@pytest.fixture(scope="session")
def grids():
    """Coloured discs, one colour a group."""
    y, x = np.mgrid[:64, :64]
    disc = (((x - 32) ** 2 + (y - 32) ** 2) < 20**2)[None, None, :, :, None]
    rng = np.random.default_rng(0)

    def images(seed):
        colour = np.random.default_rng(seed).integers(60, 255, (3, 5, 1, 1, 3))
        noise = rng.integers(0, 30, (3, 5, 64, 64, 3))
        return (disc * colour * 0.8 + noise).clip(0, 255).astype(np.uint8)

    generated = {"none": images(2), "perturbation": images(3)}
    return [
        Grid(
            "Phantoms by race",
            ["asian", "black", "white"],
            images(1),
            generated,
            "The same five requests in every column; the first five of the test set.",
        )
    ]


@pytest.fixture(scope="session")
def everything(quality, fairness, counts, history, grids, comparison, copies):
    """All arguments of write_report but the folder."""
    return {
        "title": "Equal image quality on the fundus phantom",
        "phantom": True,
        "summary_facts": {
            "Cohort": "phantom, 4 000 images, 2 000 patients",
            "Generators": "none, perturbation",
            "Training seeds": "1",
            "Image size": "64 x 64",
        },
        "counts": counts,
        "quality": quality,
        "fairness": fairness,
        "history": history,
        "grids": grids,
        "differences": comparison,
        "copies": copies[0],
        "copies_table": copies[1],
        "settings": {
            "training": {"images": 40_000, "batch": 64, "learning_rate": 2e-4},
            "seed": 0,
            "mechanisms": ["none", "perturbation"],
        },
        "warnings": ["3 images were quarantined: truncated file"],
        "timings": {"train": 212.4, "evaluate": 33.0},
        "versions": {"equigen": "0.1.0", "torch": "2.13.0"},
    }
