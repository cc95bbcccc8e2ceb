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
from medfuse.dictation.record import Transcript
from medfuse.headings import section_of
from medfuse.overlay import escape_text
from medfuse.types import MODALITIES
from medfuse_serving.answer import (
    Answer,
    TaskAnswer,
    TextAnswer,
    describe_judgement,
    describe_promises,
    describe_reading,
    describe_shares,
    format_probability,
    format_value,
)
from medfuse_serving.language import ENGLISH
from medfuse_serving.report.record import ReferralRecord
from medfuse_serving.report.withhold import find_referrals, list_questions, withhold
from medfuse_serving.report.words import say_next_step, say_reason

WAVE_POINTS = 300
"""Bars of a recording's outline."""

WORDS = {
    "viewer": "image viewer",
    "keys": "Image. Arrows set window and level, with Shift they move the picture; plus and minus "
    "zoom; Page Up and Page Down turn frames; 1 to 9 choose a preset; I inverts, R resets, "
    "M measures: arrows move an end of the line, Enter fixes it.",
    "tools": "Tools of the image viewer",
    "window": "Window",
    "pan": "Move",
    "measure": "Measure",
    "preset": "Preset",
    "level": "Level",
    "width": "Width",
    "invert": "Invert",
    "zoom": "zoom",
    "zoom-in": "Zoom in",
    "zoom-out": "Zoom out",
    "native": "One pixel of the screen for one of the image",
    "reset": "Reset",
    "frame": "Frame",
    "opacity": "Opacity of the map",
    "threshold": "Hide what is weaker than",
    "pixels": "pixels",
    "screen": "True pixel values in 256 greys; this page does not calibrate the monitor: not for "
    "diagnosis.",
}
"""What the page's own elements say, by the names that the files in `web` use."""

FAINT = 0.02
"""A recording whose peaks stay below this is drawn as faint as it is."""


def note_html(data: bytes, settings: NoteSettings, limits: Limits) -> str:
    """Show a note by its recognised sections, saying which the model does not read.

    Raises:
        InputError: It can't be decoded.
    """
    text = decode_note(data, limits, settings.legacy_encoding)
    excluded = {section_of(name, settings.headings) for name in settings.exclude_sections}
    included = {section_of(name, settings.headings) for name in settings.include_sections}
    parts = []
    for section in find_sections(text, settings.headings):
        body = text[section.body : section.end].strip()
        if not body:
            continue
        names = set(section.names)
        read = (not included or names & included) and not names & excluded
        parts.append(
            f'<section class="mf-section{"" if read else " mf-unread"}">'
            f"<h4>{escape_text(' and '.join(section.names).capitalize())}"
            f"{'' if read else '<span>not read by the model</span>'}</h4>"
            f"<p>{escape_text(body)}</p></section>"
        )
    return f'<div class="mf-note">{"".join(parts)}</div>'


def voice_html(data: bytes, limits: Limits) -> str:
    """Show a recording's outline with a player.

    Raises:
        InputError: It can't be decoded.
    """
    recording = decode_voice(data, limits)
    return f'<div class="mf-voice">{_outline(recording.waveform)}{player_html(recording)}</div>'


def player_html(recording: Recording) -> str:
    """Play a recording as the model hears it."""
    source = data_url("audio/wav", _to_wav(recording))
    caption = f"{recording.duration_s:.1f} s, at {SAMPLE_RATE // 1000} kHz as the model hears it"
    return f'<audio controls preload="auto" src="{source}"></audio><p>{caption}</p>'


def dictated_html(transcript: Transcript) -> str:
    """Show a dictated note's words, each with when it was said."""
    words = " ".join(
        f'<span title="{word.start_s:.2f} to {word.end_s:.2f} s">'
        f"{escape_text(transcript.text[word.start : word.end])}</span>"
        for word in transcript.words
    )
    return (
        '<details class="mf-dictated"><summary>Written down from a dictation: check every word'
        f"</summary><p>{words}</p><p class='mf-legend'>Point at a word to see when it was said. "
        f"By {escape_text(transcript.model)}, a small model: names of findings and drugs often "
        "come out wrong.</p></details>"
    )


def answer_html(answer: Answer, explanations: Sequence[ExplanationRecord] = ()) -> str:
    """Show an answer: bars, findings in words, what it rests on, remarks, the model's digest.

    What is left to a human has no score: what rests on an input unlike the training studies, and
    what the model cannot explain.

    Args:
        answer: Of the model.
        explanations: Of it, as many as there are.
    """
    referrals = {
        target: referral
        for referral in find_referrals(answer, explanations)
        for target in referral.targets
    }
    text = withhold(answer, tuple(referrals.values())).findings_text
    used = "".join(
        f'<li class="{"mf-used" if m in answer.used else "mf-absent"}">{m.capitalize()}: '
        f"{'used' if m in answer.used else 'not given'}</li>"
        for m in MODALITIES
    )
    remarks = "".join(
        f"<li><b>{remark.modality.capitalize()}.</b> {escape_text(remark.message)}</li>"
        for remark in answer.remarks
    )
    promises = ""
    if answer.promises is not None:
        promises = f'<p class="mf-legend">{escape_text(describe_promises(answer.promises))}</p>'
    return (
        f'<div class="mf-answer{" mf-referred" if _is_referred(answer, referrals) else ""}">'
        + "".join(_task_html(task, answer, referrals) for task in answer.tasks)
        + promises
        + ("" if text is None else _text_html(text))
        + f'<ul class="mf-modalities">{used}</ul>'
        + (f'<h4>About the input</h4><ul class="mf-remarks">{remarks}</ul>' if remarks else "")
        + f'<p class="mf-digest">Model <code>{answer.model_digest}</code></p></div>'
    )


def problem_html(message: str) -> str:
    """Show why something can't be used."""
    return (
        f'<div class="mf-problem" role="alert"><b>Cannot be used.</b> {escape_text(message)}</div>'
    )


def card_html(title: str, body: str) -> str:
    """Put a heading over a part of the page."""
    return f'<section class="mf-card"><h2>{escape_text(title)}</h2>{body}</section>'


def empty_html(message: str) -> str:
    """Say what will stand in an empty place."""
    return f'<p class="mf-empty">{escape_text(message)}</p>'


def header_html() -> str:
    """Name the page, with the notice."""
    notice = f'<p role="note">{escape_text(NOTICE)}</p>'
    words = escape_text(json.dumps(WORDS))
    return f'<header class="mf-header" data-words="{words}"><h1>medfuse</h1>{notice}</header>'


def refer_html(message: str) -> str:
    """Refer the reader to a human, with the reason and the next step, in a score's place."""
    return f'<p class="mf-refer" role="alert"><b>Refer to a human.</b> {escape_text(message)}</p>'


def describe_referral(referral: ReferralRecord) -> str:
    """Say why something is left to a human, and what to do next."""
    return f"{say_reason(ENGLISH, referral)} {say_next_step(ENGLISH, referral)}"


def _is_referred(answer: Answer, referrals: Mapping[str, ReferralRecord]) -> bool:
    """Say whether nothing is left of an answer that may be shown."""
    return all(
        not task.used or set(list_questions(task)) <= set(referrals) for task in answer.tasks
    )


def _task_html(task: TaskAnswer, answer: Answer, referrals: Mapping[str, ReferralRecord]) -> str:
    title = f"<h3>{escape_text(task.name.replace('_', ' ').capitalize())}</h3>"
    reading = describe_reading(task, answer.used)
    if not task.used:
        return f'{title}<p class="mf-legend">{escape_text(reading.capitalize())}.</p>'
    found = [referrals.get(question) for question in list_questions(task)]
    if found[0] is not None and None not in found:
        return title + refer_html(describe_referral(found[0]))
    note = f", {escape_text(reading)}" if reading else ""
    said = {}
    if answer.promises is not None:
        said = {j.question: describe_judgement(j, answer.promises) for j in task.judgements}
    whole = _said_html(said[task.name]) if task.name in said else ""
    if task.kind is TaskKind.REGRESSION:
        return f'{title}<p class="mf-value">{escape_text(format_value(task))}{note}</p>{whole}'
    rows = "".join(
        _referred_html(name, referrals[f"{task.name}.{name}"])
        if f"{task.name}.{name}" in referrals
        else _bar_html(name, p, said.get(f"{task.name}.{name}", ""))
        for name, p in task.probabilities.items()
    )
    return (
        f'{title}<p class="mf-legend">Calibrated probability of each {_unit_of(task)}{note}'
        "</p>"
        f'<div class="mf-bars" role="table" aria-label="Calibrated probabilities">{rows}'
        '<div class="mf-axis" aria-hidden="true"><span>0</span><span>50</span><span>100 %</span>'
        f"</div></div>{whole}"
    )


def _said_html(said: str) -> str:
    return f'<small class="mf-said">{escape_text(said)}</small>'


def _text_html(text: TextAnswer) -> str:
    """Show each stated finding in words, with what states it and the modalities it was read from.

    Not the places: known truth finds them wrong too often to be shown beside a patient.
    """
    sentences = "".join(
        f"<li><p>{escape_text(sentence.text)}</p>"
        f"<small>{escape_text(sentence.target.partition('.')[2].replace('_', ' ').capitalize())} "
        f"{escape(format_probability(sentence.probability))}, stated from "
        f"{escape(format_probability(sentence.threshold))}. "
        f"Read from: {escape_text(describe_shares(sentence))}.</small></li>"
        for sentence in text.sentences
    )
    listed = f'<ul class="mf-sentences">{sentences}</ul>' if sentences else ""
    nothing = "" if sentences else '<p class="mf-legend">Nothing is stated.</p>'
    notice = f'<p class="mf-legend">{escape_text(text.notice)}</p>'
    return f"<h3>Findings text</h3>{listed}{nothing}{notice}"


def _unit_of(task: TaskAnswer) -> str:
    names = {TaskKind.MULTICLASS: "class", TaskKind.ORDINAL: "level"}
    return names.get(task.kind, "finding")


def _bar_html(name: str, probability: float, said: str) -> str:
    name = escape_text(name.replace("_", " "))
    return (
        f'<div class="mf-bar" role="row"><span role="cell">{name}</span>'
        f'<span class="mf-track" aria-hidden="true"><i style="width:{100 * probability:.2f}%"></i>'
        f'</span><b role="cell">{escape(format_probability(probability))}</b>'
        + (f'<small class="mf-said" role="cell">{escape_text(said)}</small>' if said else "")
        + "</div>"
    )


def _referred_html(name: str, referral: ReferralRecord) -> str:
    name = escape_text(name.replace("_", " "))
    why = escape_text(describe_referral(referral))
    return (
        f'<div class="mf-bar" role="row"><span role="cell">{name}</span>'
        f'<span role="cell" class="mf-wide"><b>Refer to a human.</b> {why}</span></div>'
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


def _to_wav(recording: Recording) -> bytes:
    wav = io.BytesIO()
    soundfile.write(wav, recording.waveform, SAMPLE_RATE, format="WAV", subtype="PCM_16")
    return wav.getvalue()


def data_url(media_type: str, data: bytes) -> str:
    """Write data as a URL that holds it."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode('ascii')}"
