"""An explanation's numbers in; plain sentences that say the same, in the reader's language, out."""

from collections.abc import Mapping, Sequence

from medfuse.attribution.record import ExplanationRecord
from medfuse.overlay import (
    MAP_LEGEND,
    NOTE_LEGEND,
    Scale,
    count_decimals,
    format_signed,
    map_legend_values,
    note_legend_values,
)
from medfuse.types import Modality
from medfuse_serving.evidence import AreaPlace, Piece, WordsPlace
from medfuse_serving.language import Language, message
from medfuse_serving.report.record import ReferralRecord

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
    return capital(language.name(name))


def capital(said: str) -> str:
    """Begin what is said with a capital letter."""
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


def say_shares(language: Language, record: ExplanationRecord, pieces: Sequence[Piece]) -> list[str]:
    """Say in a sentence of each modality what it contributes, and from where; the most first.

    Args:
        language: Of the sentences.
        record: What is said.
        pieces: The evidence that its places are named from.
    """
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
        place, most = _find_place(language, record, pieces, modality)
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


def say_number(value: float, modality: Modality, full: float) -> str:
    """Write a number of a map with as many decimals as its picture has.

    Args:
        value: The number.
        modality: Of the map; of words the scale sets the decimals, of areas there are two.
        full: The value of the map's scale where its colour is full.
    """
    return format_signed(value, count_decimals(full) if modality is Modality.NOTE else 2)


def say_sum(language: Language, record: ExplanationRecord) -> str:
    """Name what the pieces of a map add up to, which is no Shapley share."""
    return language.text(
        "Sum of the map against {baseline}", baseline=look_up(language, BASELINES, record.baseline)
    )


def say_difference(language: Language, record: ExplanationRecord) -> str:
    """Say how a modality's Shapley share and the sum of its map differ."""
    return language.text(
        "A modality has two numbers, which measure different things and can differ. Its Shapley "
        "share is what the output loses without it, on average over what else is there (against: "
        "{baseline}). The sum of its map is what {method} gives to its parts, all that is given "
        "taken together (against: {map_baseline}).",
        baseline=look_up(language, BASELINES, record.shares.baseline),
        method=look_up(language, METHODS, record.method),
        map_baseline=look_up(language, BASELINES, record.baseline),
    )


def say_piece(language: Language, piece: Piece) -> str:
    """Name a piece of evidence."""
    place = piece.place
    if place is None:
        return language.text("everything else")
    if isinstance(place, AreaPlace):
        where = {"place": language.text(PLACES[place.row][place.column]), "number": place.frame}
        if place.outlined:
            return language.text(
                "the area outlined in the {place} of frame {number} as it is shown", **where
            )
        return language.text(
            "the {place} of frame {number} as it is shown, outside any outline", **where
        )
    if isinstance(place, WordsPlace):
        return language.text('"{phrase}"', phrase=place.text)
    if place.low_hz is None or place.high_hz is None:
        return language.text(
            "{start} to {end} s, outside any outline",
            start=f"{place.start_s:.1f}",
            end=f"{place.end_s:.1f}",
        )
    return language.text(
        "{start} to {end} s at {low} to {high} Hz",
        start=f"{place.start_s:.2f}",
        end=f"{place.end_s:.2f}",
        low=f"{place.low_hz:.0f}",
        high=f"{place.high_hz:.0f}",
    )


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


def _find_place(
    language: Language, record: ExplanationRecord, pieces: Sequence[Piece], modality: Modality
) -> tuple[str, bool]:
    """Name where most of a modality's share comes from, and tell whether it is over half.

    Half is of all that the modality's pieces have in that direction, the rest being one of them.
    """
    share = record.shares.shares[modality]
    if not record.sums.get(modality, 0.0) * share > 0:
        return "", False  # where the map says otherwise than the share, it has no place for it
    same = [p for p in pieces if p.modality is modality and p.share and p.value * share > 0]
    most = max((p for p in same if p.place is not None), key=lambda p: abs(p.value), default=None)
    if most is None:
        return "", False
    over = abs(most.value) > 0.5 * sum(abs(p.value) for p in same)
    return say_piece(language, most), over
