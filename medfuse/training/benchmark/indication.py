"""Why a film was taken, in words, against what was found: a setting in, a table out."""

import numpy as np

from medfuse.training.benchmark.benchmark import Benchmark, Setting, hold_contest, open_i_folder
from medfuse.training.benchmark.contest import Contender, Learner, Role
from medfuse.training.benchmark.material import (
    encode_columns,
    import_source,
    pool_notes,
    read_material,
    read_settings_of,
    read_texts,
)
from medfuse.training.benchmark.measure import Asked
from medfuse.training.benchmark.probes import (
    build_embedding_line,
    build_few_line,
    build_letters,
    build_words,
)
from medfuse.training.benchmark.report import Table

NOTE = ("note, words", "note, letters", "note, MiniLM")

CONTENDERS = (
    Contender("metadata: length and removed names", Role.METADATA, (("metadata",),)),
    *(Contender(name, Role.SINGLE, ((name,),)) for name in NOTE),
    Contender("note, average of the three", Role.SINGLE, (NOTE,)),
)


def run_indication(setting: Setting) -> tuple[Table, ...]:
    """Measure how much the indication tells of whether the film is found normal."""
    options = setting.options
    table = import_source("open-i", open_i_folder(options), options.out / "cohorts")
    settings = read_settings_of("indication", table, options.features)
    material = read_material(settings, options.out, setting.console)
    texts = read_texts(material.cohort.rows, settings.prepare)
    states = pool_notes(material.features)
    metadata = encode_columns(
        {
            "characters": [str(len(text)) for text in texts],
            "words": [str(len(text.split())) for text in texts],
            "removed": [str(text.count("XXXX")) for text in texts],
        }
    )
    learners = (
        Learner("metadata", np.log1p(metadata), build_few_line),
        Learner("note, words", texts, build_words),
        Learner("note, letters", texts, build_letters),
        Learner("note, MiniLM", states, build_embedding_line),
    )
    asked = Asked(
        title="Abnormal or normal",
        population="Open-I's reports that have an indication and were indexed.",
        judged=setting.judged,
        labels=material.labels,
        patients=material.patients,
        left_out=material.cohort.excluded,
    )
    return (hold_contest(setting, asked, learners, CONTENDERS),)


INDICATION = Benchmark(
    question="Is a chest film abnormal, by the indication alone?",
    needs=(),
    run=run_indication,
    needs_open_i=True,
    not_shown=(
        "Anything about reading films: no film is read. It is how much of the answer the referring "
        "clinician knew, and so what a model of film and note must beat. `Normal` is what "
        "indexers made of the report, and the film was read by someone who knew the indication. "
        "One network of hospitals, with names and ages removed from the texts; nothing says which "
        "reports are of one person, so each counts as a patient of its own."
    ),
)
