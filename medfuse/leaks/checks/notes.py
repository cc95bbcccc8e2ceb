"""Note texts in; words that name the label, words of places and sources, and templates out.

A note may rightly tell a finding: that is what it is for. What is looked for is what tells it
without being evidence: the label's own name; a place, a paper or a mark left by masking; wording
that comes with one label alone, however many patients have it; and notes that tell a label almost
with certainty, which symptoms do not.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.sparse import csr_matrix
from scipy.stats import beta
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from medfuse.leaks.association import (
    FOLDS,
    Association,
    Target,
    deal_folds,
    find_associations,
    flag,
    measure_scores,
)
from medfuse.leaks.checks.telling import balance_rows, judge, measure
from medfuse.leaks.examined import Examined
from medfuse.leaks.report import LeakFinding, Remedy, pick_examples
from medfuse.leaks.words import (
    SOURCE_WORDS,
    find_proper_nouns,
    find_sentences,
    find_words,
    matcher,
    name_words,
)
from medfuse.trust.bootstrap import Figure

MOST_PHRASES = 12
"""Different wordings around a source word that are masked as a whole; else the word alone is."""

SHOWN_PATIENTS = 5
"""A word is shown, and looked at, when so many patients' notes have it."""

RUN = 5
"""Words in a run that may be a template's."""

PURE = 0.9
"""Least share of one label, with 95 % confidence, among the patients with a template."""

CERTAIN = 0.95
"""AUROC from which notes are too good to be evidence."""

TELLING = 0.7
"""AUROC from which the words that tell most are listed."""


def check_label_words(examined: Examined) -> list[LeakFinding]:
    """Find words that name a label in notes."""
    notes, has = _notes(examined)
    if not has.any():
        return []
    named = name_words(examined.tasks, examined.settings.label_words)
    findings = []
    for target in examined.targets:
        words = named[target.name]
        pattern = matcher(words)
        found = np.array([bool(pattern.search(note)) for note in notes])
        if not (found & target.known).any():
            continue
        feature = flag(f"words that name {target.name}", found, has)
        telling = find_associations(
            [feature], [target], examined.patients, examined.alpha / len(examined.targets)
        )
        used = sorted({m[0].lower() for note in notes for m in pattern.finditer(note)})
        there = np.flatnonzero(found)
        known = found & target.known
        positive = int((target.labels[known] == 1).sum())
        patients = len(np.unique(examined.patients[known]))
        certain = patients >= SHOWN_PATIENTS and positive >= CERTAIN * known.sum()
        figure = measure(examined, telling[0]) if telling else None
        findings.append(
            LeakFinding(
                kind="label-in-note",
                severity="fail" if telling or certain else "info",
                target=target.name,
                feature=feature.name,
                figure=figure,
                count=len(there),
                p=telling[0].p if telling else None,
                examples=pick_examples(examined.name(there)),
                message=f"{len(there)} notes name {target.name} ({', '.join(used)}); "
                f"{positive} of them are positive."
                + ("" if telling or certain else " They don't tell it beyond chance."),
                remedy=Remedy(mask_words=tuple(used)),
            )
        )
    return findings


def check_sources(examined: Examined) -> list[LeakFinding]:
    """Find words of places, papers and paperwork that tell a label."""
    notes, has = _notes(examined)
    counts = _patients_by_word(examined, notes)
    known = SOURCE_WORDS | {word.lower() for word in examined.settings.source_words}
    proper = find_proper_nouns(notes)
    candidates = sorted(w for w, n in counts.items() if n >= SHOWN_PATIENTS and w in known | proper)
    holds = {word: _holding(notes, [word]) for word in candidates}
    features = [flag(word, holds[word], has) for word in candidates]
    found = find_associations(features, examined.targets, examined.patients, examined.alpha)
    findings = []
    for name in dict.fromkeys(a.target.name for a in found):
        own = [a for a in found if a.target.name == name]
        for sure in (True, False):
            part = [a for a in own if (a.feature.name in known) is sure]
            if part:
                findings.append(_report_source(examined, part, notes, sure=sure))
    return findings


def check_templates(examined: Examined) -> list[LeakFinding]:
    """Find wording that comes with one label alone."""
    notes, has = _notes(examined)
    if not has.any():
        return []
    where: dict[str, list[int]] = defaultdict(list)
    for i, note in enumerate(notes):
        words = [re.sub(r"\d", "#", word) for word in find_words(note)]
        for run in {" ".join(words[k : k + RUN]) for k in range(len(words) - RUN + 1)}:
            where[run].append(i)
    findings = []
    for target in examined.targets:
        pure = [
            (run, studies)
            for run, studies in where.items()
            if len(studies) >= 2 * SHOWN_PATIENTS and _is_pure(examined, target, studies)
        ]
        if not pure:
            continue
        pure.sort(key=lambda each: -len(each[1]))
        features = []
        for run, studies in pure[:50]:
            holds = np.zeros(len(notes), dtype=bool)
            holds[studies] = True
            features.append(flag(run, holds, has))
        found = find_associations(
            features, [target], examined.patients, examined.alpha / len(examined.targets)
        )
        if found:
            findings.append(_report_template(examined, min(found, key=lambda a: a.p)))
    return findings


def check_note_words(examined: Examined) -> list[LeakFinding]:
    """Measure how well a logistic regression on words tells each label, and by which words."""
    notes, has = _notes(examined)
    vectors = count_words(notes)
    if vectors is None:
        return []
    counts = _patients_by_word(examined, notes)
    findings = []
    for target in examined.targets:
        read = score_notes(examined, target, vectors, has, counts)
        if read is None:
            continue
        scores, words = read
        figure = measure_scores(
            scores, target, examined.patients, examined.settings.resamples, examined.settings.seed
        )
        if figure.value is None or figure.low is None or figure.value < TELLING:
            continue
        certain = figure.value >= CERTAIN and figure.low >= PURE
        findings.append(
            LeakFinding(
                kind="note-words",
                severity="fail" if certain else "info",
                target=target.name,
                feature="words of the note",
                figure=figure,
                count=int((has & target.known).sum()),
                message=f"A logistic regression on the notes' words tells {target.name}; most "
                f"telling: {', '.join(words)}. "
                + (
                    "No symptom is so certain: the notes were written when the label was known."
                    if certain
                    else "Mask those that are no evidence."
                ),
                remedy=Remedy(mask_words=tuple(words)) if certain else None,
            )
        )
    return findings


@dataclass(frozen=True, slots=True)
class WordVectors:
    """Notes as TF-IDF vectors, a row each, and the words of the columns."""

    rows: csr_matrix
    words: tuple[str, ...]


def count_words(notes: Sequence[str]) -> WordVectors | None:
    """Count the words of notes; None where no word is in two of them.

    Frequencies are those of all notes, since they know nothing of the labels.
    """
    vectoriser = TfidfVectorizer(tokenizer=find_words, token_pattern=None, min_df=2)
    try:
        rows = vectoriser.fit_transform(notes)
    except ValueError:
        return None
    return WordVectors(csr_matrix(rows), tuple(vectoriser.get_feature_names_out().tolist()))


def score_notes(
    examined: Examined,
    target: Target,
    vectors: WordVectors,
    has: Bool[np.ndarray, " n"],
    counts: Mapping[str, int],
) -> tuple[Float[np.ndarray, " n"], list[str]] | None:
    """Score notes out of fold by patient, and name the words with the largest weights.

    Args:
        examined: The cohort.
        target: What is to be told.
        vectors: Its notes.
        has: Which studies have one.
        counts: How many patients' notes have each word.
    """
    use = has & target.known
    labels = target.labels == 1
    if min((use & labels).sum(), (use & ~labels).sum()) < 2 * FOLDS:
        return None
    scores = np.full(len(has), np.nan)
    weights = np.zeros(len(vectors.words))
    fold = deal_folds(target.labels, examined.patients, examined.settings.seed)
    for k in range(FOLDS):
        train, test = np.flatnonzero(use & (fold != k)), np.flatnonzero(use & (fold == k))
        if not len(test) or len(set(labels[train].tolist())) < 2:
            continue
        model = LogisticRegression(C=10.0, class_weight="balanced", max_iter=1_000)
        model.fit(vectors.rows[train], labels[train])
        scores[test] = model.decision_function(vectors.rows[test])
        weights += model.coef_[0]
    shown = [
        word
        for word in (vectors.words[i] for i in np.argsort(-weights, kind="stable"))
        if counts.get(word, 0) >= SHOWN_PATIENTS and len(word) > 2 and word[0].isalpha()
    ]
    return scores, shown[:8]


def _notes(examined: Examined) -> tuple[list[str], Bool[np.ndarray, " n"]]:
    notes = [facts.note or "" for facts in examined.facts]
    return notes, np.array([facts.note is not None for facts in examined.facts], dtype=bool)


def _patients_by_word(examined: Examined, notes: Sequence[str]) -> Counter[str]:
    """Count the patients whose notes have each word."""
    pairs = {
        (word, patient)
        for note, patient in zip(notes, examined.patients.tolist(), strict=True)
        for word in set(find_words(note))
    }
    return Counter(word for word, _ in pairs)


def _holding(notes: Sequence[str], words: Iterable[str]) -> Bool[np.ndarray, " n"]:
    wanted = set(words)
    return np.array([not wanted.isdisjoint(find_words(note)) for note in notes], dtype=bool)


def _report_source(
    examined: Examined, own: Sequence[Association], notes: Sequence[str], *, sure: bool
) -> LeakFinding:
    """Report source words that tell one target; a proper noun alone may be a drug, so it warns."""
    figures: list[tuple[Figure, Association]] = [(measure(examined, a), a) for a in own]
    figure, best = max(figures, key=lambda each: each[0].value or 0.0)
    words = [a.feature.name for _, a in sorted(figures, key=lambda each: -(each[0].value or 0.0))]
    there = np.flatnonzero(_holding(notes, words))
    what = "Words of places and sources" if sure else "Names"
    return LeakFinding(
        kind="source-in-note",
        severity=judge(examined, figure) if sure else "warn",
        target=best.target.name,
        feature=best.feature.name,
        figure=figure,
        count=len(there),
        p=best.p,
        examples=pick_examples(examined.name(there)),
        message=f"{what} in notes tell {best.target.name}: {', '.join(words[:8])}.",
        remedy=Remedy(mask_words=_phrases(examined, words, notes)),
    )


def _phrases(examined: Examined, words: Sequence[str], notes: Sequence[str]) -> tuple[str, ...]:
    """Give what to mask: the few sentences that hold the words, or else the words themselves.

    What is masked is shown, and stands in settings and bundle, so a sentence that few patients'
    notes have is never given: it may say who they are.
    """
    pattern = matcher(words)
    patients: dict[str, set[int]] = defaultdict(set)
    for note, patient in zip(notes, examined.patients.tolist(), strict=True):
        for sentence in find_sentences(note):
            if pattern.search(sentence):
                patients[sentence].add(patient)
    shown = all(len(own) >= SHOWN_PATIENTS for own in patients.values())
    return tuple(sorted(patients if shown and len(patients) <= MOST_PHRASES else words))


def _is_pure(examined: Examined, target: Target, studies: Sequence[int]) -> bool:
    """Whether one label is nearly all there is among the patients of some studies."""
    known = [i for i in studies if target.known[i]]
    units = {(int(examined.patients[i]), bool(target.labels[i] == 1)) for i in known}
    counts = Counter(label for _, label in units)
    most, total = max(counts.values(), default=0), len(units)
    return total > 0 and float(beta.ppf(0.05, most, total - most + 1)) >= PURE


def _report_template(examined: Examined, best: Association) -> LeakFinding:
    there = np.flatnonzero((best.feature.levels == 1) & best.target.known)
    positive = int((best.target.labels[there] == 1).sum())
    return LeakFinding(
        kind="note-template",
        severity="fail",
        target=best.target.name,
        feature="wording of the note",
        figure=measure(examined, best),
        count=len(there),
        p=best.p,
        examples=pick_examples(examined.name(there)),
        message=f"The wording '{best.feature.name}' comes with one label alone: {positive} of "
        f"{len(there)} are positive for {best.target.name}, as when one source writes all its "
        "notes alike.",
        remedy=balance_rows(examined, best),
    )
