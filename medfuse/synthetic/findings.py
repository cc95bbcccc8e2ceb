"""A study's truth in; the sentences that a good reader would write of its findings out."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from medfuse.synthetic.evidence import ImageEvidence
from medfuse.synthetic.options import CohortOptions
from medfuse.synthetic.patient import Stream, open_stream
from medfuse.synthetic.study import Truth
from medfuse.synthetic.world import DISCORDANCE, SIGN_NAMES, SIGNS, TARGETS
from medfuse.types import MODALITIES, Modality

SIGN_WORDS: Mapping[str, tuple[str, ...]] = {
    "nodule_opacity": ("round opacity", "rounded density"),
    "consolidation": ("patchy consolidation", "mottled shadowing"),
    "enlarged_heart": ("enlarged heart", "increased heart size"),
    "effusion": ("pleural effusion", "pleural fluid"),
    "pleuritic_pain": ("pleuritic pain", "pain on breathing in"),
    "calf_swelling": ("calf swelling", "swollen leg"),
    "productive_cough": ("productive cough", "purulent sputum"),
    "orthopnoea": ("orthopnoea", "breathlessness lying flat"),
    "anhedonia": ("loss of interest", "loss of pleasure"),
    "early_waking": ("early waking", "waking before dawn"),
    "wheeze": ("wheeze", "whistling outbreath"),
    "hoarseness": ("hoarse voice", "rough voice"),
    "cough": ("coughing", "repeated cough"),
    "monotone": ("monotone speech", "flat intonation"),
    "long_pauses": ("halting speech", "speech with long gaps"),
}
"""What a sentence calls each sign; no wording of one sign holds a wording of another."""

FINDING_WORDS: Mapping[str, str] = {
    "nodule": "a nodule",
    "embolism": "an embolism",
    "airway_obstruction": "airway obstruction",
    "pneumonia": "pneumonia",
    "heart_failure": "heart failure",
    "discordance": "discordance of heart and voice",
    "low_mood": "low mood",
}

SIDED: Mapping[str, str] = {
    "nodule_opacity": "in the {} lung",
    "consolidation": "in the {} lung",
    "effusion": "on the {}",
}
"""The signs that lie on a side, and how a sentence says so."""

SEEN: Mapping[Modality, str] = {
    Modality.IMAGE: "seen",
    Modality.NOTE: "reported",
    Modality.VOICE: "heard",
}

ENDINGS = ("in keeping with {}", "suggesting {}")

BOTH = 0.2
"""The least share of a sign's pixels on the smaller side for it to be on both."""


@dataclass(frozen=True, slots=True)
class FindingSentence:
    """What may be said of one finding from the evidence that some modalities show.

    Attributes:
        finding: One of `TARGETS`.
        modalities: Those whose signs it names.
        signs: What it names, in the order of the words.
        text: The sentence.
    """

    finding: str
    modalities: frozenset[Modality]
    signs: tuple[str, ...]
    text: str


def write_findings(options: CohortOptions, index: int, truth: Truth) -> tuple[FindingSentence, ...]:
    """Write a sentence of every finding that a study has and shows.

    A finding that several modalities show has a sentence from each combination of them, so that
    a reader of fewer modalities can be taught, too, to say no more than it has seen. One that no
    delivered modality shows has none. The wording is drawn from a stream of its own.
    """
    rng = open_stream(options, Stream.FINDINGS, index)
    wordings = {sign: _pick(SIGN_WORDS[sign], rng) for sign in SIGN_NAMES}
    endings = {finding: _pick(ENDINGS, rng) for finding in TARGETS}
    sentences = []
    for finding, present in zip(TARGETS, truth.labels, strict=True):
        shown = shown_signs(truth, finding)
        if not present:
            continue
        for count in range(1, len(shown) + 1):
            for chosen in combinations(shown, count):
                text = ", ".join(
                    (
                        _join([_clause(m, shown[m], wordings, truth.image) for m in chosen]),
                        endings[finding].format(FINDING_WORDS[finding]),
                    )
                )
                sentences.append(
                    FindingSentence(
                        finding,
                        frozenset(chosen),
                        tuple(sign for m in chosen for sign in shown[m]),
                        f"{text[0].upper()}{text[1:]}.",
                    )
                )
    return tuple(sentences)


def signs_of(finding: str, modality: Modality) -> tuple[str, ...]:
    """Name the signs by which a modality tells something of a finding."""
    if finding == DISCORDANCE.name:
        return tuple(s.name for s in SIGNS[modality] if s.name in DISCORDANCE.parents)
    return tuple(s.name for s in SIGNS[modality] if finding in s.parents)


def shown_signs(truth: Truth, finding: str) -> dict[Modality, tuple[str, ...]]:
    """Name the planted signs of a finding, by each delivered modality that shows any."""
    planted = {
        m: tuple(sign for sign in signs_of(finding, m) if sign in truth.signs)
        for m in MODALITIES
        if m in truth.present
    }
    return {m: signs for m, signs in planted.items() if signs}


def name_signs(text: str) -> frozenset[str]:
    """Tell which signs a sentence names."""
    lowered = text.lower()
    return frozenset(
        sign for sign, words in SIGN_WORDS.items() if any(word in lowered for word in words)
    )


def name_sides(text: str) -> frozenset[tuple[str, str]]:
    """Tell on which side a sentence says each sign lies: right, left or both."""
    found = set()
    for sign in SIDED:
        for words in SIGN_WORDS[sign]:
            for match in re.finditer(rf"{words} (?:in|on) (?:the )?(right|left|both)", text, re.I):
                found.add((sign, match[1].lower()))
    return frozenset(found)


def _clause(
    modality: Modality,
    signs: Sequence[str],
    wordings: Mapping[str, str],
    evidence: Sequence[ImageEvidence],
) -> str:
    phrases = [_place(sign, wordings[sign], evidence) for sign in signs]
    return f"{_join(phrases)} {'is' if len(signs) == 1 else 'are'} {SEEN[modality]}"


def _place(sign: str, words: str, evidence: Sequence[ImageEvidence]) -> str:
    """Say on which side a sign of the frontal view lies; a patient's right is on the left."""
    masks = [e.mask for e in evidence if e.sign == sign and e.instance == 0]
    if sign not in SIDED or not masks:
        return words
    (mask,) = masks
    right = mask[:, : mask.shape[1] // 2].sum() / mask.sum()
    if min(right, 1 - right) >= BOTH:
        return f"{words} on both sides"
    return f"{words} {SIDED[sign].format('right' if right > 0.5 else 'left')}"


def _join(parts: Sequence[str]) -> str:
    return " and ".join(", ".join(parts).rsplit(", ", 1)) if len(parts) > 1 else parts[0]


def _pick(choices: Sequence[str], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]
