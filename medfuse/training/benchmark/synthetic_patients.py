"""Film, note and lung sound of different people, paired by label: a setting in, a table out."""

from pathlib import Path

from medfuse.data.cohort import Split
from medfuse.training.benchmark.benchmark import Benchmark, Setting, hold_contest, open_i_folder
from medfuse.training.benchmark.contest import Contender, Learner, Role
from medfuse.training.benchmark.lung_sounds import (
    KERNELS,
    TABLE,
    TREES,
    read_lung_sounds,
)
from medfuse.training.benchmark.material import (
    Material,
    encode_columns,
    import_source,
    pool_images,
    pool_notes,
    read_material,
    read_settings_of,
    read_texts,
)
from medfuse.training.benchmark.measure import Asked
from medfuse.training.benchmark.pairing import Part, pair_by_label
from medfuse.training.benchmark.pneumonia import FILE
from medfuse.training.benchmark.probes import (
    build_embedding_line,
    build_few_line,
    build_kernel,
    build_trees,
    build_words,
)
from medfuse.training.benchmark.report import Table

FILM = ("film",)
NOTE = ("note, words", "note, MiniLM")
SOUND = (*KERNELS, *TREES)
METADATA = ("metadata, line", "metadata, trees")

STACKED = Contender("stacked, all three", Role.FUSION, (FILM, NOTE, SOUND))

CONTENDERS = (
    Contender("metadata", Role.METADATA, (METADATA,)),
    Contender("film", Role.SINGLE, (FILM,)),
    Contender("note", Role.SINGLE, (NOTE,)),
    Contender("lung sound", Role.SINGLE, (SOUND,)),
    Contender("stacked film and note", Role.FUSION, (FILM, NOTE)),
    Contender("stacked film and sound", Role.FUSION, (FILM, SOUND)),
    Contender("stacked note and sound", Role.FUSION, (NOTE, SOUND)),
    Contender("average of all three", Role.FUSION, (FILM, NOTE, SOUND), "average"),
    STACKED,
)


def run_synthetic_patients(setting: Setting) -> tuple[Table, ...]:
    """Measure three modalities of synthetic patients, one of each for every lung sound."""
    options = setting.options
    heard = read_lung_sounds(setting)
    sounds = heard.material
    notes, films = (
        read_material(read_settings_of(name, table, options.features), options.out, setting.console)
        for name, table in (
            ("indication", import_source("open-i", open_i_folder(options), _cohorts(setting))),
            ("pneumonia", import_source("medmnist", options.data / FILE, _cohorts(setting))),
        )
    )
    note_of, film_of = pair_by_label(
        _part("lung sounds", sounds),
        (_part("Open-I", notes), _part("PneumoniaMNIST", films)),
        options.seed,
    )
    texts = read_texts([notes.cohort.rows[i] for i in note_of], notes.settings.prepare)
    length = {"characters": tuple(str(len(text)) for text in texts)}
    metadata = encode_columns({**heard.metadata, **length})
    learners = (
        Learner("metadata, line", metadata, build_few_line),
        Learner("metadata, trees", metadata, build_trees),
        Learner("film", pool_images(films.features, film_of.tolist()), build_kernel),
        Learner("note, words", texts, build_words),
        Learner("note, MiniLM", pool_notes(notes.features, note_of.tolist()), build_embedding_line),
        *heard.learners,
    )
    asked = Asked(
        title="Synthetic patients, abnormal or normal",
        population="Synthetic patients: each lung sound of KAUH with an indication of Open-I and a "
        "film of PneumoniaMNIST's training split that have the same label, none used twice. A "
        "synthetic patient's folds are those of the person whose lungs were recorded.",
        judged=setting.judged,
        labels=sounds.labels,
        patients=sounds.patients,
        left_out=sounds.cohort.excluded,
        fusion=STACKED.name,
    )
    return (hold_contest(setting, asked, learners, CONTENDERS),)


def _cohorts(setting: Setting) -> Path:
    return setting.options.out / "cohorts"


def _part(name: str, material: Material) -> Part:
    """Name a source's split; what has none of its own is all for training."""
    splits = tuple(str(row.split or Split.TRAIN) for row in material.cohort.rows)
    return Part(name, material.labels, splits)


SYNTHETIC_PATIENTS = Benchmark(
    question="Is a synthetic patient abnormal, by a film, a note and a lung sound?",
    needs=(TABLE, "audio", FILE),
    run=run_synthetic_patients,
    needs_open_i=True,
    synthetic_patients=True,
    not_shown=(
        "Anything about patients: no synthetic patient exists. A child's film, an adult's "
        "indication and a third person's lung sound have nothing in common but a label that means "
        "something else in each source, so the modalities are independent given the label, which "
        "those of a real patient are not. A gain of fusion here shows that the machinery adds up "
        "independent evidence, and not how much three modalities of one patient would tell. "
        "Sources differ, so each modality's figure stands for its source and its shortcuts."
    ),
)
