"""An explanation's numbers in; plain sentences that say the same, in the reader's language, out."""

from collections.abc import Mapping, Sequence

from medfuse.attribution.record import ExplanationRecord, WordRecord
from medfuse.overlay import MAP_LEGEND, NOTE_LEGEND, Scale, map_legend_values, note_legend_values
from medfuse.types import Modality
from medfuse_serving.language import Language, message
from medfuse_serving.report.record import ExplainedRecord, ImagePart, ReferralRecord, VoicePart

PHRASE_WORDS = 6
"""Most words, punctuation marks among them, of a phrase that is quoted."""

PHRASE_CHARACTERS = 60

PLACES = (
    (message("upper left"), message("upper middle"), message("upper right")),
    (message("middle left"), message("middle"), message("middle right")),
    (message("lower left"), message("lower middle"), message("lower right")),
)
"""Ninths of a picture, by row and column."""

METHODS = {
    "integrated_gradients": message("integrated gradients"),
    "grad_cam": message("Grad-CAM (image alone)"),
    "gradients": message("gradients"),
    "smooth_gradients": message("smoothed gradients"),
    "occlusion": message("occlusion"),
}

BASELINES = {
    "none": message("no baseline"),
    "absent": message("the modality taken away"),
    "blank": message("a black image, masked words, silence"),
    "padding": message("a black image, empty words, silence"),
    "blurred": message("a blurred image and recording, masked words"),
    "mean": message("the training studies' average"),
    "marginal": message("other studies in its place"),
}

UNITS = {
    "logits per pixel": message("logits per pixel"),
    "logits per cell": message("logits per cell"),
    "logits per word": message("logits per word"),
    "logits per mel bin": message("logits per mel bin"),
    "logits per unit of the input": message("logits per unit of the input"),
}

LEGEND_NAMES = UNITS | {
    "sum": message("sum"),
    "strongest value": message("strongest value"),
}


def say_map_legend(language: Language, scale: Scale) -> str:
    """Say how to read a map's colours, outlines and numbers."""
    return language.text(MAP_LEGEND, **_translate(language, map_legend_values(scale)))


def say_note_legend(language: Language, scale: Scale) -> str:
    """Say how to read the words of a note."""
    return language.text(NOTE_LEGEND, **_translate(language, note_legend_values(scale)))


def look_up(language: Language, names: Mapping[str, str], name: str) -> str:
    """Say a name of one of these tables; one that is not there as it is."""
    return language.text(names[name]) if name in names else name


def _translate(language: Language, values: Mapping[str, str]) -> dict[str, str]:
    return {k: look_up(language, LEGEND_NAMES, v) for k, v in values.items()}


def title(language: Language, name: str) -> str:
    """Say a model's name for something as a heading or a table has it."""
    said = language.name(name)
    return said[:1].upper() + said[1:]


def say_target(language: Language, target: str) -> str:
    """Say what was explained: a finding, or a weighting of several as it was asked for."""
    if "=" in target or "," in target:
        return target
    return language.name(target.rpartition(".")[2])


def find_percents(record: ExplanationRecord) -> dict[Modality, float]:
    """Give each modality's part of all shares, signs left aside."""
    total = sum(map(abs, record.shares.shares.values()))
    return {m: abs(s) / total if total else 0.0 for m, s in record.shares.shares.items()}


def say_shares(language: Language, explained: ExplainedRecord, note: str) -> list[str]:
    """Say in a sentence of each modality what it contributes, and from where; the most first.

    Args:
        language: Of the sentences.
        explained: What is said.
        note: The note as decoded; a phrase beyond its end is put together of its words.
    """
    record = explained.record
    percents = find_percents(record)
    sentences = []
    for modality in sorted(percents, key=lambda m: -percents[m]):
        share = record.shares.shares[modality]
        if not percents[modality]:
            said = language.text(
                "The {modality} contributes nothing.", modality=language.name(modality)
            )
            sentences.append(said)
            continue
        place, most = _find_place(language, explained, modality, note)
        values = {"modality": language.name(modality), "share": f"{percents[modality]:.0%}"}
        values["share"] = values["share"].replace("%", " %")
        values["finding"] = say_target(language, record.target)
        if not place:
            if share > 0:
                said = language.text(
                    "The {modality} contributes {share} and speaks for {finding}.", **values
                )
            else:
                said = language.text(
                    "The {modality} contributes {share} and speaks against {finding}.", **values
                )
        else:
            values["place"] = place
            values["most"] = (
                language.text("most of it") if most else language.text("the largest part of it")
            )
            if share > 0:
                said = language.text(
                    "The {modality} contributes {share} and speaks for {finding}, {most} from "
                    "{place}.",
                    **values,
                )
            else:
                said = language.text(
                    "The {modality} contributes {share} and speaks against {finding}, {most} from "
                    "{place}.",
                    **values,
                )
        sentences.append(said[:1].upper() + said[1:])
    return sentences


def say_image_part(language: Language, part: ImagePart) -> str:
    """Name a ninth of a frame."""
    place = language.text(PLACES[part.row][part.column])
    return language.text(
        "the {place} of frame {number} as it is shown", place=place, number=part.number
    )


def say_voice_part(language: Language, part: VoicePart) -> str:
    """Name a span of a recording."""
    return language.text("{start} to {end} s", start=f"{part.start_s:.1f}", end=f"{part.end_s:.1f}")


def find_phrase(words: Sequence[WordRecord], sign: float) -> tuple[int, int, float]:
    """Find the run of words that says most in one direction.

    Args:
        words: In the note's order.
        sign: Of what is looked for.

    Returns:
        The first word, the one after the last, and the run's part of all that words say in that
        direction; an empty run where none does.
    """
    values = [word.value if sign > 0 else -word.value for word in words]
    total = sum(value for value in values if value > 0)
    best = (0, 0, 0.0)
    for start in range(len(values)):
        if values[start] <= 0 or not _has_letters(words[start]):
            continue
        run = 0.0
        for end in range(start, min(start + PHRASE_WORDS, len(values))):
            if words[end].end - words[start].start > PHRASE_CHARACTERS and end > start:
                break
            run += values[end]
            if run > best[2] and _has_letters(words[end]):
                best = (start, end + 1, run)
    start, end, run = best
    return start, end, run / total if total else 0.0


def say_reason(language: Language, referral: ReferralRecord) -> str:
    """Say why an answer is left to a human."""
    if referral.reason == "novel":
        return language.text(
            "What this study has as {modalities} is unlike what the model was trained on, so its "
            "answer from it can't be relied on.",
            modalities=language.text(" and ").join(language.name(m) for m in referral.modalities),
        )
    return language.text(
        "The explanation failed {count} of its checks ({names}), so what the answer rests on is "
        "not known.",
        count=len(referral.checks),
        names=", ".join(language.name(check.name) for check in referral.checks),
    )


def say_next_step(language: Language, referral: ReferralRecord) -> str:
    """Say what to do with an answer that is left to a human."""
    if referral.reason == "novel":
        return language.text(
            "Check that it is the right file, of this patient, whole and of the kind the model "
            "reads; then have it read by a specialist, without the model's answer."
        )
    return language.text(
        "Have this finding read by a specialist, without the model's answer; tell whoever looks "
        "after the model."
    )


def _has_letters(word: WordRecord) -> bool:
    """Tell a word or a number from a punctuation mark, which no phrase begins or ends with."""
    return any(map(str.isalnum, word.text))


def _find_place(
    language: Language, explained: ExplainedRecord, modality: Modality, note: str
) -> tuple[str, bool]:
    """Name where most of a modality's share comes from, and tell whether it is over half."""
    share = explained.record.shares.shares[modality]
    if not (explained.additive and explained.record.sums.get(modality, 0.0) * share > 0):
        return "", False  # where the map says otherwise than the share, it has no place for it
    if modality is Modality.NOTE:
        words = explained.record.words or ()
        start, end, part = find_phrase(words, share)
        if start == end:
            return "", False
        first, last = words[start], words[end - 1]
        whole = last.end <= len(note)
        phrase = (
            note[first.start : last.end] if whole else " ".join(w.text for w in words[start:end])
        )
        phrase = " ".join(phrase.split())[: 2 * PHRASE_CHARACTERS]
        return language.text('"{phrase}"', phrase=phrase), part > 0.5
    parts: Sequence[ImagePart | VoicePart] = (
        explained.image_parts if modality is Modality.IMAGE else explained.voice_parts
    )
    same = [part for part in parts if part.value * share > 0]
    if not same:
        return "", False
    most = max(same, key=lambda part: abs(part.value))
    over = abs(most.value) > 0.5 * sum(abs(part.value) for part in same)
    said = (
        say_image_part(language, most)
        if isinstance(most, ImagePart)
        else say_voice_part(language, most)
    )
    return said, over
