"""PneumoniaMNIST, fitted on its training split, judged on its validation split: a table out."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float32

from medfuse.data.cohort import CohortRow, Split
from medfuse.errors import CohortError
from medfuse.models.weights import tokenizer_path
from medfuse.training.benchmark.benchmark import Benchmark, Setting
from medfuse.training.benchmark.contest import Contender, Learner, Role, Said, fit_and_ask
from medfuse.training.benchmark.material import (
    import_source,
    pool_images,
    read_material,
    read_settings_of,
)
from medfuse.training.benchmark.measure import Asked, measure_contest
from medfuse.training.benchmark.probes import build_few_line, build_kernel, build_line
from medfuse.training.benchmark.report import Published, Table
from medfuse.training.benchmark.small_network import (
    EPOCHS,
    ask_small_network,
    fit_small_network,
)
from medfuse.training.settings import TrainSettings
from medfuse.training.workers import prepare_rows
from medfuse.types import Modality

FILE = "pneumoniamnist_trainval.npz"

SMALL_SIDE = 32
"""The smallest square that a study is prepared to; the pictures have 28 pixels a side."""

MOST_NETWORKS = 3
"""Of the repeats, in how many the small network takes part: it takes minutes each."""

METADATA = Contender("brightness and contrast", Role.METADATA, ())
PIXELS = Contender("pixels, line", Role.SINGLE, ())
FROZEN = Contender("frozen network, kernel", Role.SINGLE, ())
SMALL = Contender("small network from nothing", Role.SINGLE, ())
BOTH = Contender("average of both networks", Role.SINGLE, ())
CONTENDERS = (METADATA, PIXELS, FROZEN, SMALL, BOTH)


def run_pneumonia(setting: Setting) -> tuple[Table, ...]:
    """Measure readings of the official validation split."""
    options = setting.options
    table = import_source("medmnist", options.data / FILE, options.out / "cohorts")
    settings = read_settings_of("pneumonia", table, options.features)
    material = read_material(settings, options.out, setting.console)
    cohort = material.cohort
    train, judged = (
        np.array([row.split is split for row in cohort.rows])
        for split in (Split.TRAIN, Split.VALIDATION)
    )
    small = read_small(settings, cohort.rows)
    labels = material.labels
    shallow = np.stack([small.mean(axis=(1, 2)), small.std(axis=(1, 2))], axis=1)
    learners = {
        METADATA: Learner(METADATA.name, shallow, build_few_line),
        PIXELS: Learner(PIXELS.name, small.reshape(len(small), -1), build_line),
        FROZEN: Learner(FROZEN.name, pool_images(material.features), build_kernel),
    }
    networks = min(MOST_NETWORKS, options.repeats)
    advance = setting.begin("PneumoniaMNIST", len(learners) + networks * EPOCHS)
    even = np.ones(int(train.sum()))
    scores: dict[Contender, Float[np.ndarray, "r n"]] = {}
    for contender, learner in learners.items():
        values = learner.values
        scores[contender] = fit_and_ask(
            learner, values[train], labels[train], even, values[judged], options.seed
        )[None]
        advance()
    # Its loss counts both labels alike; the other readings' scores know which is commoner.
    log_odds = float(np.log(labels[train].sum() / (~labels[train]).sum()))
    answers = []
    for seed in range(options.seed, options.seed + networks):
        network = fit_small_network(small[train], labels[train], seed, advance=advance)
        answers.append(ask_small_network(network, small[judged]) + log_odds)
    scores[SMALL] = np.stack(answers)
    # A support vector machine's score has a unit of its own; both are brought to one spread.
    scores[BOTH] = sum(
        (own / own.std() for own in (scores[SMALL], scores[FROZEN])), np.zeros_like(scores[SMALL])
    )
    asked = Asked(
        title="The official validation split",
        population="Children's chest films of 28 pixels; nothing says which are of one child, so "
        "each counts as a patient.",
        judged=f"Fitted once on the {int(train.sum())} films of the training split; the small "
        f"network {networks} time(s), and `one repeat` is one of these.",
        labels=labels[judged],
        patients=tuple(np.array(material.patients)[judged].tolist()),
        left_out=cohort.excluded,
    )
    said = {c.name: Said(own, np.zeros_like(own)) for c, own in scores.items()}
    return (measure_contest(asked, CONTENDERS, said, options.resamples, options.seed),)


def read_small(settings: TrainSettings, rows: Sequence[CohortRow]) -> Float32[np.ndarray, "n h w"]:
    """Prepare each study's one frame at the smallest size.

    Raises:
        CohortError: A picture cannot be used.
    """
    image = settings.prepare.image.model_copy(update={"size": SMALL_SIDE})
    prepare = settings.prepare.model_copy(update={"image": image})
    frames = []
    for found in prepare_rows(rows, prepare, tokenizer_path(settings.model), 1):
        if found.fault is not None:
            raise CohortError(found.fault)
        frames.append(found.values[Modality.IMAGE][0])
    return np.stack(frames)


PNEUMONIA = Benchmark(
    question="Pneumonia or normal, by a child's film of 28 pixels?",
    needs=(FILE,),
    run=run_pneumonia,
    published=tuple(
        Published(name=name, auroc=area, accuracy=share, source="MedMNIST v2, test split")
        for name, area, share in (
            ("ResNet-18 at 28 px", 0.944, 0.854),
            ("best AutoML", 0.991, 0.946),
        )
    ),
    not_shown=(
        "A comparison with the published figures: those are of the official test split, which is "
        "harder (its films come from another part of the source) and is not used here. The same "
        "children may be in both splits, so the interval, which counts each film by itself, is too "
        "narrow. The films are of children of one hospital, shrunk to 28 pixels, where normal and "
        "ill differ in more than their lungs. This validation split was seen while the small "
        "network was made: its form was kept from a first trial, and its answers were moved to "
        "the training split's odds after their accuracy had been seen, so both are favoured."
    ),
)
