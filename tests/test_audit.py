"""The audit: maps planted by hand score what they must, and what ignores the model is caught."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import logit
from typer.testing import CliRunner

from medfuse.attribution.network import Inputs, Network
from medfuse.attribution.settings import Method
from medfuse.attribution.shapley import shapley_interactions, shapley_values
from medfuse.attribution.subject import Subject, take_up
from medfuse.audit import evaluate
from medfuse.audit.controls import edge_maps, edge_outputs, random_maps
from medfuse.audit.evaluate import AuditSettings, Model, Score, audit, target_name
from medfuse.audit.figures import Figure, estimate_mean
from medfuse.audit.report import ALL, AuditReport, describe, summarise, write_report
from medfuse.audit.scores import net_elsewhere, point, share_inside, show
from medfuse.audit.truth import (
    Evidence,
    exact_outputs,
    locate_evidence,
    synergistic,
    unique_modality,
)
from medfuse.config import PrepareSettings
from medfuse.data.prepare import prepare
from medfuse.errors import SettingsError
from medfuse.overlay import find_words, mel_centres_hz, mel_times_s
from medfuse.synthetic.findings import signs_of
from medfuse.synthetic.options import CohortOptions
from medfuse.synthetic.study import SyntheticStudy, make_study
from medfuse.synthetic.world import FINDINGS
from medfuse.types import MODALITIES, Attribution, Modality, Prepared
from tests.attribution_network import TOKENIZER, SumNetwork, linear, make_subject

IMAGE, NOTE, VOICE = MODALITIES
OPTIONS = CohortOptions(size=192)
SETTINGS = PrepareSettings()


@cache
def make(number: int) -> SyntheticStudy:
    return make_study(OPTIONS, number)


@cache
def find_study(**signs: bool) -> tuple[SyntheticStudy, Prepared]:
    """Make the first unseen study that has these signs, and has not those said to be absent."""
    for number in range(1_000_000, 1_000_200):
        made = make(number)
        if all((name in made.truth.signs) is there for name, there in signs.items()):
            return made, prepare(made.study, SETTINGS, TOKENIZER)
    raise AssertionError("no study has these signs")


def locate(made: SyntheticStudy, prepared: Prepared, finding: str, modality: Modality) -> Evidence:
    evidence = locate_evidence(made.truth, prepared, finding, modality, OPTIONS, SETTINGS.voice)
    assert evidence is not None
    return evidence


def by_hand(*inside: list[bool], direction: int = 1) -> Evidence:
    masks = tuple(np.array(part) for part in inside)
    return Evidence(NOTE, direction, masks, masks, (1.0,) * len(masks))


# Scores.


def test_scores_by_hand() -> None:
    evidence = by_hand([False, True, True, False])
    assert evidence.area == 0.5
    assert point((np.array([0.0, 3.0, 1.0, -9.0]),), evidence) == 1.0
    assert share_inside((np.array([1.0, 3.0, 1.0, -9.0]),), evidence) == pytest.approx(0.8)
    assert point((np.array([4.0, 3.0, 1.0, -9.0]),), evidence) == 0.0
    # Evidence against the finding is looked for among what speaks against it.
    against = by_hand([False, True, True, False], direction=-1)
    assert point((np.array([0.0, 3.0, 1.0, -9.0]),), against) == 0.0
    assert share_inside((np.array([5.0, -3.0, 1.0, -9.0]),), against) == pytest.approx(0.25)


def test_parts_count_by_the_size_of_their_elements() -> None:
    evidence = replace(by_hand([True, False], [False, False]), weights=(1.0, 3.0))
    assert evidence.area == pytest.approx(1 / 8)
    assert share_inside((np.ones(2), np.ones(2)), evidence) == pytest.approx(1 / 8)
    # The strongest value is looked for in all parts together.
    assert point((np.array([2.0, 0.0]), np.array([0.0, 3.0])), evidence) == 0.0


def test_a_map_that_speaks_for_nothing_scores_nothing() -> None:
    evidence = by_hand([True, True, False])
    for values in (np.zeros(3), -np.ones(3)):
        assert point((values,), evidence) == 0.0
        assert share_inside((values,), evidence) == 0.0


@given(st.lists(st.booleans(), min_size=1, max_size=30), st.floats(0.1, 10))
def test_a_uniform_map_scores_the_area(inside: list[bool], height: float) -> None:
    evidence = by_hand(inside)
    shown = (np.full(len(inside), height),)
    assert point(shown, evidence) == pytest.approx(evidence.area)
    assert share_inside(shown, evidence) == pytest.approx(evidence.area)


def test_what_cancels_off_the_evidence_is_told_from_what_does_not() -> None:
    evidence = by_hand([True, False, False, False])
    assert net_elsewhere((np.array([4.0, 3.0, -2.0, -1.0]),), evidence) == 0.0
    assert net_elsewhere((np.array([4.0, 3.0, 2.0, 1.0]),), evidence) == pytest.approx(0.6)
    assert net_elsewhere((np.array([4.0, -3.0, 2.0, -1.0]),), evidence) == pytest.approx(0.2)
    assert net_elsewhere((np.zeros(4),), evidence) == 0.0
    parts = replace(by_hand([True, False], [False, False]), weights=(1.0, 3.0))
    shown = (np.array([1.0, 3.0]), np.array([-2.0, 1.0]))
    assert net_elsewhere(shown, parts) == 0.0  # 3 and three times -1
    assert net_elsewhere((np.ones(2), np.ones(2)), parts) == pytest.approx(7 / 8)


CASES = [
    ("nodule", IMAGE, "nodule_opacity"),
    ("pneumonia", IMAGE, "consolidation"),
    ("heart_failure", IMAGE, "enlarged_heart"),
    ("embolism", NOTE, "pleuritic_pain"),
    ("heart_failure", NOTE, "orthopnoea"),
    ("airway_obstruction", VOICE, "wheeze"),
    ("pneumonia", VOICE, "cough"),
    ("low_mood", NOTE, "anhedonia"),
    ("low_mood", VOICE, "monotone"),
    ("low_mood", VOICE, "long_pauses"),
]


@pytest.mark.parametrize(("finding", "modality", "sign"), CASES)
def test_a_map_planted_in_the_evidence_finds_it_and_one_elsewhere_does_not(
    finding: str, modality: Modality, sign: str
) -> None:
    made, prepared = find_study(**{sign: True})
    evidence = locate(made, prepared, finding, modality)
    assert evidence.direction == 1
    assert 0 < evidence.area < 1
    planted = tuple(mask.astype(np.float64) for mask in evidence.inside)
    assert point(planted, evidence) == 1.0
    assert share_inside(planted, evidence) == pytest.approx(1)
    assert share_inside(tuple(-part for part in planted), evidence) == 0.0
    elsewhere = tuple(~mask * 1.0 for mask in evidence.near)
    assert point(elsewhere, evidence) == 0.0
    assert share_inside(elsewhere, evidence) == 0.0
    assert share_inside(elsewhere, evidence, near=True) == 0.0
    even = tuple(np.ones(mask.shape) for mask in evidence.inside)
    assert share_inside(even, evidence) == pytest.approx(evidence.area)


def test_a_spot_in_the_models_square_is_found_in_native_pixels_after_smoothing() -> None:
    made, prepared = find_study(nodule_opacity=True)
    evidence = locate(made, prepared, "nodule", IMAGE)
    assert prepared.image is not None
    geometry = prepared.image.geometry[0]
    rows, columns = np.nonzero(evidence.inside[0])
    row = geometry.top + round(rows.mean() * geometry.height / geometry.rows)
    column = geometry.left + round(columns.mean() * geometry.width / geometry.columns)
    values = np.zeros(prepared.image.values.shape)
    values[0, row, column] = 1.0
    shown = show(prepared, IMAGE, values)
    assert shown[0].shape == (geometry.rows, geometry.columns)
    assert point(shown, evidence) == 1.0
    # The nodule is as large as the display's smoothing, which spills some of the spot.
    assert 0.4 < share_inside(shown, evidence) < share_inside(shown, evidence, near=True)
    values = np.roll(values, 60, axis=2 if column < 112 else 1)
    assert point(show(prepared, IMAGE, values), evidence) == 0.0


# Truth.


def test_which_modality_tells_what() -> None:
    assert unique_modality("nodule") is IMAGE
    assert unique_modality("embolism") is NOTE
    assert unique_modality("airway_obstruction") is VOICE
    assert [unique_modality(f) for f in ("pneumonia", "heart_failure", "discordance")] == [None] * 3
    assert signs_of("discordance", IMAGE) == ("enlarged_heart",)
    assert signs_of("discordance", VOICE) == ("hoarseness",)
    assert signs_of("discordance", NOTE) == ()
    assert signs_of("pneumonia", IMAGE) == ("consolidation", "effusion")
    assert [signs_of("low_mood", m) for m in MODALITIES] == [
        (),
        ("anhedonia", "early_waking"),
        ("monotone", "long_pauses"),
    ]
    assert [target_name(f) for f in ("nodule", "low_mood")] == [
        "findings.nodule",
        "affect.low_mood",
    ]
    planted = {(f, p) for f in FINDINGS for p in map(frozenset, ((IMAGE, NOTE), (IMAGE, VOICE)))
               if synergistic(f, p)}  # fmt: skip
    assert planted == {("discordance", frozenset((IMAGE, VOICE)))}


def test_the_words_of_a_sign_are_those_of_its_phrase() -> None:
    made, prepared = find_study(pleuritic_pain=True)
    evidence = locate(made, prepared, "embolism", NOTE)
    assert prepared.note is not None
    text = prepared.note.text
    words, _ = find_words(text, prepared.note.spans)
    told = [text[a:b] for (a, b), inside in zip(words, evidence.inside[0], strict=True) if inside]
    (phrase,) = (
        text[e.start : e.end] for e in made.truth.note if e.sign in signs_of("embolism", NOTE)
        and e.sign == "pleuritic_pain"
    )  # fmt: skip
    assert "".join(told).count("pain") >= 1
    assert all(word in "".join(told) for word in phrase.replace("-", " ").replace(",", " ").split())


def test_the_bins_of_a_sign_are_its_seconds_and_hertz() -> None:
    made, prepared = find_study(wheeze=True, hoarseness=False)
    evidence = locate(made, prepared, "airway_obstruction", VOICE)
    assert prepared.voice is not None
    assert "cough" not in made.truth.signs
    (wheeze,) = (each for each in made.truth.voice if each.sign == "wheeze")
    frames, bands = np.nonzero(evidence.inside[0])
    times, hz = mel_times_s(prepared.voice), mel_centres_hz(SETTINGS.voice)
    step = prepared.voice.step_s
    assert times[frames.min()] == pytest.approx(wheeze.start_s, abs=step)
    assert times[frames.max()] == pytest.approx(wheeze.end_s, abs=step)
    assert wheeze.low_hz <= hz[bands].min() < wheeze.low_hz + 60
    assert wheeze.high_hz - 300 < hz[bands].max() <= wheeze.high_hz
    more = np.nonzero(evidence.near[0])
    assert times[more[0].min()] == pytest.approx(wheeze.start_s - 0.05, abs=step)
    assert bands.min() - more[1].min() == 1


def test_a_finding_without_a_planted_sign_has_no_evidence() -> None:
    made, prepared = find_study(nodule_opacity=False)
    found = locate_evidence(made.truth, prepared, "nodule", IMAGE, OPTIONS, SETTINGS.voice)
    assert found is None
    assert locate_evidence(made.truth, prepared, "nodule", NOTE, OPTIONS, SETTINGS.voice) is None


@pytest.mark.parametrize("hoarse", [False, True])
def test_a_large_heart_speaks_for_discordance_unless_the_voice_is_hoarse(hoarse: bool) -> None:
    made, prepared = find_study(enlarged_heart=True, hoarseness=hoarse)
    assert locate(made, prepared, "discordance", IMAGE).direction == (-1 if hoarse else 1)


def test_exact_shares_give_a_unique_finding_to_its_modality() -> None:
    made, _ = find_study(nodule_opacity=True)
    outputs = exact_outputs(made.truth, "nodule", OPTIONS)
    # Bayes by hand: 0.35 of studies have a nodule, which shows in 0.82 of them, and in 0.10.
    assert outputs[frozenset()] == pytest.approx(logit(0.35))
    assert outputs[frozenset((IMAGE,))] == pytest.approx(logit(0.35) + np.log(0.82 / 0.10))
    shares = shapley_values(outputs, MODALITIES)
    assert shares[IMAGE] == pytest.approx(np.log(8.2))
    assert shares[NOTE] == pytest.approx(0, abs=1e-9)
    assert shapley_interactions(outputs, MODALITIES) == pytest.approx(
        {frozenset(p): 0 for p in ((IMAGE, NOTE), (IMAGE, VOICE), (NOTE, VOICE))}, abs=1e-9
    )


def test_exact_synergy_of_discordance_is_an_exclusive_or() -> None:
    made, _ = find_study(enlarged_heart=True, hoarseness=False)
    outputs = exact_outputs(made.truth, "discordance", OPTIONS)
    pair = frozenset((IMAGE, VOICE))
    for alone in (frozenset[Modality](), frozenset((IMAGE,)), frozenset((VOICE,))):
        assert outputs[alone] == pytest.approx(0, abs=1e-9)  # neither tells anything
    assert outputs[pair] == pytest.approx(logit(0.94))
    both = {subset: outputs[subset] for subset in outputs if NOTE not in subset}
    shares = shapley_values(both, (IMAGE, VOICE))
    assert shares == pytest.approx({IMAGE: logit(0.94) / 2, VOICE: logit(0.94) / 2})
    assert shapley_interactions(both, (IMAGE, VOICE)) == pytest.approx({pair: logit(0.94)})


# Controls.


def test_the_edge_detector_sees_a_square_a_step_and_a_word_unlike_its_neighbours() -> None:
    network = linear()
    subject = make_subject(network)
    values = {m: np.zeros_like(v) for m, v in subject.inputs.values.items()}
    values[IMAGE][0, 0, 16:20, 10:14] = 1.0
    values[VOICE][0, 20:] = 1.0
    values[NOTE][0, 4] = 5.0
    subject = replace(subject, inputs=replace(subject.inputs, values=values))
    edges = edge_maps(subject)
    rows, columns = np.nonzero(edges[IMAGE][0])
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (15, 20, 9, 14)
    assert edges[IMAGE][1].max() == 0
    assert set(np.nonzero(edges[VOICE])[0]) == {19, 20}
    assert edges[NOTE].tolist()[3:6] == pytest.approx([50**0.5, 2 * 50**0.5, 50**0.5])
    assert all((part >= 0).all() for part in edges.values())


def test_controls_do_not_ask_the_network() -> None:
    network = linear()
    subject = make_subject(network)
    network.asked.clear()
    edge_maps(subject)
    random_maps(subject, np.random.default_rng(0))
    edge_outputs(subject, (frozenset((IMAGE,)),))
    assert not network.asked


def test_noise_finds_no_more_than_the_evidences_area() -> None:
    made, prepared = find_study(wheeze=True)
    evidence = locate(made, prepared, "airway_obstruction", VOICE)
    subject = take_up(linear(), prepared, SETTINGS)
    rng = np.random.default_rng(0)
    maps = [show(prepared, VOICE, random_maps(subject, rng)[VOICE]) for _ in range(40)]
    found = np.mean([share_inside(m, evidence) for m in maps])
    assert found == pytest.approx(evidence.area, abs=0.05)
    assert 0 < np.mean([point(m, evidence) for m in maps]) < 1


def test_edges_of_several_modalities_add_up() -> None:
    subject = make_subject(linear())
    both = frozenset((IMAGE, NOTE))
    found = edge_outputs(subject, (frozenset(), frozenset((IMAGE,)), frozenset((NOTE,)), both))
    assert found[frozenset()] == 0
    assert found[both] == pytest.approx(found[frozenset((IMAGE,))] + found[frozenset((NOTE,))])


# Figures.


def test_a_mean_and_its_interval() -> None:
    figure = estimate_mean([0.0, 1.0] * 50, list(range(100)), seed=0)
    assert figure.value == 0.5
    assert figure.count == 100
    assert figure.low is not None
    assert figure.high is not None
    # The mean of 100 coins has a standard deviation of 0.05.
    assert figure.low == pytest.approx(0.5 - 0.098, abs=0.015)
    assert figure.high == pytest.approx(0.5 + 0.098, abs=0.015)
    assert estimate_mean([], [], 0) == Figure(value=None)


def test_a_patients_studies_are_drawn_together() -> None:
    values = [0.0] * 10 + [1.0] * 10
    apart = estimate_mean(values, list(range(20)), 0)
    together = estimate_mean(values, [0] * 10 + [1] * 10, 0)
    assert (together.low, together.high) == (0.0, 1.0)
    assert apart.low is not None
    assert apart.low > 0.2


def test_well_above_means_that_the_intervals_are_apart() -> None:
    low, high = Figure(value=0.2, low=0.1, high=0.3), Figure(value=0.5, low=0.4, high=0.6)
    touching = Figure(value=0.35, low=0.3, high=0.4)
    assert high.above(low) is True
    assert low.above(high) is False
    assert touching.above(low) is False
    assert high.above(Figure(value=None)) is None


# The whole.


class PhraseNetwork(SumNetwork):
    """Answers every finding by how many of a note's words are in a list, or by none of them."""

    def __init__(self, words: tuple[str, ...]) -> None:
        super().__init__(
            lambda z: np.repeat(z.sum(axis=1, keepdims=True), 6, axis=1),
            lambda z: np.ones((len(z), 6, 3)),
        )
        pieces = {piece for word in words for piece in TOKENIZER.encode(word).ids[1:-1]}
        self.known = np.isin(np.arange(TOKENIZER.get_vocab_size()), list(pieces))

    @property
    def targets(self) -> tuple[str, ...]:
        return tuple(f"findings.{f}" for f in FINDINGS)

    def embed(self, pieces: np.ndarray) -> np.ndarray:
        return np.stack([self.known[pieces], np.zeros(pieces.shape)], axis=2).astype(np.float32)

    def weights(self, modality: Modality, inputs: Inputs) -> np.ndarray:
        values, mask = inputs.values[modality], inputs.masks[modality]
        real = mask.reshape(*mask.shape, *[1] * (values.ndim - 2))
        return np.broadcast_to(real * float(modality is NOTE), values.shape)


EMBOLISM = ("pain", "breathing", "pleuritic", "calf", "swelling", "swollen", "leg", "breath")


def audited(network: SumNetwork, randomised: SumNetwork) -> Model:
    return Model(network, randomised, SETTINGS, TOKENIZER, None)


QUICK = AuditSettings(
    studies=12,
    methods=("integrated_gradients",),
    findings=("embolism",),
    steps=2,
    most_steps=2,
    judged=False,
    cohort=OPTIONS,
)


def report_of(scores: tuple[Score, ...], settings: AuditSettings = QUICK) -> AuditReport:
    return summarise(scores, settings, "d" * 64)


def test_a_network_that_reads_the_phrases_is_found_out_and_one_that_reads_others_is_not() -> None:
    model = audited(PhraseNetwork(EMBOLISM), PhraseNetwork(("teacher", "parrots", "statin")))
    report = report_of(audit(model, QUICK))
    method: Method = "integrated_gradients"

    def figure(name: str, source: evaluate.Owner) -> float:
        value = report.find(name, "embolism", "note", method, source).value
        assert value is not None
        return value

    assert figure("pointing", "model") > 0.8
    assert figure("share", "model") > 0.7
    assert figure("share", "randomised") < 0.1
    assert figure("share", "random") < 0.4
    assert figure("insertion less deletion", "model") > 0
    assert figure("random orders beaten", "model") > 0.9
    verdicts = {v.control: v for v in report.verdicts if v.method}
    assert set(verdicts) == {"random", "edges", "randomised"}
    assert verdicts["randomised"].passed
    assert verdicts["random"].well_above["share"]
    assert "well above weights randomised" in describe(verdicts["randomised"])


def test_a_method_that_ignores_the_model_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def blind(network: Network, subject: Subject, *_: object) -> Attribution:
        return Attribution("t", edge_maps(subject), "integrated_gradients", "blank", None)

    monkeypatch.setattr(evaluate, "attribute", blind)
    network = PhraseNetwork(EMBOLISM)
    report = report_of(audit(audited(network, network), QUICK))
    for verdict in report.verdicts:
        if verdict.method and verdict.control != "random":
            assert not any(verdict.well_above.values())


def test_synergy_is_found_where_it_was_planted() -> None:
    exact = [
        exact_outputs(make(n).truth, "discordance", OPTIONS) for n in range(1_000_000, 1_000_012)
    ]
    settings = QUICK.model_copy(update={"findings": ("discordance", "nodule", "embolism")})
    scores = audit(audited(PhraseNetwork(EMBOLISM), PhraseNetwork(("zebra",))), settings)
    report = report_of(scores, settings)
    pair = frozenset((IMAGE, VOICE))
    expected = np.mean([abs(shapley_interactions(e, MODALITIES)[pair]) for e in exact])
    found = report.find("synergy", "discordance", "image+voice", None, "exact")
    assert found.value == pytest.approx(expected)
    # The network adds its modalities up, so it has none.
    none = report.find("synergy", "discordance", "image+voice", None, "model")
    assert none.value == pytest.approx(0, abs=1e-6)
    elsewhere = report.find("interaction elsewhere", "nodule", "", None, "exact")
    assert elsewhere.value == pytest.approx(0, abs=1e-9)
    # It reads notes alone: right of embolism, wrong of nodules, which only images tell.
    right = [report.find("dominant right", f, "", None, "model").value for f in settings.findings]
    assert right[1] is not None
    assert right[1] < 0.3
    assert right[2] is not None
    assert right[2] > 0.7


def test_the_same_audit_gives_the_same_scores_and_counts_up() -> None:
    settings = QUICK.model_copy(update={"studies": 3})
    seen: list[tuple[int, int]] = []
    model = audited(PhraseNetwork(EMBOLISM), PhraseNetwork(("zebra",)))
    once = audit(model, settings, lambda done, wanted: seen.append((done, wanted)))
    assert once == audit(model, settings)
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_a_report_is_written_and_read_back(tmp_path: Path) -> None:
    made, _ = find_study(nodule_opacity=True, orthopnoea=True, cough=True)
    settings = QUICK.model_copy(
        update={
            "studies": 1,
            "first": int(made.study_id[1:]),
            "judged": True,
            "findings": ("nodule", "heart_failure", "pneumonia"),
        }
    )
    report = report_of(
        audit(audited(PhraseNetwork(EMBOLISM), PhraseNetwork(("zebra",))), settings), settings
    )
    write_report(tmp_path / "out", report)
    again = AuditReport.model_validate_json((tmp_path / "out/audit.json").read_bytes())
    assert again == report
    text = (tmp_path / "out/audit.md").read_text(encoding="utf-8")
    for wanted in ("## image", "## note", "## voice", "reliability badge", "well above", ALL):
        assert wanted in text
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="cannot be written"):
        write_report(tmp_path / "file/out", report)


def test_the_command_audits_a_bundle(tiny_bundle: Path, tmp_path: Path) -> None:
    from medfuse.cli import build_app

    arguments = ["explain-eval", str(tiny_bundle), "--studies", "2", "--finding", "nodule"]
    arguments += ["--method", "grad_cam", "--method", "gradients", "--baseline", "blurred"]
    arguments += ["--json", str(tmp_path / "audit.json"), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(build_app(), arguments)
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "audit.json").read_text(encoding="utf-8"))
    assert found["settings"]["methods"] == ["grad_cam", "gradients"]
    assert (tmp_path / "out/audit.md").is_file()
    assert "shares and synergy" in done.stdout


def test_an_unknown_finding_is_refused_before_anything_slow(tmp_path: Path) -> None:
    from medfuse.cli import build_app

    done = CliRunner().invoke(build_app(), ["explain-eval", str(tmp_path), "--finding", "gout"])
    assert done.exit_code != 0
    assert "expected one of nodule" in str(done.exception) + done.output
