"""Radiograph and masked note, COVID-19 against other pneumonia: a setting in, two tables out."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from urllib.parse import urlsplit

import numpy as np
from jaxtyping import Bool, Float

from medfuse.models.settings import ImageName
from medfuse.training.benchmark.benchmark import Benchmark, Setting, hold_contest
from medfuse.training.benchmark.contest import Contender, Learner, Role, Said, Split
from medfuse.training.benchmark.material import (
    Material,
    encode_columns,
    pool_images,
    pool_notes,
    read_material,
    read_settings_of,
    read_texts,
)
from medfuse.training.benchmark.measure import Asked
from medfuse.training.benchmark.network import answer_by_network
from medfuse.training.benchmark.probes import (
    build_embedding_line,
    build_few_line,
    build_kernel,
    build_letters,
    build_line,
    build_trees,
    build_words,
)
from medfuse.training.benchmark.report import Published, Table
from medfuse.training.settings import TrainSettings

TABLE = "cxr_notes.csv"

ENCODERS: Mapping[str, tuple[ImageName, int]] = {
    "whole network, 224 px": ("efficientnet_lite0", 224),
    "whole network, 384 px": ("efficientnet_lite0", 384),
    "first stages, 224 px": ("efficientnet_lite0_stage4", 224),
}
"""Frozen networks with ImageNet's weights, and the side of the square that each reads."""

HANNOVER = "mhh-"
"""How the identifiers of the Hannover hospital's patients begin."""

METADATA = ("metadata, line", "metadata, trees")
NOTE = ("note, words", "note, letters", "note, MiniLM")
IMAGE = tuple(f"image, {name}" for name in ENCODERS)

STACKED = Contender("stacked image and note", Role.FUSION, (IMAGE, NOTE))

CONTENDERS = (
    Contender("metadata", Role.METADATA, (METADATA,)),
    *(Contender(name, Role.SINGLE, ((name,),)) for name in IMAGE),
    Contender("image, average of the three", Role.SINGLE, (IMAGE,)),
    *(Contender(name, Role.SINGLE, ((name,),)) for name in NOTE),
    Contender("note, average of the three", Role.SINGLE, (NOTE,)),
    Contender("features side by side", Role.FUSION, (("side by side",),)),
    Contender("average of image and note", Role.FUSION, (IMAGE, NOTE), "average"),
    STACKED,
    Contender("stacked readings", Role.FUSION, tuple((name,) for name in (*IMAGE, *NOTE))),
)

NETWORK = Contender("fused network", Role.FUSION, ())


def run_covid(setting: Setting) -> tuple[Table, ...]:
    """Measure case reports alone, and these together with the Hannover hospital's films."""
    material, values, texts = _read(setting)
    case_reports = np.array([not p.startswith(HANNOVER) for p in material.patients])
    return (
        _hold(
            setting,
            _keep(material, case_reports),
            {name: own[case_reports] for name, own in values.items()},
            texts[case_reports],
            "Case reports, without Hannover's films",
            "Frontal films of published case reports, each with the caption as its note.",
        ),
        _hold(
            setting,
            material,
            values,
            texts,
            "All films, Hannover's among them",
            "The same and one hospital's films, which are all of COVID-19 and have a note that a "
            "machine made from laboratory values, or none: much of what tells the label here is "
            "which source a film is of.",
        ),
    )


def _read(
    setting: Setting,
) -> tuple[Material, dict[str, Float[np.ndarray, "n d"]], np.ndarray]:
    """Give the studies with the features of every encoder, their metadata and their texts."""
    options = setting.options
    base = read_settings_of("covid", options.data / TABLE, options.features)
    values: dict[str, Float[np.ndarray, "n d"]] = {}
    materials = []
    for name, (network, size) in ENCODERS.items():
        material = read_material(_vary(base, network, size), options.out, setting.console)
        materials.append(material)
        values[f"image, {name}"] = pool_images(material.features)
    material = materials[0]
    values["note, MiniLM"] = pool_notes(material.features)
    values["metadata"] = encode_columns(
        {
            "website": [urlsplit(url).netloc for url in material.column("source_url")],
            "licence": material.column("license"),
            "view": material.column("view"),
            "sex": material.column("sex"),
            "age": material.column("age"),
            "aspect": [
                f"{int(width) / int(height):.3f}"
                for width, height in zip(
                    material.column("width"), material.column("height"), strict=True
                )
            ],
        }
    )
    return material, values, read_texts(material.cohort.rows, base.prepare)


def _vary(settings: TrainSettings, network: ImageName, size: int) -> TrainSettings:
    image = settings.prepare.image.model_copy(update={"size": size})
    return settings.model_copy(
        update={
            "prepare": settings.prepare.model_copy(update={"image": image}),
            "model": settings.model.model_copy(update={"image": network}),
        }
    )


def _keep(material: Material, kept: Bool[np.ndarray, " n"]) -> Material:
    """Give some of the studies."""
    places = np.flatnonzero(kept)
    cohort, features = material.cohort, material.features
    rows = tuple(cohort.rows[i] for i in places)
    return replace(
        material,
        cohort=replace(cohort, rows=rows),
        features=replace(features, rows=rows, sources=tuple(features.sources[i] for i in places)),
        others={name: tuple(cells[i] for i in places) for name, cells in material.others.items()},
    )


def _hold(
    setting: Setting,
    material: Material,
    values: Mapping[str, Float[np.ndarray, "n d"]],
    texts: np.ndarray,
    title: str,
    population: str,
) -> Table:
    options = setting.options
    side_by_side = np.concatenate([values[IMAGE[0]], values["note, MiniLM"]], axis=1)
    learners = (
        Learner("metadata, line", values["metadata"], build_few_line),
        Learner("metadata, trees", values["metadata"], build_trees),
        *(Learner(name, values[name], build_kernel) for name in IMAGE),
        Learner("note, words", texts, build_words),
        Learner("note, letters", texts, build_letters),
        Learner("note, MiniLM", values["note, MiniLM"], build_embedding_line),
        Learner("side by side", side_by_side, build_line),
    )
    asked = Asked(
        title=title,
        population=population,
        judged=setting.judged,
        labels=material.labels,
        patients=material.patients,
        left_out=material.cohort.excluded,
        fusion=STACKED.name,
    )

    def ask_network(repeats: Sequence[Sequence[Split]]) -> dict[Contender, Said]:
        return {
            NETWORK: answer_by_network(
                material,
                repeats,
                options.network_repeats,
                options.out / "fits",
                options.seed,
                setting.console,
            )
        }

    others = ask_network if options.network_repeats else None
    return hold_contest(setting, asked, learners, CONTENDERS, others)


COVID = Benchmark(
    question="COVID-19 or other pneumonia, by a frontal chest radiograph and a masked note?",
    needs=(TABLE, "images"),
    run=run_covid,
    published=(
        Published(
            name="shortcuts alone: website, licence, view, sex, aspect ratio",
            auroc=0.706,
            accuracy=None,
            source="the data's README",
        ),
        Published(
            name="masked note, TF-IDF and logistic regression",
            auroc=0.898,
            accuracy=None,
            source="the data's README",
        ),
    ),
    not_shown=(
        "That a radiograph or a note tells COVID-19 from other pneumonia at a bedside. The notes "
        "are captions that people wrote who knew the diagnosis; many describe the film, a later "
        "one or the outcome, and masking the words that name the disease leaves what goes with "
        "them (`medfuse check-cohort docs/examples/check-covid.toml` fails this cohort). Films "
        "come from websites that chose what to publish, and metadata alone tells much. The "
        "intervals hold for such case reports, not for any hospital's patients."
    ),
)
