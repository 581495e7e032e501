"""What reads off images which levels they show: the judge, or a classifier of the user's own, behind one interface."""

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
from equigen.quality.judge.questions import Annotated, Question, questions_of
from equigen.seeds import numpy_generator

Array = NDArray[np.float64]
TOGETHER = 128  # images given to a classifier together, always the same ones: rounding may depend on them
TOLERANCE = 1e-3  # by which the probabilities of an image may fail to sum to 1


class Classifier(Protocol):
    """What screening and counterfactual pairs ask: it says which level of each question an image shows."""

    @property
    def identity(self) -> str:
        """A text that changes whenever its answers may: name, version, hash of the weights."""

    @property
    def questions(self) -> Sequence[Question]:
        """What it can be asked: a column with its levels, or one finding of a multi-label column."""

    @property
    def patients(self) -> frozenset[str]:
        """Patients whose images it has learned from; empty where they are not known."""

    def __call__(self, images: Images) -> Mapping[str, NDArray[Any]]:
        """uint8 [N, H, W, 3] -> probabilities [N, L] of the levels of each question, by the question's name."""


@dataclass(frozen=True)
class OwnClassifier:
    """A user's own function as a ``Classifier``.

    >>> asked = [Question("label.dx", ["healthy", "ill"])]
    >>> fair = OwnClassifier(lambda images: {"label.dx": np.full((len(images), 2), 0.5)}, asked, "a coin")
    >>> answers(fair, np.zeros((1, 8, 8, 3), np.uint8))["label.dx"].tolist()
    [[0.5, 0.5]]
    """

    function: Callable[[Images], Mapping[str, NDArray[Any]]]
    questions: Sequence[Question]
    identity: str
    patients: frozenset[str] = frozenset()

    def __call__(self, images: Images) -> Mapping[str, NDArray[Any]]:
        """What the function gives."""
        return self.function(images)


def answers(classifier: Classifier, images: Images) -> dict[str, Array]:
    """Probabilities [N, L] for each question, checked.

    Raises InputError where an answer is missing, has another shape, or is no distribution over the levels.
    """
    given = classifier(images)
    found: dict[str, Array] = {}
    for question in classifier.questions:
        values = np.asarray(given.get(question.name, np.zeros(0)), dtype=np.float64)
        want = (len(images), len(question.levels))
        fits = values.shape == want and bool(np.isfinite(values).all() and (values >= -TOLERANCE).all())
        if not fits or bool((np.abs(values.sum(axis=1) - 1) > TOLERANCE).any()):
            words = f"of shape {values.shape}" if values.shape != want else "that are not finite or do not sum to 1"
            mend = f"give finite [{want[0]}, {want[1]}] for the levels {', '.join(question.levels)}"
            problem = Problem(f"it gives probabilities {words}", mend, column=question.name)
            raise InputError(f"The classifier {classifier.identity} does not keep its word.", [problem])
        found[question.name] = values
    return found


def read_images(
    classifier: Classifier, images: ImageSet, size: int, *, title: str, show: bool = True
) -> dict[str, Array]:
    """Probabilities [N, L] for each question of all images of a side, brought to ``size`` pixels."""
    parts: list[dict[str, Array]] = []
    with progress_bar(title, len(images), show=show) as bar:
        for start in range(0, len(images), TOGETHER):
            rows = np.arange(start, min(start + TOGETHER, len(images)))
            parts.append(answers(classifier, load_pixels(images, rows, size)))
            bar.advance(len(rows))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def check_held_out(held_out: Cohort, classifier: Classifier) -> None:
    """Raise InputError for real images that cannot show how a classifier errs: none, of training, or its own."""
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
    """Probes on an encoder's features, one a question, that give each level the same chance beforehand.

    ``shares``: of the levels among the images that each probe learned from. A probe's posterior holds them as its
    prior; with them, images of a rare level would be refused because it is rare. They are divided out,

        p'(l | x) = p(l | x) / share_l, normalised    (Saerens et al., Neural Computation 14, 2002, uniform new prior)

    ``size``: side in pixels to which the real images were brought; images of another size are refused. ``words``:
    what it learned from, and what it could not learn.
    """

    encoder: Encoder
    size: int
    questions: Sequence[Question]
    probes: Sequence[Probe]
    shares: Sequence[Array]
    patients: frozenset[str]
    words: list[str]

    @cached_property
    def identity(self) -> str:
        """``judge#`` and 12 digits over encoder, size, questions, weights and priors."""
        parts = [[question.column, question.levels, question.finding,
                  hash_bytes(probe.weights.tobytes() + probe.intercept.tobytes() + shares.tobytes()), probe.temperature]
                 for question, probe, shares in zip(self.questions, self.probes, self.shares, strict=True)]
        return f"judge#{hash_value([identity(self.encoder), self.size, parts])[:12]}"

    def __call__(self, images: Images) -> dict[str, Array]:
        """Probabilities [N, L] of each question for uint8 [N, size, size, 3]."""
        if images.shape[1:3] != (self.size, self.size):
            problem = Problem(f"images of {images.shape[1]} x {images.shape[2]} pixels",
                              f"fit the judge with the size of these images; it has {self.size}")
            raise InputError("The judge has learned from images of another size.", [problem])
        features = self.encoder(images)[0]
        parts = zip(self.questions, self.probes, self.shares, strict=True)
        return {question.name: equal_priors(probe.probabilities(features), shares) for question, probe, shares in parts}


def equal_priors(probabilities: Array, shares: Array) -> Array:
    """Posterior [N, L] under shares [L] of the levels -> posterior where all levels are equally frequent.

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
    """Train the judge of images on real training or validation images (``fit_probe``: strength and temperature by CV).

    Args:
        real: images of the splits train and val; none of the test split, on which nothing may be chosen.
        size: side in pixels of the images that it is to judge; the real ones are brought to it.
        encoder: as for ``evaluate``.
        columns: which of ``label.*`` and ``attr.*`` it learns; None takes all.
        min_patients: levels that fewer patients show are left out (fewer than 10 are never enough).
        seed: of the folds.
        cache_dir: folder that keeps features between calls.
        show: show a progress bar.

    Raises:
        InputError: test images, a column that is not there, or nothing that can be learned.

    """
    questions, words = learnable(real, columns, min_patients)
    network, images = load_encoder(encoder), load_image_set(real, "real")
    patients = images.patients("real")
    features = extract_features(images, network, size, cache_dir=cache_dir, show=show).values
    source = Annotated(features, images.frame, patients)
    fits = [_fit(question, source, seed) for question in questions]
    splits = " and ".join(dict.fromkeys(real.frame["split"]))
    how = f"judge on {identity(network)}, learned from {len(patients)} real images of {splits} at {size} px"
    return JudgeClassifier(network, size, questions, [fit[0] for fit in fits], [fit[1] for fit in fits],
                           frozenset(map(str, patients)), [how, *words])


def learnable(
    real: Cohort, columns: Sequence[str] | None = None, min_patients: int = 30
) -> tuple[list[Question], list[str]]:
    """The questions that ``fit_classifier`` would learn from these images, and in words which it could not.

    No image is looked at. Arguments and errors as there.
    """
    known = [str(name) for name in real.frame.columns if str(name).startswith(("label.", "attr."))]
    chosen = known if columns is None else list(columns)
    _check_source(real, chosen, known)
    levels = {f"{kind}.{name}": spec.levels for kind, own in (("label", real.labels), ("attr", real.attributes))
              for name, spec in own.items()}
    kinds = {name: spec.kind for name, spec in real.labels.items()}
    patients = real.frame["patient"].to_numpy()
    bare = Annotated(np.zeros((len(patients), 1)), real.frame, patients)
    questions, words = questions_of(bare, chosen, kinds, levels, min_patients)
    if not questions:
        problems = [Problem(word, "give more images, or other columns") for word in words]
        raise InputError("These images teach a judge nothing.", problems)
    return questions, words


def _check_source(real: Cohort, chosen: list[str], known: list[str]) -> None:
    test = int((real.frame["split"] == "test").sum())
    problems = [Problem(f"{test} images are of the test split", "give the splits train or val", column="split")]
    problems = problems if test else []
    problems += [Problem("there is no such column", f"choose of {', '.join(known)}", column=name)
                 for name in chosen if name not in known]
    if len(real) == 0 or not chosen:
        problems.append(Problem(f"{len(real)} images, {len(chosen)} columns", "give some of both"))
    if problems:
        raise InputError("A judge cannot learn from these images.", problems)


def _fit(question: Question, source: Annotated, seed: int) -> tuple[Probe, Array]:
    """The probe of one question, and the shares of its levels."""
    truth = question.truth(source.frame)
    known = np.flatnonzero(truth >= 0)
    rng = numpy_generator(seed, f"quality/classifier/{question.name}")
    probe = fit_probe(source.features[known], truth[known], source.patients[known], len(question.levels), rng)
    counts = np.bincount(truth[known], minlength=len(question.levels)).astype(np.float64)
    return probe, counts / counts.sum()
