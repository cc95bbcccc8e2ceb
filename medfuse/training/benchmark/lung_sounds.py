"""Lung sounds without what lies above 2 kHz, abnormal against normal: a setting in, a table out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from medfuse.training.benchmark.benchmark import Benchmark, Setting, hold_contest
from medfuse.training.benchmark.contest import Contender, Learner, Role, Said, Split
from medfuse.training.benchmark.material import (
    Material,
    encode_columns,
    read_material,
    read_settings_of,
)
from medfuse.training.benchmark.measure import Asked
from medfuse.training.benchmark.network import answer_by_network
from medfuse.training.benchmark.probes import (
    build_few_line,
    build_kernel,
    build_trees,
)
from medfuse.training.benchmark.report import Published, Table
from medfuse.training.benchmark.sounds import describe_sounds

TABLE = "audio.csv"

WINDOWS: Mapping[str, Mapping[str, float]] = {
    "16 ms": {"window_s": 0.016, "step_s": 0.008, "mel_bands": 32, "low_hz": 40.0},
    "32 ms": {"window_s": 0.032, "step_s": 0.008, "mel_bands": 48, "low_hz": 30.0},
    "64 ms": {"window_s": 0.064, "step_s": 0.016, "mel_bands": 64, "low_hz": 20.0},
}
"""Spectrograms from short windows, in which crackles stand out, to long ones, for wheezes."""

METADATA = ("metadata, line", "metadata, trees")
KERNELS = tuple(f"sound, {window}, kernel" for window in WINDOWS)
TREES = tuple(f"sound, {window}, trees" for window in WINDOWS)

STACKED = Contender("stacked sound and metadata", Role.FUSION, ((*KERNELS, *TREES), METADATA))

CONTENDERS = (
    Contender("metadata", Role.METADATA, (METADATA,)),
    *(Contender(name, Role.SINGLE, ((name,),)) for name in TREES),
    Contender("sound, three windows, kernel", Role.SINGLE, (KERNELS,)),
    Contender("sound, three windows, trees", Role.SINGLE, (TREES,)),
    Contender("sound, average of all", Role.SINGLE, ((*KERNELS, *TREES),)),
    STACKED,
)

NETWORK = Contender("the project's network, sound alone", Role.SINGLE, ())


@dataclass(frozen=True, slots=True)
class LungSounds:
    """The lung sounds as learners read them.

    Attributes:
        material: Of the longest window.
        learners: Of each window and of the metadata.
    """

    material: Material
    metadata: Mapping[str, tuple[str, ...]] = field(repr=False)
    learners: tuple[Learner, ...] = field(repr=False)


def read_lung_sounds(setting: Setting) -> LungSounds:
    """Read the recordings by every window.

    Raises:
        CohortError: The table cannot be used.
        TrainingError: A recording cannot be used.
    """
    options = setting.options
    base = read_settings_of("lung_sounds", options.data / TABLE, options.features)
    learners = []
    for window, changes in WINDOWS.items():
        voice = base.prepare.voice.model_copy(update=dict(changes))
        prepare = base.prepare.model_copy(update={"voice": voice})
        settings = base.model_copy(update={"prepare": prepare})
        material = read_material(settings, options.out, setting.console)
        sounds = describe_sounds(material.features, voice)
        learners.append(Learner(f"sound, {window}, kernel", sounds, build_kernel))
        learners.append(Learner(f"sound, {window}, trees", sounds, build_trees))
    names = ("age", "sex", "stethoscope_filter", "chest_location")
    metadata = {name: material.column(name) for name in names}
    return LungSounds(material, metadata, tuple(learners))


def run_lung_sounds(setting: Setting) -> tuple[Table, ...]:
    """Measure what spectra and rhythms of the sounds tell, and what metadata do."""
    options = setting.options
    read = read_lung_sounds(setting)
    material = read.material
    metadata = encode_columns(read.metadata)
    learners = (
        *read.learners,
        Learner("metadata, line", metadata, build_few_line),
        Learner("metadata, trees", metadata, build_trees),
    )
    asked = Asked(
        title="Abnormal or normal",
        population="Ten-second recordings of KAUH, low-passed at 2 kHz.",
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
        "recording is not known of any. The windows of the spectrograms were chosen after seeing "
        "that short ones do better on these very people. `abnormal` is the diagnosis of the "
        "patient, not what can be heard in the ten seconds. One hospital and 72 people give wide "
        "intervals. Figures from splits by recording, which put one person on both sides, are no "
        "comparison."
    ),
)
