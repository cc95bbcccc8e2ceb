"""A study's note, recording and answer in, HTML for the page out; every text escaped."""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise

import numpy as np
import soundfile
from jaxtyping import Float

from medfuse.attribution.record import ExplanationRecord
from medfuse.bundle import NOTICE
from medfuse.config import SAMPLE_RATE, Limits, NoteSettings, TaskKind
from medfuse.data.note import decode_note, find_sections
from medfuse.data.voice import Recording, decode_voice
from medfuse.headings import section_of
from medfuse.overlay import escape_text
from medfuse.types import MODALITIES, Modality
from medfuse_serving.answer import (
    Answer,
    SentenceAnswer,
    TaskAnswer,
    TextAnswer,
    describe_basis,
    describe_judgement,
    describe_promises,
    describe_reading,
    describe_shares,
    format_probability,
    format_value,
)
from medfuse_serving.language import SOURCE, Language, message
from medfuse_serving.report.record import ReferralRecord
from medfuse_serving.report.withhold import find_referrals, is_withheld, list_questions, withhold
from medfuse_serving.report.words import say_next_step, say_reason, title

WAVE_POINTS = 300
"""Bars of a recording's outline."""

WORDS = {
    "log-out": message("Log out"),
    "stopped": message("The explanation was stopped."),
    "viewer": message("image viewer"),
    "keys": message(
        "Image. Arrows set window and level, with Shift they move the picture; plus and minus "
        "zoom; Page Up and Page Down turn frames; 1 to 9 choose a preset; I inverts, R resets, "
        "M measures: arrows move an end of the line, Enter fixes it."
    ),
    "tools": message("Tools of the image viewer"),
    "window": message("Window"),
    "pan": message("Move"),
    "measure": message("Measure"),
    "preset": message("Preset"),
    "level": message("Level"),
    "width": message("Width"),
    "not-a-number": message("Not taken: type a number, such as -600 or 12.5."),
    "width-not-positive": message("Not taken: the width must be greater than 0."),
    "width-below-one": message("Not taken: this window's width must be at least 1."),
    "invert": message("Invert"),
    "zoom": message("zoom"),
    "zoom-in": message("Zoom in"),
    "zoom-out": message("Zoom out"),
    "native": message("One pixel of the screen for one of the image"),
    "reset": message("Reset"),
    "remove": message("Remove image"),
    "frame": message("Frame"),
    "opacity": message("Opacity of the map"),
    "threshold": message("Hide what is weaker than"),
    "pixels": message("pixels"),
    "pair": message("Link to the present study"),
    "linked": message("Move together"),
    "windowed": message("Same window"),
    "in-mm": message("Moves with the present study, in mm"),
    "by-place": message(
        "Moves with the present study, by its relative place: not both have a pixel spacing"
    ),
    "apart": message("Moves by itself"),
    "unkept": message(
        "What you wrote of this study is not kept yet, and would be lost. Leave the study all the "
        "same?"
    ),
    "pair-keys": message(
        "L links the two studies or takes the link off, S gives both the same window."
    ),
    "map-keys": message(
        "E goes through the outlined areas, Enter goes to an area's row of the table."
    ),
    "screen": message(
        "True pixel values in 256 greys; this page does not calibrate the monitor: not for "
        "diagnosis."
    ),
}
"""What the page's own elements say, by the names that the files in `web` use."""

FAINT = 0.02
"""A recording whose peaks stay below this is drawn as faint as it is."""


def note_html(language: Language, data: bytes, settings: NoteSettings, limits: Limits) -> str:
    """Show a note by its recognised sections, saying which the model does not read.

    Raises:
        InputError: It can't be decoded.
    """
    text = decode_note(data, limits, settings.legacy_encoding)
    excluded = {section_of(name, settings.headings) for name in settings.exclude_sections}
    included = {section_of(name, settings.headings) for name in settings.include_sections}
    parts = []
    unread = f"<span>{escape_text(language.text('not read by the model'))}</span>"
    for section in find_sections(text, settings.headings):
        body = text[section.body : section.end].strip()
        if not body:
            continue
        names = set(section.names)
        read = (not included or names & included) and not names & excluded
        parts.append(
            f'<section class="mf-section{"" if read else " mf-unread"}">'
            f"<h4>{escape_text(_say_section(language, section.names))}"
            f"{'' if read else unread}</h4>"
            f"<p>{escape_text(body)}</p></section>"
        )
    # A long one scrolls, so keys must reach it.
    label = escape_text(language.text("The note by sections"))
    region = f'role="region" aria-label="{label}" tabindex="0"'
    return f'<div class="mf-note" {region}>{"".join(parts)}</div>'


def _say_section(language: Language, names: Sequence[str]) -> str:
    """Say a section's names, which a site's own settings may have added to."""
    return " / ".join(language.name(name.lower()) for name in names).capitalize()


def voice_html(language: Language, data: bytes, limits: Limits) -> str:
    """Show a recording's outline with a player.

    Raises:
        InputError: It can't be decoded.
    """
    recording = decode_voice(data, limits)
    outline = _outline(recording.waveform)
    return f'<div class="mf-voice">{outline}{player_html(language, recording)}</div>'


def player_html(language: Language, recording: Recording) -> str:
    """Play a recording as the model hears it."""
    source = data_url("audio/wav", to_wav(recording))
    caption = language.text(
        "{seconds} s, at {rate} kHz as the model hears it",
        seconds=f"{recording.duration_s:.1f}",
        rate=SAMPLE_RATE // 1000,
    )
    return f'<audio controls preload="auto" src="{source}"></audio><p>{escape_text(caption)}</p>'


def answer_html(
    language: Language, answer: Answer, explanations: Sequence[ExplanationRecord] = ()
) -> str:
    """Show an answer: bars, findings in words, what it rests on, remarks, the model's digest.

    What is left to a human has no score: what rests on an input unlike the training studies, and
    what the model cannot explain.

    Args:
        language: The reader's.
        answer: Of the model.
        explanations: Of it, as many as there are.
    """
    own = find_referrals(answer, explanations)
    referrals = {target: referral for referral in own for target in referral.targets}
    text = withhold(answer, own).findings_text
    used = "".join(_used_html(language, m, answer) for m in MODALITIES)
    remarks = "".join(
        f"<li><b>{escape_text(title(language, remark.modality))}{language.text('.')}</b> "
        f"{foreign_html(language, remark.message)}</li>"
        for remark in answer.remarks
    )
    about = escape_text(language.text("About the input"))
    model = escape_text(language.text("Model"))
    promises, withheld = "", is_withheld(answer, own)
    if answer.promises is not None and not withheld:
        said = (describe_promises(answer.promises, language), describe_basis(answer, language))
        promises = "".join(f'<p class="mf-legend">{escape_text(s)}</p>' for s in said if s)
    return (
        f'<div class="mf-answer{" mf-referred" if withheld else ""}" '
        f'data-told="{escape_text(_say_answer(language, answer, referrals))}">'
        + "".join(_task_html(language, task, answer, referrals) for task in answer.tasks)
        + promises
        + ("" if text is None else _text_html(language, text))
        + f'<ul class="mf-modalities">{used}</ul>{_usual_html(language, answer)}'
        + (f'<h4>{about}</h4><ul class="mf-remarks">{remarks}</ul>' if remarks else "")
        + f'<p class="mf-digest">{model} <code>{answer.model_digest}</code></p></div>'
    )


def _say_answer(language: Language, answer: Answer, referrals: Mapping[str, ReferralRecord]) -> str:
    """Say in a line that the answer has come, and what it is."""
    said = []
    for task in answer.tasks:
        if not task.used:
            found = [describe_reading(task, answer.used, language)]
        elif set(list_questions(task)) <= set(referrals):
            found = [language.text("refer to a human")]
        elif task.kind is TaskKind.REGRESSION:
            found = [format_value(task)]
        else:
            found = [
                f"{language.name(name)} {format_probability(p)}"
                for name, p in task.probabilities.items()
                if f"{task.name}.{name}" not in referrals
            ]
        said.append(f"{title(language, task.name)}: {', '.join(found)}")
    return language.text("Answer ready. {answer}", answer="; ".join(said))


def problem_html(language: Language, problem: str, lead: str = "") -> str:
    """Show why something can't be used.

    Args:
        language: The reader's.
        problem: An error's message, in English.
        lead: What is said first, in the reader's language; that it cannot be used by default.
    """
    lead = lead or language.text("Cannot be used.")
    return (
        f'<div class="mf-problem" role="alert"><b>{escape_text(lead)}</b> '
        f"{foreign_html(language, problem)}</div>"
    )


def progress_html(share: float, said: str, started: str) -> str:
    """Show how far something is.

    Args:
        share: Of it that is done, from 0 to 1.
        said: In words.
        started: Told when it begins.
    """
    told = escape_text(started)
    return (
        f'<div class="mf-progress" data-told="{told}"><progress max="100" '
        f'value="{int(100 * share)}" aria-label="{told}"></progress> {escape_text(said)}</div>'
    )


def foreign_html(language: Language, sentence: str) -> str:
    """Show an English sentence in the reader's language, or else marked as English."""
    said = language.sentence(sentence)
    if said == sentence and language.code != SOURCE:
        return f'<span lang="{SOURCE}">{escape_text(sentence)}</span>'
    return escape_text(said)


def card_html(title: str, body: str) -> str:
    """Put a heading over a part of the page."""
    return f'<section class="mf-card"><h2>{escape_text(title)}</h2>{body}</section>'


def empty_html(message: str) -> str:
    """Say what will stand in an empty place."""
    return f'<p class="mf-empty">{escape_text(message)}</p>'


def header_html(language: Language) -> str:
    """Name the page, with the notice; the words of the page's own elements come with it."""
    notice = f'<p role="note">{escape_text(language.text(NOTICE))}</p>'
    words = escape_text(json.dumps({k: language.text(v) for k, v in WORDS.items()}))
    return (
        f'<header class="mf-header" data-words="{words}"><h1>medfuse</h1>{notice}'
        f'<mf-reader lang="{language.tag}"></mf-reader></header>'
    )


def refer_html(language: Language, referral: ReferralRecord) -> str:
    """Refer the reader to a human, with the reason and the next step, in a score's place."""
    return f'<p class="mf-refer" role="alert">{_referral_html(language, referral)}</p>'


def _referral_html(language: Language, referral: ReferralRecord) -> str:
    said = f"{say_reason(language, referral)} {say_next_step(language, referral)}"
    return f"<b>{escape_text(language.text('Refer to a human.'))}</b> {escape_text(said)}"


def _used_html(language: Language, modality: Modality, answer: Answer) -> str:
    """Say whether a modality is part of the answer, and how usual it is."""
    used = modality in answer.used
    said = language.text("used") if used else language.text("not given")
    if used and (novelty := answer.novelty.get(modality)) is not None:
        usual = language.text("novel") if novelty.novel else language.text("usual")
        said += f", {usual} (p = {novelty.p_value:.2g})"
    name = escape_text(title(language, modality))
    return f'<li class="{"mf-used" if used else "mf-absent"}">{name}: {escape_text(said)}</li>'


def _usual_html(language: Language, answer: Answer) -> str:
    """Say what "usual" means, or that it was not judged."""
    if not answer.novelty or answer.promises is None:
        said = language.text("Whether the input is like the training studies was not judged.")
    else:
        said = language.text(
            "p: the share of studies like the training's that are at least as unlike them; from "
            "{share} down an input is novel.",
            share=f"{answer.promises.false_alarms:.1%}",
        )
    return f'<p class="mf-legend">{escape_text(said)}</p>'


def _task_html(
    language: Language,
    task: TaskAnswer,
    answer: Answer,
    referrals: Mapping[str, ReferralRecord],
) -> str:
    heading = f"<h3>{escape_text(title(language, task.name))}</h3>"
    reading = describe_reading(task, answer.used, language)
    if not task.used:
        sentence = reading.capitalize() + language.text(".")
        return f'{heading}<p class="mf-legend">{escape_text(sentence)}</p>'
    found = [referrals.get(question) for question in list_questions(task)]
    if found[0] is not None and None not in found:
        return heading + refer_html(language, found[0])
    note = f", {escape_text(reading)}" if reading else ""
    said = {}
    if answer.promises is not None:
        said = {
            j.question: describe_judgement(j, answer.promises, language) for j in task.judgements
        }
    whole = _said_html(said[task.name]) if task.name in said else ""
    if task.kind is TaskKind.REGRESSION:
        return f'{heading}<p class="mf-value">{escape_text(format_value(task))}{note}</p>{whole}'
    rows = "".join(
        _referred_html(language, name, referrals[f"{task.name}.{name}"])
        if f"{task.name}.{name}" in referrals
        else _bar_html(language, name, p, said.get(f"{task.name}.{name}", ""))
        for name, p in task.probabilities.items()
    )
    label = escape_text(language.text("Calibrated probabilities"))
    return (
        f'{heading}<p class="mf-legend">{escape_text(_say_unit(language, task))}{note}</p>'
        f'<div class="mf-bars" role="table" aria-label="{label}">{rows}'
        '<div class="mf-axis" aria-hidden="true"><span>0</span><span>50</span><span>100 %</span>'
        f"</div></div>{whole}"
    )


def _said_html(said: str) -> str:
    return f'<small class="mf-said">{escape_text(said)}</small>'


def _text_html(language: Language, text: TextAnswer) -> str:
    """Show each stated finding in words, with what states it and the modalities it was read from.

    Not the places: known truth finds them wrong too often to be shown beside a patient.
    """
    sentences = "".join(_sentence_html(language, sentence) for sentence in text.sentences)
    listed = f'<ul class="mf-sentences">{sentences}</ul>' if sentences else ""
    nothing = escape_text(language.text("Nothing is stated."))
    nothing = "" if sentences else f'<p class="mf-legend">{nothing}</p>'
    notice = f'<p class="mf-legend">{escape_text(language.text(text.notice))}</p>'
    return f"<h3>{escape_text(language.text('Findings in words'))}</h3>{listed}{nothing}{notice}"


def _sentence_html(language: Language, sentence: SentenceAnswer) -> str:
    small = language.text(
        "{finding} {probability}, stated from {threshold}. Read from: {shares}.",
        finding=title(language, sentence.target.partition(".")[2]),
        probability=format_probability(sentence.probability),
        threshold=format_probability(sentence.threshold),
        shares=describe_shares(sentence, language),
    )
    said = foreign_html(language, sentence.text)
    return f"<li><p>{said}</p><small>{escape_text(small)}</small></li>"


def _say_unit(language: Language, task: TaskAnswer) -> str:
    if task.kind is TaskKind.MULTICLASS:
        return language.text("Calibrated probability of each class")
    if task.kind is TaskKind.ORDINAL:
        return language.text("Calibrated probability of each level")
    return language.text("Calibrated probability of each finding")


def _bar_html(language: Language, name: str, probability: float, said: str) -> str:
    name = escape_text(language.name(name))
    return (
        f'<div class="mf-bar" role="row"><span role="cell">{name}</span>'
        f'<span class="mf-track" aria-hidden="true"><i style="width:{100 * probability:.2f}%"></i>'
        f'</span><b role="cell">{escape(format_probability(probability))}</b>'
        + (f'<small class="mf-said" role="cell">{escape_text(said)}</small>' if said else "")
        + "</div>"
    )


def _referred_html(language: Language, name: str, referral: ReferralRecord) -> str:
    name = escape_text(language.name(name))
    return (
        f'<div class="mf-bar" role="row"><span role="cell">{name}</span>'
        f'<span role="cell" class="mf-wide">{_referral_html(language, referral)}</span></div>'
    )


def _outline(waveform: Float[np.ndarray, " n"]) -> str:
    """Draw a waveform's peaks as one SVG path, the loudest over the whole height."""
    edges = np.linspace(0, len(waveform), WAVE_POINTS + 1).astype(int)
    peaks = [float(np.abs(waveform[a:b]).max(initial=0.0)) for a, b in pairwise(edges.tolist())]
    scale = 48 / max(FAINT, *peaks)
    path = "".join(f"M{x} {50 - scale * p:.1f}V{50 + scale * p:.1f}" for x, p in enumerate(peaks))
    return (
        f'<svg viewBox="0 0 {WAVE_POINTS} 100" preserveAspectRatio="none" aria-hidden="true">'
        f'<path d="{path}"/></svg>'
    )


def to_wav(recording: Recording) -> bytes:
    """Write a recording down as the model hears it."""
    wav = io.BytesIO()
    soundfile.write(wav, recording.waveform, SAMPLE_RATE, format="WAV", subtype="PCM_16")
    return wav.getvalue()


def data_url(media_type: str, data: bytes) -> str:
    """Write data as a URL that holds it."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode('ascii')}"
