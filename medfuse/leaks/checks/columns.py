"""Columns that say how the patient is; those that tell a label better than the image does, out."""

import numpy as np
from jaxtyping import Float
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from medfuse.leaks.association import (
    FOLDS,
    Association,
    Target,
    deal_folds,
    find_associations,
    score_levels,
)
from medfuse.leaks.checks.acquisition import cut_column, kind_of_column
from medfuse.leaks.checks.telling import measure
from medfuse.leaks.examined import Examined
from medfuse.leaks.image_facts import THUMBNAIL
from medfuse.leaks.report import LeakFinding
from medfuse.trust.bootstrap import Figure, patient_weights, summarise
from medfuse.trust.metrics import auroc

SIDE = 16
"""Side of the images of the plain baseline."""

COMPONENTS = 20
"""Principal components that it reads."""

LEAST = 0.65
"""AUROC of a column that is worth a word."""


def check_columns(examined: Examined) -> list[LeakFinding]:
    """Warn of a column that alone beats a plain reading of the image, or is near certain.

    A symptom may rightly do so. What it says is that a model with this image is not worth its
    trouble, or that the column is known only after the label.
    """
    cells = dict(examined.others)
    cells |= {
        "sex": tuple(r.sex for r in examined.rows),
        "age": tuple(r.age for r in examined.rows),
    }
    features = [
        feature
        for name, own in cells.items()
        if kind_of_column(name, examined) is None and name not in examined.settings.ignore
        for feature in cut_column(name, own)
    ]
    found = find_associations(features, examined.targets, examined.patients, examined.alpha)
    baselines: dict[str, Float[np.ndarray, " n"] | None] = {}
    findings = []
    for each in found:
        figure = measure(examined, each)
        if figure.value is None or figure.value < LEAST:
            continue
        name = each.target.name
        if name not in baselines:
            baselines[name] = score_images(examined, each.target)
        image = baselines[name]
        against = None if image is None else _compare(examined, each, image)
        if against is None or against[1].low is None or against[1].low <= 0:
            continue
        findings.append(
            LeakFinding(
                kind="column",
                severity="warn",
                target=name,
                feature=each.feature.name,
                figure=figure,
                count=int((each.feature.levels >= 0).sum()),
                p=each.p,
                message=f"The column {each.feature.name} alone tells {name} better than a plain "
                f"reading of the image does ({against[0]}), by {against[1]}; is it known before "
                "the label is?",
            )
        )
    return findings


def score_images(examined: Examined, target: Target) -> Float[np.ndarray, " n"] | None:
    """Score studies by a logistic regression on their small first frame, out of fold by patient."""
    has = np.array([facts.image is not None for facts in examined.facts])
    use = has & target.known
    if use.sum() < 2 * COMPONENTS:
        return None
    step = THUMBNAIL // SIDE
    pixels = np.zeros((len(has), SIDE * SIDE))
    for i in np.flatnonzero(has):
        image = examined.facts[i].image
        assert image is not None
        small = image.thumbnails[0].reshape(SIDE, step, SIDE, step).mean(axis=(1, 3))
        pixels[i] = small.ravel() / 255
    scores = np.full(len(has), np.nan)
    fold = deal_folds(target.labels, examined.patients, examined.settings.seed)
    for k in range(FOLDS):
        train, test = use & (fold != k), use & (fold == k)
        if not test.any() or len(set(target.labels[train].tolist())) < 2:
            continue
        fewer = min(COMPONENTS, int(train.sum()) - 1)
        model = make_pipeline(
            PCA(fewer, random_state=0),
            StandardScaler(),
            LogisticRegression(C=0.1, max_iter=1_000),
        )
        model.fit(pixels[train], target.labels[train] == 1)
        scores[test] = model.decision_function(pixels[test])
    return scores


def _compare(
    examined: Examined, association: Association, image: Float[np.ndarray, " n"]
) -> tuple[Figure, Figure] | None:
    """Give the image's AUROC, and how much more the column has, on the studies that have both."""
    settings, target = examined.settings, association.target
    own = score_levels(association.feature.levels, target.labels, examined.patients, settings.seed)
    use = target.known & ~np.isnan(own) & ~np.isnan(image)
    if not use.any():
        return None
    names = [str(p) for p in examined.patients[use]]
    weights = patient_weights(names, settings.resamples, settings.seed)
    positive = target.labels[use] == 1
    areas = [auroc(scores[use], positive, weights) for scores in (image, own)]
    return summarise(areas[0]), summarise(areas[1] - areas[0])
