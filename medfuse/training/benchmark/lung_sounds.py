"""Lung sounds without what lies above 2 kHz, abnormal against normal: a setting in, a table out."""

from collections.abc import Sequence

from medfuse.training.benchmark.contest import Contender, Learner, Role, Said, Split
from medfuse.training.benchmark.contests import Benchmark, Setting, hold_contest
from medfuse.training.benchmark.material import encode_columns, read_material, read_settings_of
from medfuse.training.benchmark.measure import Asked
from medfuse.training.benchmark.network import answer_by_network
from medfuse.training.benchmark.probes import (
    build_embedding_line,
    build_few_line,
    build_kernel,
    build_trees,
)
from medfuse.training.benchmark.report import Published, Table
from medfuse.training.benchmark.sounds import describe_sounds

TABLE = "audio.csv"

METADATA = ("metadata, line", "metadata, trees")
SOUND = ("sound, line", "sound, kernel", "sound, trees")

CONTENDERS = (
    Contender("metadata", Role.METADATA, (METADATA,)),
    *(Contender(name, Role.SINGLE, ((name,),)) for name in SOUND),
    Contender("sound, average of the three", Role.SINGLE, (SOUND,)),
    Contender("stacked sound and metadata", Role.FUSION, (SOUND, METADATA)),
)

NETWORK = Contender("the project's network, sound alone", Role.SINGLE, ())


def run_lung_sounds(setting: Setting) -> tuple[Table, ...]:
    """Measure what spectra and rhythms of the sounds tell, and what metadata do."""
    options = setting.options
    settings = read_settings_of("lung_sounds", options.data / TABLE, options.features)
    material = read_material(settings, options.out, setting.console)
    sounds = describe_sounds(material.features, settings.prepare.voice.step_s)
    metadata = encode_columns(
        {
            name: material.column(name)
            for name in ("age", "sex", "stethoscope_filter", "chest_location")
        }
    )
    learners = (
        Learner("metadata, line", metadata, build_few_line),
        Learner("metadata, trees", metadata, build_trees),
        Learner("sound, line", sounds, build_embedding_line),
        Learner("sound, kernel", sounds, build_kernel),
        Learner("sound, trees", sounds, build_trees),
    )
    asked = Asked(
        title="Abnormal or normal",
        population="Ten-second recordings of KAUH, low-passed at 2 kHz.",
        judged=setting.judged,
        labels=material.labels,
        patients=material.patients,
        left_out=material.cohort.excluded,
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
    return (hold_contest(setting, asked, learners, CONTENDERS, others),)


LUNG_SOUNDS = Benchmark(
    question="Is a lung sound abnormal?",
    needs=(TABLE, "audio"),
    run=run_lung_sounds,
    published=(
        Published(
            name="sound, by patient, a simple baseline",
            auroc=0.624,
            accuracy=None,
            source="the data's README",
        ),
        Published(
            name="age, sex and filter alone",
            auroc=0.629,
            accuracy=None,
            source="the data's README",
        ),
    ),
    not_shown=(
        "How well lung sounds tell disease. Normal sounds come from people who differ from the "
        "patients in more than their lungs, and what room, hand and stethoscope add to a "
        "recording is not known of any. `abnormal` is the diagnosis of the patient, not what can "
        "be heard in the ten seconds. One hospital and 72 people give wide intervals. Figures "
        "from splits by recording, which put one person on both sides, are no comparison."
    ),
)
