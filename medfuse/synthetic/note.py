"""A clinical note in words: signs in, text out, with the characters of every sign."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from medfuse.synthetic.evidence import NoteEvidence
from medfuse.synthetic.network import Variable
from medfuse.synthetic.patient import Patient
from medfuse.synthetic.world import FINDING_SIGNS, MOOD_SIGNS, shortcut_name
from medfuse.types import Modality


@dataclass(frozen=True, slots=True)
class Wording:
    """How a sign is written: what is there, what is said to be absent, what a relative had."""

    present: tuple[str, ...]
    denied: str
    relative: str


WORDINGS: Mapping[str, Wording] = {
    "pleuritic_pain": Wording(
        (
            "sharp chest pain on breathing in",
            "pleuritic chest pain",
            "stabbing chest pain with every breath",
            "chest pain worse on deep inspiration",
            "knife-like pain in the side when breathing in",
        ),
        "No chest pain.",
        "Sister had pleurisy.",
    ),
    "calf_swelling": Wording(
        (
            "a swollen, tender right calf",
            "swelling of the left calf",
            "one leg swollen below the knee",
            "left calf 4 cm larger than the right",
            "painful unilateral calf swelling",
        ),
        "Legs not swollen.",
        "Aunt had swollen legs.",
    ),
    "productive_cough": Wording(
        (
            "green sputum",
            "a productive cough with yellow phlegm",
            "rusty sputum",
            "thick purulent sputum",
            "cough bringing up green phlegm",
        ),
        "No sputum.",
        "Partner coughs up phlegm.",
    ),
    "orthopnoea": Wording(
        (
            "sleeping propped up on three pillows",
            "inability to lie flat",
            "orthopnoea",
            "breathlessness when lying flat",
            "waking at night breathless unless upright",
        ),
        "Lies flat comfortably.",
        "Father slept upright in old age.",
    ),
    "anhedonia": Wording(
        (
            "loss of interest in hobbies",
            "loss of pleasure in company",
            "little joy in seeing friends",
            "indifference to former pastimes",
            "little interest in usual activities",
        ),
        "No loss of interest.",
        "Brother lost interest in things.",
    ),
    "early_waking": Wording(
        (
            "waking at four every morning",
            "early waking with brooding",
            "lying awake from the small hours",
            "broken sleep with early waking",
            "waking before dawn unrested",
        ),
        "No early waking.",
        "Mother woke early all her life.",
    ),
}

_OPENINGS = ("Reports {}.", "There is {}.", "Complains of {}.", "Has {}.", "Notes {} since Monday.")

_INDICATIONS = (
    "Breathless for three days.",
    "Feeling unwell.",
    "Tired and short of breath.",
    "Referred by the general practitioner.",
    "Review after a clinic visit.",
    "Came by ambulance.",
)

_DISTRACTORS = (
    "Appendix removed in 1998.",
    "Allergic to penicillin.",
    "Takes ramipril 5 mg and a statin.",
    "Former smoker, 20 pack-years.",
    "Keeps two parrots.",
    "Flew home from Lisbon last month.",
    "Type 2 diabetes, diet controlled.",
    "Knee replaced two years ago.",
    "Sleeps poorly because of noise.",
    "Appetite normal, weight steady.",
    "Migraine since youth.",
    "Vaccinated against influenza.",
)

_JOBS = ("teacher", "carpenter", "nurse", "clerk", "driver", "gardener", "cook", "engineer")

_PLANS = ("Bloods sent.", "Chest radiograph requested.", "Observe overnight.", "Discuss on round.")

_IMPRESSIONS = ("To be correlated with imaging.", "Cause unclear, under review.")


def write_note(
    signs: frozenset[str],
    mark: bool,
    patient: Patient,
    age: int,
    rng: np.random.Generator,
) -> tuple[bytes, tuple[NoteEvidence, ...]]:
    """Write one note, and say which characters of its decoded text carry each sign.

    Absent signs are denied, ascribed to a relative or, mostly, not mentioned. What is said of the
    mood has random numbers of its own and stands between sentences that are the same without it.

    Args:
        signs: What is present; signs of other modalities are ignored.
        mark: Whether the note carries its shortcut, the site's name.
        patient: For sex and site.
        age: In years.
        rng: Owned by the caller and consumed.

    Returns:
        UTF-8, or Windows code page 1252 with CR LF line ends from the site ``east``.
    """
    (mood_rng,) = rng.spawn(1)
    person = f"{age} year old {'woman' if patient.sex == 'F' else 'man'}, {_pick(_JOBS, rng)}."
    complaints = _complain(FINDING_SIGNS[Modality.NOTE], signs, rng)
    distractors = rng.choice(len(_DISTRACTORS), size=int(rng.integers(1, 4)), replace=False)
    complaints += [(_misspell(_DISTRACTORS[i], 0.05, rng), None) for i in distractors]
    rng.shuffle(complaints)
    for complaint in _complain(MOOD_SIGNS[Modality.NOTE], signs, mood_rng):
        complaints.insert(int(mood_rng.integers(len(complaints) + 1)), complaint)
    vitals = (
        f"BP {rng.integers(105, 160)}/{rng.integers(60, 95)}, pulse {rng.integers(58, 105)}, "
        f"temp {rng.uniform(36.2, 37.4):.1f} °C."
    )
    visit = f"Seen at the {patient.site.capitalize()}field unit."
    sections: list[tuple[str, list[tuple[str, str | None]]]] = [
        ("INDICATION", [(_pick(_INDICATIONS, rng), None)]),
        ("HISTORY", [(person, None), *complaints]),
        ("PHYSICAL EXAM", [(vitals, None)]),
    ]
    if mark:
        sections[0][1].append((f"\0{visit}\0", shortcut_name(Modality.NOTE)))
    if rng.random() < 0.5:
        sections.append(("PLAN", [(_pick(_PLANS, rng), None)]))
    if rng.random() < 0.3:
        sections.append(("IMPRESSION", [(_pick(_IMPRESSIONS, rng), None)]))
    windows = patient.site == "east"
    text, evidence = _join(sections, "\r\n" if windows else "\n")
    return text.encode("cp1252" if windows else "utf-8"), evidence


def _complain(
    known: Sequence[Variable], signs: frozenset[str], rng: np.random.Generator
) -> list[tuple[str, str | None]]:
    """Write what is said of each sign, if anything is, with the sign where it is present."""
    complaints: list[tuple[str, str | None]] = []
    for sign in (variable.name for variable in known):
        wording = WORDINGS[sign]
        if sign in signs:
            phrase = _misspell(_pick(wording.present, rng), 0.03, rng)
            complaints.append((_pick(_OPENINGS, rng).format(f"\0{phrase}\0"), sign))
        elif (chance := rng.random()) < 0.25:
            complaints.append((wording.denied, None))
        elif chance < 0.31:
            complaints.append((wording.relative, None))
    return complaints


def _join(
    sections: Sequence[tuple[str, Sequence[tuple[str, str | None]]]], line_end: str
) -> tuple[str, tuple[NoteEvidence, ...]]:
    """Set the sentences in their sections; what stands between two NULs is the sentence's sign."""
    text = ""
    evidence = []
    for heading, sentences in sections:
        text += f"{heading}:"
        for sentence, sign in sentences:
            text += " "
            if sign is None:
                text += sentence
                continue
            before, phrase, after = sentence.split("\0")
            start = len(text) + len(before)
            text += before + phrase + after
            evidence.append(NoteEvidence(sign, start, start + len(phrase)))
        text += line_end
    return text, tuple(evidence)


def _pick(choices: Sequence[str], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]


def _misspell(text: str, chance: float, rng: np.random.Generator) -> str:
    """Swap two inner letters of each longer word with this chance, as hasty typists do."""
    return re.sub(r"[A-Za-z]{6,}", partial(_swap, chance=chance, rng=rng), text)


def _swap(match: re.Match[str], *, chance: float, rng: np.random.Generator) -> str:
    word = match[0]
    if rng.random() >= chance:
        return word
    i = int(rng.integers(1, len(word) - 2))
    return word[:i] + word[i + 1] + word[i] + word[i + 2 :]
