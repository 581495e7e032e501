"""Classifiers that predict the levels that images show: the judge, or a function of the user, behind one interface."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from equigen.cohort import Cohort
from equigen.errors import InputError, Problem
from equigen.files import hash_bytes, hash_value
from equigen.progress import progress_bar
from equigen.quality.encoders import Encoder, Images, identity, load_encoder
from equigen.quality.features import extract_features, load_pixels
from equigen.quality.image_sets import ImageSet, load_image_set
from equigen.quality.judge.probe import Probe, fit_probe
from equigen.quality.judge.questions import AnnotatedFeatures, Target, select_targets
from equigen.seeds import numpy_generator

Array = NDArray[np.float64]
BATCH = 128  # images in a call of a classifier, always these: rounding may depend on the batch
TOLERANCE = 1e-3  # largest deviation from 1 of the sum of an image's probabilities


class Classifier(Protocol):
    """A classifier for screening and counterfactual pairs: it predicts the level of each target in each image."""

    @property
    def identity(self) -> str:
        """A text that changes whenever the predictions may: name, version, hash of the weights."""

    @property
    def targets(self) -> Sequence[Target]:
        """Variables that it predicts: a column with its levels, or one finding of a multi-label column."""

    @property
    def patients(self) -> frozenset[str]:
        """Patients whose images it was trained on; empty where they are unknown."""

    def __call__(self, images: Images) -> Mapping[str, NDArray[Any]]:
        """Return probabilities [N, L] of the levels of each target, by its name, for uint8 [N, H, W, 3]."""


@dataclass(frozen=True)
class FunctionClassifier:
    """A function as a ``Classifier``.

    >>> targets = [Target("label.dx", ["healthy", "ill"])]
    >>> coin = FunctionClassifier(lambda images: {"label.dx": np.full((len(images), 2), 0.5)}, targets, "a coin")
    >>> predict_levels(coin, np.zeros((1, 8, 8, 3), np.uint8))["label.dx"].tolist()
    [[0.5, 0.5]]
    """

    function: Callable[[Images], Mapping[str, NDArray[Any]]]
    targets: Sequence[Target]
    identity: str
    patients: frozenset[str] = frozenset()

    def __call__(self, images: Images) -> Mapping[str, NDArray[Any]]:
        """Return the result of the function."""
        return self.function(images)


def predict_levels(classifier: Classifier, images: Images) -> dict[str, Array]:
    """Return the checked probabilities [N, L] of each target by its name.

    Raises:
        InputError: probabilities of a target are missing, have another shape, or are no distribution over levels.

    """
    outputs = classifier(images)
    result: dict[str, Array] = {}
    for target in classifier.targets:
        values = np.asarray(outputs.get(target.name, np.zeros(0)), dtype=np.float64)
        shape = (len(images), len(target.levels))
        fits = values.shape == shape and bool(np.isfinite(values).all() and (values >= -TOLERANCE).all())
        if not fits or bool((np.abs(values.sum(axis=1) - 1) > TOLERANCE).any()):
            fault = f"of shape {values.shape}" if values.shape != shape else "that are not finite or do not sum to 1"
            mend = f"give finite [{shape[0]}, {shape[1]}] for the levels {', '.join(target.levels)}"
            problem = Problem(f"it gives probabilities {fault}", mend, column=target.name)
            raise InputError(f"The classifier {classifier.identity} returns invalid probabilities.", [problem])
        result[target.name] = values
    return result


def predict_images(
    classifier: Classifier, images: ImageSet, size: int, *, title: str, show: bool = True
) -> dict[str, Array]:
    """Return the probabilities [N, L] of each target for all images of a set, resized to ``size`` pixels."""
    blocks: list[dict[str, Array]] = []
    with progress_bar(title, len(images), show=show) as bar:
        for start in range(0, len(images), BATCH):
            rows = np.arange(start, min(start + BATCH, len(images)))
            blocks.append(predict_levels(classifier, load_pixels(images, rows, size)))
            bar.advance(len(rows))
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def check_held_out(held_out: Cohort, classifier: Classifier) -> None:
    """Raise InputError unless real images can show how a classifier errs: some, none of training, no shared patient."""
    problems = []
    if len(held_out) == 0:
        problems.append(Problem("there is no image", "mend the split in cohort.yaml"))
    if "train" in set(held_out.frame["split"]):
        problems.append(Problem("some are of the training split", "give held-out images: the split val, say"))
    shared = sorted(classifier.patients & set(held_out.frame["patient"].astype(str)))
    if shared:
        message = f"the classifier has learned from {len(shared)} of their patients, '{shared[0]}' for one"
        problems.append(Problem(message, "give other patients' images: a classifier knows its own"))
    if problems:
        raise InputError("These real images cannot show how the classifier errs.", problems)


@dataclass(frozen=True, eq=False)
class JudgeClassifier:
    """One probe on an encoder's features for each target, with a uniform prior over its levels.

    ``shares``: shares of the levels among the images that each probe was trained on. The posterior of a probe has
    them as its prior, so screening with it would refuse images of a rare level because it is rare. They are divided
    out,

        p'(l | x) = p(l | x) / share_l, normalised    (Saerens et al., Neural Computation 14, 2002, uniform new prior)

    ``size``: width in pixels to which the real images were resized; images of another size raise InputError.
    ``notes``: the training images, and the targets that could not be learned.
    """

    encoder: Encoder
    size: int
    targets: Sequence[Target]
    probes: Sequence[Probe]
    shares: Sequence[Array]
    patients: frozenset[str]
    notes: list[str]

    @cached_property
    def identity(self) -> str:
        """``judge#`` and 12 digits of a hash of encoder, size, targets, weights and priors."""
        parts = [
            [
                target.column,
                target.levels,
                target.finding,
                hash_bytes(probe.weights.tobytes() + probe.intercept.tobytes() + shares.tobytes()),
                probe.temperature,
            ]
            for target, probe, shares in zip(self.targets, self.probes, self.shares, strict=True)
        ]
        return f"judge#{hash_value([identity(self.encoder), self.size, parts])[:12]}"

    def __call__(self, images: Images) -> dict[str, Array]:
        """Return probabilities [N, L] of each target for uint8 [N, size, size, 3]."""
        if images.shape[1:3] != (self.size, self.size):
            problem = Problem(
                f"images of {images.shape[1]} x {images.shape[2]} pixels",
                f"fit the judge with the size of these images; it has {self.size}",
            )
            raise InputError("The judge has learned from images of another size.", [problem])
        features = self.encoder(images)[0]
        parts = zip(self.targets, self.probes, self.shares, strict=True)
        return {target.name: equal_priors(probe.probabilities(features), shares) for target, probe, shares in parts}


def equal_priors(probabilities: Array, shares: Array) -> Array:
    """Return the posterior [N, L] under a uniform prior from the posterior under the prior ``shares`` [L].

    >>> equal_priors(np.array([[0.9, 0.1]]), np.array([0.9, 0.1])).round(12).tolist()
    [[0.5, 0.5]]
    """
    scaled = probabilities / shares
    return np.asarray(scaled / scaled.sum(axis=1, keepdims=True), dtype=np.float64)


def fit_classifier(
    real: Cohort,
    *,
    size: int,
    encoder: str | Encoder = "efficientnet-lite0",
    columns: Sequence[str] | None = None,
    min_patients: int = 30,
    seed: int = 0,
    cache_dir: str | Path | None = None,
    show: bool = True,
) -> JudgeClassifier:
    """Train the judge on real training or validation images (``fit_probe``: strength and temperature by CV).

    Args:
        real: images of the splits train and val; none of the test split, which must not influence any choice.
        size: width in pixels of the images to judge; the real ones are resized to it.
        encoder: as for ``evaluate``.
        columns: which of ``label.*`` and ``attr.*`` it learns; None takes all.
        min_patients: levels that fewer patients show are left out (at least 10 are necessary).
        seed: of the folds.
        cache_dir: folder that keeps features between calls.
        show: show a progress bar.

    Raises:
        InputError: test images, a missing column, or no target that can be learned.

    """
    targets, omissions = learnable_targets(real, columns, min_patients)
    network, images = load_encoder(encoder), load_image_set(real, "real")
    patients = images.patients("real")
    features = extract_features(images, network, size, cache_dir=cache_dir, show=show).values
    source = AnnotatedFeatures(features, images.frame, patients)
    probes, shares = [], []
    for target in targets:
        truth = target.truth(source.frame)
        rows = np.flatnonzero(truth >= 0)
        rng = numpy_generator(seed, f"quality/classifier/{target.name}")
        levels = len(target.levels)
        probes.append(fit_probe(source.features[rows], truth[rows], source.patients[rows], levels, rng))
        counts = np.bincount(truth[rows], minlength=levels).astype(np.float64)
        shares.append(counts / counts.sum())
    splits = " and ".join(dict.fromkeys(real.frame["split"]))
    note = f"judge on {identity(network)}, learned from {len(patients)} real images of {splits} at {size} px"
    return JudgeClassifier(network, size, targets, probes, shares, frozenset(map(str, patients)), [note, *omissions])


def learnable_targets(
    real: Cohort, columns: Sequence[str] | None = None, min_patients: int = 30
) -> tuple[list[Target], list[str]]:
    """Return the targets that ``fit_classifier`` would learn, and a note on each that it could not.

    The table alone is read, no image. Arguments and errors are those of ``fit_classifier``.
    """
    available = [str(name) for name in real.frame.columns if str(name).startswith(("label.", "attr."))]
    names = available if columns is None else list(columns)
    _check_cohort(real, names, available)
    levels = {
        f"{kind}.{name}": spec.levels
        for kind, specs in (("label", real.labels), ("attr", real.attributes))
        for name, spec in specs.items()
    }
    kinds = {name: spec.kind for name, spec in real.labels.items()}
    patients = real.frame["patient"].to_numpy()
    source = AnnotatedFeatures(np.zeros((len(patients), 1)), real.frame, patients)
    targets, notes = select_targets(source, names, kinds, levels, min_patients)
    if not targets:
        problems = [Problem(note, "give more images, or other columns") for note in notes]
        raise InputError("These images teach a judge nothing.", problems)
    return targets, notes


def _check_cohort(real: Cohort, names: list[str], available: list[str]) -> None:
    """Raise InputError for test images, unknown columns, no image or no column."""
    test = int((real.frame["split"] == "test").sum())
    problems = [Problem(f"{test} images are of the test split", "give the splits train or val", column="split")]
    problems = problems if test else []
    problems += [
        Problem("there is no such column", f"choose of {', '.join(available)}", column=name)
        for name in names
        if name not in available
    ]
    if len(real) == 0 or not names:
        problems.append(Problem(f"{len(real)} images, {len(names)} columns", "give some of both"))
    if problems:
        raise InputError("A judge cannot learn from these images.", problems)
