from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors
from test_manifold import make_plan, normal

from equigen.errors import InputError
from equigen.quality.cells import GroupedImages
from equigen.quality.metrics.frechet import frechet_distance
from equigen.quality.metrics.influence import Influence
from equigen.quality.metrics.manifold import measure_manifold
from equigen.quality.metrics.memorisation import (
    closest_pairs,
    distance_ratio,
    measure_memorisation,
    search_training,
)
from equigen.quality.metrics.mifid import memorisation_informed_distance, mifid_influence
from equigen.statistics import p_value


class Same(torch.nn.Module):
    """An extractor for torchmetrics that hands features through."""

    num_features = 1

    def forward(self, values):
        return values


def torchmetrics_mifid(first, second, tau):
    """MiFID of torchmetrics, which averages the distance over those given as real."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torchmetrics.image.mifid import MemorizationInformedFrechetInceptionDistance

        metric = MemorizationInformedFrechetInceptionDistance(Same(), cosine_distance_eps=tau).set_dtype(torch.float64)
        for values, real in ((first, True), (second, False)):
            metric.update(torch.from_numpy(values), real=real)
        return float(metric.compute())


def names(side, n, each=1):
    return np.array([f"{side}{i // each}" for i in range(n)])


def measure(real, generated, train, group=None, patients=None, **settings):
    """Measure with one image per patient; ``group`` holds codes of real and generated rows."""
    patients = patients or (names("r", len(real)), names("t", len(train)))
    groups = {"sex": group} if group is not None else {"sex": (np.zeros(len(real), int), np.zeros(len(generated), int))}
    sides = [
        GroupedImages(people, {name: codes[index] for name, codes in groups.items()})
        for index, people in enumerate((patients[0], names("g", len(generated))))
    ]
    plan = make_plan(*sides, {"sex": ["a", "b"]} if group is not None else {}, **settings)
    measured, closest = measure_memorisation(real, generated, train, *patients, plan)
    return {item.metric: item for item in measured}, closest


# pure functions


def test_ratio_by_hand_and_an_exact_copy_is_zero():
    near, far = np.array([1.0, 0.0, 0.0, 3.0, 2.0, 1.0]), np.array([4.0, 2.0, 0.0, 0.0, 1e-9, np.inf])
    found = distance_ratio(near, far)
    assert found[:5].tolist() == [0.25, 0, 0, 10, 10]
    assert np.isnan(found[5])


@pytest.mark.parametrize(("spread", "tau"), [(0.3, 0.1), (0.05, 0.1), (0.5, 0.9)])
def test_mifid_agrees_with_torchmetrics(spread, tau):
    base = 1 + normal(60, 5, 1)
    real, generated = base, base[:40] + spread * normal(40, 5, 2)
    ours = memorisation_informed_distance(real, generated, tau)
    assert ours > 2 * frechet_distance(real, generated) or tau < 0.2  # the penalty is at work
    assert ours == pytest.approx(torchmetrics_mifid(generated, real, tau), rel=1e-8)


def test_without_a_close_training_image_mifid_is_the_frechet_distance():
    rng = np.random.default_rng(0)
    real, generated = rng.standard_normal((50, 40)), rng.standard_normal((50, 40))
    assert memorisation_informed_distance(real, generated) == pytest.approx(frechet_distance(real, generated))
    assert memorisation_informed_distance(real, generated) == pytest.approx(torchmetrics_mifid(real, generated, 0.1))
    copies = memorisation_informed_distance(real, generated, training=np.concatenate([real, generated]))
    assert copies > 1e10 * frechet_distance(real, generated)
    assert memorisation_informed_distance(real, real) == 0


def test_mifid_by_hand():
    # 90 and 45 degrees apart: d = (0 + (1 - sqrt 1/2)) / 2
    training, generated = np.array([[1.0, 0.0], [2.0, 0.0]]), np.array([[5.0, 0.0], [3.0, 3.0]])
    d = (1 - np.sqrt(0.5)) / 2
    expected = frechet_distance(training, generated) / d
    assert memorisation_informed_distance(training, generated, 0.2) == pytest.approx(expected)
    assert memorisation_informed_distance(training, generated, 0.1) == pytest.approx(expected * d)
    with pytest.raises(InputError, match="tau is 0"):
        memorisation_informed_distance(training, generated, 0)


def test_influences_of_the_penalty_are_its_derivative():
    rng = np.random.default_rng(1)
    angles, psi = 0.05 * rng.random(6), rng.standard_normal(6)
    part = Influence(3.0, np.array([1.0, -1.0]), psi - psi.mean())
    found = mifid_influence(part, angles)
    assert found.value == pytest.approx(3 / angles.mean())
    weights, step = rng.random(6), 1e-6
    weights = weights / weights.sum() - 1 / 6
    moved = (3 + step * weights @ part.generated) / (angles.mean() + step * weights @ angles)
    assert (moved - found.value) / step == pytest.approx(weights @ found.generated, rel=1e-3)
    assert found.real == pytest.approx(part.real / angles.mean())
    assert mifid_influence(part, angles + 1) is part
    lost = mifid_influence(part, np.where(np.arange(6) == 2, np.nan, angles))
    assert lost.value == pytest.approx(3 / np.delete(angles, 2).mean())
    assert np.isfinite(lost.generated).all()


# measured


def test_per_image_figures_by_hand():
    train, real = np.array([[0.0], [1.0], [10.0], [30.0]]), np.array([[3.0], [14.0], [15.0]] * 10)
    generated = np.array([[0.0], [2.0], [11.0], [29.0]] * 5)
    measured, closest = measure(real, generated, train, min_patients=2)
    assert closest.training.tolist() == [0, 1, 2, 3] * 5
    assert closest.distance.tolist() == [0, 1, 1, 1] * 5
    assert closest.ratio == pytest.approx([0, 1, 1 / 3, 1 / 14] * 5)
    # held out: 3 is 2 from 1; 14 and 15 are 4 and 5 from 10; the 1 % quantile is 2
    assert closest.threshold == 2
    assert closest.near_copy.all()
    figures = {name: item.estimates["*", "*"] for name, item in measured.items()}
    assert figures["nn_ratio"].value == pytest.approx(np.mean([0, 1, 1 / 3, 1 / 14]))
    # training images are 1, 1, 9, 20 from their nearest other: none is farther away than that
    assert figures["authenticity"].value == 0
    assert figures["authenticity"].floor == pytest.approx(1 / 3)  # 3 is 2 from 1, which is 1 from 0
    assert figures["near_copies"].value == 1
    assert figures["near_copies"].floor == pytest.approx(1 / 3)
    assert figures["nn_ratio"].floor == 10  # the held-out images are copies of each other, not of training
    assert closest_pairs(closest, 7).tolist() == [0, 4, 8, 12, 16, 3, 7]


def test_scores_agree_with_scikit_learn():
    real, generated, train = normal(80, 4), normal(70, 4, 1), normal(90, 4, 2)
    measured, closest = measure(real, generated, train)
    in_train, in_real = (NearestNeighbors(n_neighbors=2).fit(side) for side in (train, real))
    near = in_train.kneighbors(generated)
    assert closest.distance == pytest.approx(near[0][:, 0])
    assert closest.training.tolist() == near[1][:, 0].tolist()
    ratio = near[0][:, 0] / in_real.kneighbors(generated)[0][:, 0]
    assert closest.ratio == pytest.approx(ratio)
    spacing = in_train.kneighbors(train)[0][:, 1]
    floor = in_train.kneighbors(real)
    held = floor[0][:, 0] / in_real.kneighbors(real)[0][:, 1]
    assert measured["nn_ratio"].estimates["*", "*"].floor == pytest.approx(held.mean())
    authentic = measured["authenticity"].estimates["*", "*"]
    assert authentic.value == pytest.approx(np.mean(near[0][:, 0] > spacing[near[1][:, 0]]))
    assert authentic.floor == pytest.approx(np.mean(floor[0][:, 0] > spacing[floor[1][:, 0]]))
    assert closest.threshold == pytest.approx(np.quantile(floor[0][:, 0], 0.01))
    assert {name: item.kind for name, item in measured.items()} == {
        "nn_ratio": "higher",
        "authenticity": "share",
        "near_copies": "lower",
        "mifid": "lower",
    }


@pytest.fixture(scope="module")
def planted():
    """900 images a side, a sixth of group b, in which one generated image in ten is a noisy copy."""
    rng = np.random.default_rng(7)
    group = rng.permutation(np.arange(900) % 6 == 0).astype(int)
    sides = [normal(900, 12, seed) + 0.5 * group[:, None] for seed in (11, 12, 13)]
    minority = np.flatnonzero(group)
    copies, sources = minority[:15], rng.choice(minority, 15, replace=False)
    sides[1][copies] = sides[2][sources] + 0.05 * rng.standard_normal((15, 12))
    return (*measure(*sides, group=(group, group), replicates=300), copies, sources)


def test_copies_planted_in_a_minority_are_found_in_its_row_alone(planted):
    near = planted[0]["near_copies"]
    low_high = {name: np.quantile(near.estimates["sex", name].replicates, [0.025, 0.975]) for name in "ab"}
    a, b = near.estimates["sex", "a"], near.estimates["sex", "b"]
    assert b.value == pytest.approx(0.1, abs=0.02)
    assert low_high["b"][0] > b.floor + 0.02
    assert low_high["a"][0] <= a.floor <= low_high["a"][1]
    gaps = np.ptp(near.null["sex"], axis=1)
    assert abs(a.value - b.value) > gaps.max()
    ratio = planted[0]["nn_ratio"]
    lost = {name: ratio.estimates["sex", name].floor - ratio.estimates["sex", name].value for name in "ab"}
    assert lost["b"] > 0.05 > abs(lost["a"])


def test_the_closest_pairs_are_the_planted_ones(planted):
    _, closest, copies, sources = planted
    assert sorted(closest_pairs(closest, 15)) == sorted(copies)
    assert closest.training[copies].tolist() == sources.tolist()
    assert closest.near_copy[copies].all()


def test_a_generator_like_held_out_data_stays_at_its_floor():
    differences = []
    for seed in range(6):
        measured, _ = measure(*(normal(400, 6, 100 * seed + side) for side in range(3)), replicates=20)
        estimates = [measured[name].estimates["*", "*"] for name in ("nn_ratio", "authenticity", "near_copies")]
        differences.append([own.value - own.floor for own in estimates])
    mean, error = np.mean(differences, axis=0), np.std(differences, axis=0, ddof=1) / np.sqrt(6)
    assert (np.abs(mean) < 4 * error + 1e-3).all(), (mean, error)
    assert (np.abs(mean) < [0.03, 0.03, 0.01]).all()


def test_the_floor_shows_what_a_larger_training_set_does():
    measured, _ = measure(normal(100, 2), normal(100, 2, 1), normal(2000, 2, 2), replicates=20)
    ratio = measured["nn_ratio"].estimates["*", "*"]
    assert ratio.value < 0.7  # not near 1, though nothing is copied
    assert ratio.value == pytest.approx(ratio.floor, abs=0.12)


def test_patients_are_kept_apart_and_a_leak_is_named():
    train = np.concatenate([normal(60, 3), 50 + normal(40, 3, 1)])
    real = np.concatenate([normal(60, 3, 2), train[60:]])  # the last 40 are training images
    clean, _ = measure(real, normal(50, 3, 3), train)
    assert clean["near_copies"].note.count("no held-out patient is a training patient") == 1
    assert "exact copies in training" in clean["near_copies"].note
    patients = np.concatenate([names("r", 60), names("s", 40)]), np.concatenate([names("t", 60), names("s", 40)])
    leaky, closest = measure(real, normal(50, 3, 3), train, patients=patients)
    assert "40 held-out patients are training patients too" in leaky["near_copies"].note
    assert closest.threshold > 0  # a held-out image is not compared with its own patient's training images
    everything, one = measure(real, train[60:].copy(), train, patients=patients)
    assert (one.distance == 0).all()  # but a generated one is compared with all
    assert everything["near_copies"].estimates["*", "*"].value == 1


def test_a_reconstruction_is_not_compared_with_its_original():
    real, train = normal(60, 4), normal(60, 4, 1)
    patients = names("r", 60)
    made = real + 1e-3
    plan = make_plan(GroupedImages(patients, {}), GroupedImages(patients, {}), {})
    plain, _ = measure_memorisation(real, made, train, patients, names("t", 60), plan)
    apart, _ = measure_memorisation(real, made, train, patients, names("t", 60), plan, generated_patients=patients)
    assert plain[0].estimates["*", "*"].value == 10
    own = apart[0].estimates["*", "*"]
    assert own.value == pytest.approx(own.floor, abs=1e-2)
    # but a generated image that is said to be of a training patient is held against that patient's images
    found = search_training(real, train + 1e-3, train, patients, names("t", 60), generated_patients=names("t", 60))
    assert found.closest.training.tolist() == list(range(60))


def test_one_search_serves_many_tables_and_its_held_out_part_many_generators(monkeypatch):
    real, made, other, train = (normal(60, 3, seed) for seed in range(4))
    people = names("r", 60), names("t", 60)
    plan = make_plan(GroupedImages(people[0], {}), GroupedImages(names("g", 60), {}), {}, replicates=20)
    plain, closest = measure_memorisation(real, made, train, *people, plan)
    search = search_training(real, other, train, *people)
    shared = search_training(real, made, train, *people, held_out=search.held_out)
    monkeypatch.setattr("equigen.quality.metrics.memorisation.nearest_neighbours", None)  # no second search
    again, same = measure_memorisation(real, made, train, *people, plan, search=shared)
    assert [item.estimates["*", "*"].value for item in again] == [item.estimates["*", "*"].value for item in plain]
    assert [item.estimates["*", "*"].floor for item in again] == [item.estimates["*", "*"].floor for item in plain]
    assert same.ratio.tolist() == closest.ratio.tolist()
    assert search.closest.distance.tolist() != same.distance.tolist()


@pytest.mark.parametrize("d", [1, 5])
def test_exact_copies_constant_features_and_one_dimension_give_numbers(d):
    train = np.full((30, d), 0.3)
    measured, closest = measure(train[:20], train[:20], train, min_patients=2)
    assert (closest.distance == 0).all()
    assert (closest.ratio == 0).all()
    assert closest.near_copy.all()
    for item in measured.values():
        estimate = item.estimates["*", "*"]
        assert np.isfinite([estimate.value, estimate.floor]).all()
        assert np.isfinite(estimate.replicates).all()
    assert measured["mifid"].estimates["*", "*"].value == 0
    assert "hardly more than their smallest distance" in measured["near_copies"].note


def test_p_values_under_the_null_are_uniform_or_cautious():
    found, cohorts = {}, 40
    for seed in range(cohorts):
        rng = np.random.default_rng(seed)
        groups = [(rng.random(90) < 0.4).astype(int) for _ in range(2)]
        real, made, train = (rng.standard_normal((90, 4)) for _ in range(3))
        people = names("r", 90), names("t", 90)
        sides = GroupedImages(people[0], {"sex": groups[0]}), GroupedImages(names("g", 90), {"sex": groups[1]})
        plan = make_plan(*sides, {"sex": ["a", "b"]}, replicates=39, repeats=1, seed=seed)
        items = measure_manifold(real, made, plan) + measure_memorisation(real, made, train, *people, plan)[0]
        for item in items:
            gap = item.estimates["sex", "a"].value - item.estimates["sex", "b"].value
            found.setdefault(item.metric, []).append(p_value(abs(gap), np.ptp(item.null["sex"], axis=1)))
    low = {name: np.mean(np.array(values) <= 0.25) for name, values in found.items()}
    assert len(low) == 8
    assert max(low.values()) <= 0.25 + 3 * np.sqrt(0.25 * 0.75 / cohorts), low
    high = np.mean(np.array(found["nn_ratio"]) <= 0.75), np.mean(np.array(found["authenticity"]) <= 0.75)
    assert min(high) >= 0.55  # exact permutations of a mean: no more cautious than chance makes them


def test_mifid_at_matched_n_punishes_copies_and_leaves_fresh_images_alone():
    real, train, fresh = (normal(100, 30, seed) for seed in (1, 2, 3))
    honest, _ = measure(real, fresh, train)
    copied, _ = measure(real, train + 0.01 * normal(100, 30, 4), train)
    own = honest["mifid"].estimates["*", "*"]
    assert own.value == pytest.approx(own.floor, rel=0.3)
    assert copied["mifid"].estimates["*", "*"].value > 100 * own.value
    low = np.quantile(copied["mifid"].estimates["*", "*"].replicates, 0.025)
    assert low > copied["mifid"].estimates["*", "*"].floor
    assert "tau does not fit" not in honest["mifid"].note


def test_mifid_says_so_where_held_out_images_are_punished_themselves():
    measured, _ = measure(*(5 + normal(60, 8, seed) for seed in (1, 2, 3)))
    assert "tau does not fit" in measured["mifid"].note


def test_bad_input_is_named_before_the_search():
    real, train = normal(30, 3), normal(20, 3, 1)
    with pytest.raises(InputError, match="training images are of 1 patients"):
        measure(real, real, train, patients=(names("r", 30), np.array(["t"] * 20)))
    with pytest.raises(InputError, match="3, 3 and 2 columns"):
        measure(real, real, train[:, :2])
    with pytest.raises(InputError, match=r"Training features hold NaN"):
        measure(real, real, np.where(np.arange(20)[:, None] == 4, np.nan, train))
    with pytest.raises(InputError, match="20 training rows, 19 patients"):
        measure(real, real, train, patients=(names("r", 30), names("t", 19)))
