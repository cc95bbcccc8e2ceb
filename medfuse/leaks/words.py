"""Words that name labels, and words of places and sources: tables, and finding them in a note."""

import re
from collections.abc import Iterable, Mapping, Sequence

from medfuse.config import Task

SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "covid": (
        *("covid", "covid19", "covid-19", "sars-cov-2", "sars-cov2", "2019-ncov", "ncov"),
        *("coronavirus", "corona virus"),
    ),
    "pneumonia": ("pneumonia", "pneumonias", "pneumonic", "bronchopneumonia"),
    "heart failure": ("heart failure", "cardiac failure", "chf", "hfref", "hfpef"),
    "embolism": ("embolism", "embolisms", "embolus", "emboli"),
    "nodule": ("nodule", "nodules", "nodular"),
    "copd": ("copd", "chronic obstructive pulmonary disease", "emphysema"),
    "airway obstruction": ("airway obstruction", "airways obstruction", "obstructive airways"),
    "asthma": ("asthma", "asthmatic"),
    "bronchitis": ("bronchitis", "bronchitic"),
    "tuberculosis": ("tuberculosis", "tuberculous", "tb"),
    "pneumothorax": ("pneumothorax", "pneumothoraces", "ptx"),
    "effusion": ("effusion", "effusions"),
    "cancer": ("cancer", "carcinoma", "malignancy", "malignant", "neoplasm", "tumour", "tumor"),
    "ards": ("ards", "acute respiratory distress syndrome"),
    "depression": ("depression", "depressed", "depressive", "mdd"),
    "low mood": ("low mood", "depression", "depressed", "depressive"),
    "fracture": ("fracture", "fractures", "fractured"),
    "stroke": ("stroke", "cva", "cerebral infarction"),
    "sepsis": ("sepsis", "septic", "septicaemia"),
}
"""What a finding is also called, by a word of its name."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


SOURCE_WORDS = _words(
    "unit hospital hospitals clinic ward department dept site centre center institute institution "
    "university facility field practice surgery courtesy credit credited copyright radiopaedia "
    "eurorad figure fig arrow arrows arrowhead arrowheads image images panel caption article "
    "author authors journal doi http https www com org case rid supplementary template dictated "
    "transcribed signed electronically accession scanner portable device recorded dataset masked "
    "redacted removed deidentified anonymised anonymized"
)
"""Words of places, papers and paperwork, which no disease causes."""

PLAIN_NOUNS = 0.12
"""Share of words with a capital inside sentences above which a language writes nouns so."""

_CALENDAR = _words(
    "monday tuesday wednesday thursday friday saturday sunday january february march april may "
    "june july august september october november december i"
)

_WORD = re.compile(r"[^\W_](?:[\w'\u2019-]*[^\W_])?")
_SENTENCE = re.compile(r"[^.!?\n\r;]+")


def find_words(note: str) -> list[str]:
    """Give a note's words in lower case; those in square brackets keep nothing of them."""
    return [match[0].lower() for match in _WORD.finditer(note)]


def find_sentences(note: str) -> list[str]:
    """Cut a note into sentences, without headings before a colon."""
    return [part.split(":")[-1].strip() for part in _SENTENCE.findall(note) if part.strip()]


def name_words(
    tasks: Sequence[Task], own: Mapping[str, Iterable[str]]
) -> dict[str, tuple[str, ...]]:
    """List, by target, the words and phrases that name it.

    Args:
        tasks: Whose targets.
        own: The settings' words, by target or by class.
    """
    found = {}
    for task in tasks:
        names = task.classes[1:] if len(task.targets) < len(task.classes) else task.classes
        for target, name in zip(task.targets, names, strict=True):
            spelt = re.sub(r"[_\s]+", " ", name.lower()).strip()
            words = {spelt, spelt.replace(" ", "-"), f"{spelt}s"}
            words |= {re.sub(r"(?<=[a-z])(?=\d)", "-", spelt)}
            for key, synonyms in SYNONYMS.items():
                if re.search(rf"\b{key}(?=\d|\b)", spelt):
                    words |= set(synonyms)
            words |= {word.lower() for key in (target, name) for word in own.get(key, ())}
            found[target] = tuple(sorted(words))
    return found


def matcher(words: Iterable[str]) -> re.Pattern[str]:
    """Build a pattern of whole words and phrases, in any case."""
    ordered = sorted(words, key=lambda word: (-len(word), word))
    one = "|".join(r"\s+".join(map(re.escape, word.split())) for word in ordered)
    return re.compile(rf"(?<!\w)(?:{one})(?!\w)", re.IGNORECASE)


def find_proper_nouns(notes: Sequence[str]) -> frozenset[str]:
    """Find words that have a capital inside sentences and are nowhere written without one.

    Acronyms and the calendar are none. In a language that writes every noun so, there is nothing
    to be found.
    """
    inside: set[str] = set()
    small: set[str] = set()
    capitals = words = 0
    for note in notes:
        for sentence in find_sentences(note):
            for k, match in enumerate(_WORD.finditer(sentence)):
                word = match[0]
                if word[0].islower():
                    small.add(word.lower())
                    words += 1
                elif k and _is_name(word):
                    inside.add(word.lower())
                    capitals += 1
    if capitals > PLAIN_NOUNS * max(capitals + words, 1):
        return frozenset()
    return frozenset(inside - small)


def _is_name(word: str) -> bool:
    """Tell a word with a capital from an acronym and from the calendar."""
    return (
        word[0].isupper()
        and len(word) > 2
        and not (word[1:].isupper() or word.lower() in _CALENDAR)
    )
