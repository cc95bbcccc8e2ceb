"""A report's record in, its PDF out: the same bytes for the same record and the same versions."""

import io
from collections.abc import Sequence
from contextlib import closing

from PIL import Image

from medfuse.attribution.record import BandRecord
from medfuse.config import TaskKind
from medfuse.overlay import MINUS, NUMBERED, Scale, format_signed
from medfuse.types import MODALITIES, Modality
from medfuse_serving.answer import (
    TaskAnswer,
    describe_basis,
    describe_judgement,
    describe_promises,
    describe_reading,
    describe_shares,
    format_probability,
    format_value,
)
from medfuse_serving.language import Language, find_language, message
from medfuse_serving.report import words
from medfuse_serving.report.paper import (
    ACCENT,
    ALARM,
    BODY,
    GREY,
    MARGIN,
    RULE,
    SMALL,
    TINY,
    Paper,
)
from medfuse_serving.report.record import (
    ATTACHMENT,
    ExplainedRecord,
    FrameEvidence,
    LayerRecord,
    ReportRecord,
    find_digest,
    from_bytes,
    to_bytes,
    to_code,
    to_utc,
)
from medfuse_serving.report.seal import ATTACHMENT as SEAL
from medfuse_serving.report.seal import BLANK, seal

BAR = 10
"""Squares of a bar that stands for a probability of 1."""

MARKED_WORDS = 16
"""Words of a note that have their number, the strongest."""

TICKS = 5

DECISIONS = {
    "accept": message("accepted"),
    "edit": message("accepted with changes"),
    "override": message("overridden"),
    "acknowledge": message("withheld, and its referral noted"),
}


def make_report(record: ReportRecord, key: bytes | None = None) -> bytes:
    """Draw a report and attach its record to it.

    Args:
        record: All that it says.
        key: What it is sealed with, if it is.

    Raises:
        ReportError: It would have too many pages.
    """
    data = to_bytes(record)
    if key is None:
        return draw_report(data, sealed=False)
    return seal(draw_report(data, sealed=True), key)


def draw_report(data: bytes, *, sealed: bool) -> bytes:
    """Draw the pages of a record's bytes and attach them.

    Args:
        data: The record's.
        sealed: Leave a place for a seal.

    Raises:
        ReportError: They are no record, or would have too many pages.
    """
    record, digest = from_bytes(data), find_digest(data)
    language = find_language(record.language)
    page = language.text("Page {page} of {pages}", page="{page}", pages="{pages}")
    short = language.text("Research and evaluation only. Not a medical device.")
    named = f"{record.study_id} | " if record.study_id else ""
    named = named.replace("{", "{{").replace("}", "}}")
    with closing(
        Paper(
            title=language.text("medfuse report"),
            tag=language.tag,
            made_at=record.made_at,
            foot=(f"{to_code(digest)}", f"{named}{short} | {page}"),
        )
    ) as paper:
        _draw_title(paper, language, record, digest)
        _draw_referrals(paper, language, record)
        _draw_reading(paper, language, record)
        for task in record.answer.tasks:
            _draw_task(paper, language, record, task)
        if record.answer.promises is not None:
            paper.paragraph(describe_promises(record.answer.promises, language), SMALL, GREY)
            if basis := describe_basis(record.answer, language):
                paper.paragraph(basis, SMALL, GREY)
        _draw_text(paper, language, record)
        _draw_basis(paper, language, record)
        if not record.explanations:
            _draw_evidence(paper, language, record)
        for explained in record.explanations:
            _draw_explanation(paper, language, record, explained)
        _draw_provenance(paper, language, record, digest, sealed=sealed)
        paper.embed_file(
            bytes=data,
            basename=ATTACHMENT,
            desc="Record of this report",
            mime_type="application/json",
            associated_file_relationship="Data",
            modification_date=record.made_at,
            compress=True,
        )
        if sealed:
            paper.embed_file(
                bytes=BLANK,
                basename=SEAL,
                desc="HMAC-SHA256 of this file",
                mime_type="text/plain",
                associated_file_relationship="Supplement",
                modification_date=record.made_at,
            )
        return bytes(paper.output())


def _draw_title(paper: Paper, language: Language, record: ReportRecord, digest: str) -> None:
    side = 30.0
    paper.code(
        to_code(digest),
        paper.w - MARGIN - side,
        MARGIN - 4,
        side,
        language.text("QR code: {code}", code=to_code(digest)),
    )
    width = paper.w - 2 * MARGIN - side - 4
    paper.use(20.0, ACCENT)
    paper.cell(width, 10, language.text("medfuse report"), new_x="LMARGIN", new_y="NEXT")
    paper.paragraph(language.sentence(record.notice), BODY, ALARM, width)
    facts = (
        (language.text("Study"), record.study_id or language.text("not named")),
        (language.text("Report made"), to_utc(record.made_at)),
        (language.text("Model"), record.model.digest),
    )
    paper.set_y(max(paper.get_y(), MARGIN + side - 4) + 1)
    paper.rows((), facts, (1, 5), size=SMALL)


def _draw_referrals(paper: Paper, language: Language, record: ReportRecord) -> None:
    for referral in record.referrals:
        with paper.box(ALARM):
            paper.use(14.0, ALARM)
            paper.cell(0, 7, language.text("▲ Refer to a human"), new_x="LMARGIN", new_y="NEXT")
            named = ", ".join(_name_target(language, target) for target in referral.targets)
            paper.paragraph(language.text("No score is given for: {names}.", names=named))
            reason = words.say_reason(language, referral)
            paper.paragraph(language.text("Why: {reason}", reason=reason))
            for check in referral.checks:
                paper.paragraph(f"{MINUS} {language.sentence(check.message)}", SMALL, GREY)
            for modality in referral.modalities:
                p_value = record.answer.novelty[modality].p_value
                said = language.text(
                    "{modality}: p = {p}; less than {share} of usual ones are so unlike.",
                    modality=words.title(language, modality),
                    p=f"{p_value:.2g}",
                    share=_novel_share(record),
                )
                paper.paragraph(f"{MINUS} {said}", SMALL, GREY)
            step = words.say_next_step(language, referral)
            paper.paragraph(language.text("Next step: {step}", step=step))


def _draw_reading(paper: Paper, language: Language, record: ReportRecord) -> None:
    reading = record.reading
    if reading is None:
        return
    paper.heading(language.text("The reader's impression"))
    if reading.impression:
        paper.paragraph(reading.impression)
    said = [
        (words.title(language, target.rpartition(".")[2]), language.name(value))
        for target, value in reading.findings.items()
    ]
    if said:
        paper.rows((), said, (1, 3), size=SMALL)
    decision = language.text(DECISIONS[reading.decision])
    rows = [(language.text("The model's answer was"), decision)]
    if reading.wording:
        rows.append((language.text("Final wording"), reading.wording))
    if reading.reason:
        rows.append((language.text("Reason"), reading.reason))
    reader = reading.reader or language.text("nobody had logged in")
    rows += [
        (language.text("Reader"), reader),
        (language.text("Opened"), to_utc(reading.opened_at)),
    ]
    if reading.impression_at is not None:
        rows.append((language.text("Impression kept"), to_utc(reading.impression_at)))
    if reading.answered_at is not None:
        rows.append((language.text("Answer shown"), to_utc(reading.answered_at)))
    rows.append((language.text("Decided"), to_utc(reading.signed_at)))
    paper.rows((), rows, (1, 3), size=SMALL)


def _draw_task(paper: Paper, language: Language, record: ReportRecord, task: TaskAnswer) -> None:
    """Draw what a task's answer is, or that there is none."""
    paper.heading(words.title(language, task.name))
    reading = describe_reading(task, record.answer.used, language)
    if not task.used:
        paper.paragraph(reading[:1].upper() + reading[1:] + language.text("."))
        return
    if reading:
        paper.paragraph(reading[:1].upper() + reading[1:] + language.text("."), SMALL, GREY)
    gone = [
        target
        for target in dict.fromkeys(t for own in record.referrals for t in own.targets)
        if target == task.name or target.startswith(f"{task.name}.")
    ]
    said = {}
    if record.answer.promises is not None:
        promises = record.answer.promises
        said = {
            j.question: describe_judgement(j, promises, language).replace(" · ", "; ")
            for j in task.judgements
        }
    human = language.text("refer to a human")
    if task.kind is TaskKind.REGRESSION:
        value = human if gone else format_value(task)
        estimate = (language.text("Estimate"), language.text("What can be said"))
        paper.rows(estimate, [(value, said.get(task.name, ""))], (1, 1))
        return
    rows = []
    for name, probability in task.probabilities.items():
        filled = round(probability * BAR)
        bar = "■" * filled + "□" * (BAR - filled)
        rows.append(
            (
                words.title(language, name),
                format_probability(probability),
                bar,
                said.get(f"{task.name}.{name}", ""),
            )
        )
    rows += [(_name_target(language, target), MINUS, "", human) for target in gone]
    per_finding = task.kind in (TaskKind.BINARY, TaskKind.MULTILABEL)
    head = (
        language.text("Finding") if per_finding else language.text("Class"),
        language.text("Probability"),
        "",
        language.text("What can be said"),
    )
    paper.rows(head, rows, (2.9, 1.4, 2.5, 6.2), right=(1,))
    if task.name in said:
        paper.paragraph(said[task.name], SMALL, GREY)


def _draw_text(paper: Paper, language: Language, record: ReportRecord) -> None:
    text = record.answer.findings_text
    if text is None:
        return
    paper.heading(language.text("Findings in words"))
    for sentence in text.sentences:
        finding = _name_target(language, sentence.target)
        paper.paragraph(sentence.text)
        paper.paragraph(
            language.text(
                "{finding} {probability}, stated from {threshold}. Read from: {shares}.",
                finding=finding,
                probability=format_probability(sentence.probability),
                threshold=format_probability(sentence.threshold),
                shares=describe_shares(sentence, language),
            ),
            SMALL,
            GREY,
        )
    if not text.sentences:
        paper.paragraph(language.text("Nothing is stated."))
    paper.paragraph(language.sentence(text.notice), SMALL, GREY)


def _draw_basis(paper: Paper, language: Language, record: ReportRecord) -> None:
    """Draw what the answer rests on: what was given, how usual it is, and remarks."""
    paper.heading(language.text("What the answer rests on"))
    rows = []
    for modality in MODALITIES:
        given = modality in record.answer.used
        novelty = record.answer.novelty.get(modality)
        usual = ""
        if novelty is not None:
            form = language.text("novel") if novelty.novel else language.text("usual")
            usual = f"{form} (p = {novelty.p_value:.2g})"
        elif given:
            usual = language.text("not judged")
        remarks = [
            language.sentence(remark.message)
            for remark in record.answer.remarks
            if remark.modality == modality
        ]
        rows.append(
            (
                words.title(language, modality),
                language.text("used") if given else language.text("not given"),
                usual,
                "\n".join(remarks),
            )
        )
    head = (
        language.text("Modality"),
        language.text("In this study"),
        language.text("Like the training studies"),
        language.text("Remarks"),
    )
    paper.rows(head, rows, (2, 2, 3, 7), size=SMALL)


def _draw_evidence(paper: Paper, language: Language, record: ReportRecord) -> None:
    """Draw what the model read where nothing of it is explained."""
    evidence = record.evidence
    if evidence.frames:
        paper.heading(language.text("Image"))
        _draw_frames(paper, language, record, None)
    if evidence.note is not None:
        paper.heading(language.text("Note"))
        paper.paragraph(evidence.note.text)
        _draw_note_rest(paper, language, record)
    if evidence.voice is not None:
        paper.heading(language.text("Recording"))
        _draw_spectrogram(paper, language, record, None)


def _draw_explanation(
    paper: Paper, language: Language, record: ReportRecord, explained: ExplainedRecord
) -> None:
    own = explained.record
    name = words.say_target(language, own.target)
    paper.add_page()
    paper.heading(language.text("Why this answer: {finding}", finding=name), 15.0)
    for sentence in words.say_shares(language, own, explained.pieces):
        paper.paragraph(sentence)
    _draw_shares(paper, language, explained)
    checks = "; ".join(language.name(check.name) for check in own.badge.checks)
    paper.paragraph(
        language.text(
            "The explanation passed its {count} checks: {names}. It says what moved the model's "
            "number, not what is true of the patient.",
            count=len(own.badge.checks),
            names=checks,
        ),
        SMALL,
        GREY,
    )
    if explained.frames:
        paper.heading(language.text("Image: what spoke for and against"), 11.0)
        _draw_frames(paper, language, record, explained)
        _draw_legend(paper, language, explained, Modality.IMAGE)
        _draw_pieces(paper, language, explained, Modality.IMAGE)
    if own.words is not None and record.evidence.note is not None:
        paper.heading(language.text("Note: what spoke for and against"), 11.0)
        _draw_note(paper, language, record, explained)
        _draw_pieces(paper, language, explained, Modality.NOTE)
    if explained.voice is not None:
        paper.heading(language.text("Recording: what spoke for and against"), 11.0)
        _draw_spectrogram(paper, language, record, explained.voice)
        _draw_legend(paper, language, explained, Modality.VOICE)
        _draw_pieces(paper, language, explained, Modality.VOICE)


def _draw_shares(paper: Paper, language: Language, explained: ExplainedRecord) -> None:
    own = explained.record
    percents = words.find_percents(own)
    rows = [
        (
            words.title(language, modality),
            format_signed(share),
            f"{percents[modality]:.0%}".replace("%", " %"),
            _say_band(own.band.get(modality)),
        )
        for modality, share in own.shares.shares.items()
    ]
    head = (
        language.text("Modality"),
        language.text("Shapley share in logits"),
        language.text("Of all shares"),
        language.text("Lowest and highest over baselines") if own.band else "",
    )
    paper.rows(head, rows, (2, 2, 2, 3), right=(1, 2), size=SMALL)
    if pairs := own.shares.interactions:
        said = [
            f"{language.text(' with ').join(language.name(m) for m in pair.split('+'))} "
            f"{format_signed(value)}"
            for pair, value in pairs.items()
        ]
        paper.paragraph(
            language.text(
                "What pairs say beyond each by itself, in logits: {pairs} (+ they strengthen each "
                "other, {minus} they say the same).",
                pairs="; ".join(said),
                minus=MINUS,
            ),
            SMALL,
            GREY,
        )
    paper.paragraph(
        language.text(
            "Shares are Shapley values against {baseline}: +: for, {minus}: against. Percentages "
            "are of their sum without signs. Maps are by {method} against {map_baseline}.",
            baseline=words.look_up(language, words.BASELINES, own.shares.baseline),
            minus=MINUS,
            method=words.look_up(language, words.METHODS, own.method),
            map_baseline=words.look_up(language, words.BASELINES, own.baseline),
        ),
        SMALL,
        GREY,
    )
    if explained.additive:
        paper.paragraph(words.say_difference(language, own), SMALL, GREY)


def _draw_frames(
    paper: Paper, language: Language, record: ReportRecord, explained: ExplainedRecord | None
) -> None:
    """Draw each frame, with its map beside it where there is one."""
    frames = record.evidence.frames
    layers: Sequence[LayerRecord | None] = explained.frames if explained else [None] * len(frames)
    each = 2 if explained else 1
    across = each * (1 if len(frames) <= 2 else 2)
    gap, whole = 3.0, paper.w - 2 * MARGIN
    side = min((whole - gap * (across - 1)) / across, 86.0 if len(frames) == 1 else 74.0)
    column, top, lowest = 0, paper.get_y(), paper.get_y()
    for frame, layer in zip(frames, layers, strict=True):
        width, height = _fit(frame, side)
        if column == 0:
            paper.keep(height + 8)
            top = lowest = paper.get_y()
        x = MARGIN + column * (side + gap)
        place = (x, top, width, height)
        caption = _caption(language, frame, record.evidence.frames_read)
        paper.picture(frame.png, place, caption)
        if layer is not None:
            place = (x + side + gap, top, width, height)
            paper.picture(frame.png, place)
            _lay(paper, layer, place, language.text("{frame}, with its map", frame=caption))
        paper.use(TINY, GREY)
        paper.set_xy(x, top + height + 0.5)
        # Beside each other, captions must not run on: a line of its own width each.
        paper.multi_cell(side * each, 3, caption, align="L", new_x="LMARGIN", new_y="NEXT")
        lowest = max(lowest, paper.get_y())
        column = (column + each) % across
        paper.set_y(lowest + 2 if column == 0 else top)
    paper.set_y(lowest + 2)
    if record.evidence.frames_read > len(frames):
        paper.paragraph(
            language.text(
                "{shown} of the {read} frames that the model read are shown.",
                shown=len(frames),
                read=record.evidence.frames_read,
            ),
            SMALL,
            GREY,
        )
    paper.paragraph(
        language.text("Small, 8-bit grey pictures for orientation, not for diagnosis."), SMALL, GREY
    )


def _draw_spectrogram(
    paper: Paper, language: Language, record: ReportRecord, layer: LayerRecord | None
) -> None:
    """Draw the spectrogram, and below it the same with its map, in seconds and hertz."""
    voice = record.evidence.voice
    assert voice is not None
    left, height = MARGIN + 13, 36.0
    width = paper.w - left - MARGIN
    for lay in (None, layer) if layer else (None,):
        paper.keep(height + 10)
        top = paper.get_y()
        place = (left, top, width, height)
        described = language.text("Spectrogram of {seconds} s", seconds=f"{voice.duration_s:.1f}")
        paper.picture(voice.png, place, "" if lay else described)
        if lay is not None:
            _lay(paper, lay, place, language.text("{frame}, with its map", frame=described))
        paper.use(TINY, GREY)
        bands = len(voice.hz)
        for tick in range(TICKS):
            band = round(tick * (bands - 1) / (TICKS - 1))
            y = top + height * (bands - 0.5 - band) / bands
            paper.set_xy(MARGIN, y - 1.5)
            paper.cell(12, 3, f"{voice.hz[band]:.0f} Hz", align="R")
        step = max(1, round((voice.to_s - voice.from_s) / 8))
        for second in range(0, int(voice.to_s) + 1, step):
            x = left + width * (second - voice.from_s) / (voice.to_s - voice.from_s)
            if left - 3 <= x <= left + width:
                paper.set_xy(x - 5, top + height + 0.3)
                paper.cell(10, 3, f"{second} s", align="C")
        paper.set_xy(MARGIN, top + height + 4.5)
    paper.use(BODY)


def _draw_note(
    paper: Paper, language: Language, record: ReportRecord, explained: ExplainedRecord
) -> None:
    """Draw the note with its strongest words' numbers."""
    note, own = record.evidence.note, explained.record
    assert note is not None
    assert own.words is not None
    scale = own.scale[Modality.NOTE]
    ranked = sorted(own.words, key=lambda word: -abs(word.value))
    marked = {
        word.start for word in ranked[:MARKED_WORDS] if abs(word.value) >= NUMBERED * scale.full
    }
    at = 0
    for word in own.words:
        if word.end > len(note.text):
            break
        between = note.text[at : word.start]
        paper.flow(between, colour=GREY)
        own_text = note.text[word.start : word.end]
        if word.start in marked:
            number = words.say_number(word.value, Modality.NOTE, scale.full)
            number = f"\N{NO-BREAK SPACE}{number}"
            paper.flow(own_text, number, ACCENT if word.value < 0 else ALARM)
        else:
            paper.flow(own_text)
        at = word.end
    paper.flow(note.text[at:].rstrip(), colour=GREY)
    paper.ln(6)
    _draw_note_rest(paper, language, record)
    paper.paragraph(
        language.text(
            "Underlined: the strongest words, each with its number in {unit}; +: for, {minus}: "
            "against. Grey was not read by the model.",
            unit=words.look_up(language, words.UNITS, scale.unit),
            minus=MINUS,
        ),
        SMALL,
        GREY,
    )


def _draw_note_rest(paper: Paper, language: Language, record: ReportRecord) -> None:
    note = record.evidence.note
    if note is not None and note.characters > len(note.text):
        paper.paragraph(
            language.text(
                "The first {shown} of the note's {all} characters are shown.",
                shown=len(note.text),
                all=note.characters,
            ),
            SMALL,
            GREY,
        )


def _draw_pieces(
    paper: Paper, language: Language, explained: ExplainedRecord, modality: Modality
) -> None:
    """Draw a modality's evidence as the page's table has it, and its sum."""
    full = explained.record.scale[modality].full
    numbers = [(p, p.value) for p in explained.pieces if p.modality is modality]
    table = [
        (words.capital(words.say_piece(language, piece)), words.say_number(value, modality, full))
        for piece, value in numbers
    ]
    number = language.text("Strongest value")
    if explained.additive:
        number = language.text("Sum in logits")
        total = explained.record.sums[modality]
        table.append(
            (words.say_sum(language, explained.record), words.say_number(total, modality, full))
        )
    head = (language.text("Evidence"), number)
    paper.rows(head, table, (5, 2), right=(1,), size=SMALL)


def _draw_legend(
    paper: Paper, language: Language, explained: ExplainedRecord, modality: Modality
) -> None:
    own = explained.record.scale[modality]
    scale = Scale(own.full, own.unit, explained.additive)
    paper.paragraph(words.say_map_legend(language, scale), SMALL, GREY)


def _draw_provenance(
    paper: Paper, language: Language, record: ReportRecord, digest: str, *, sealed: bool
) -> None:
    paper.heading(language.text("Where this report comes from"))
    model = record.model
    facts = [
        (language.text("Digest of this report"), digest),
        (language.text("Model"), model.digest),
        (language.text("Bundle made"), to_utc(model.created)),
        (language.text("Runs on"), model.provider),
        (language.text("Bundle made with"), _list_versions(model.exported_with)),
        (language.text("Report made with"), _list_versions(record.versions)),
    ]
    if sealed:
        said = language.text("with a key, in the attached file {file}", file=SEAL)
        facts.insert(1, (language.text("Sealed"), said))
    paper.rows((), facts, (1.4, 5), size=SMALL)
    counts = dict.fromkeys(MODALITIES, 0)
    rows = []
    for part in record.inputs:
        counts[part.modality] += 1
        name = f"{words.title(language, part.modality)} {counts[part.modality]}"
        rows.append((name, part.sha256, f"{part.size}"))
    head = (language.text("Input"), "SHA-256", language.text("Bytes"))
    paper.rows(head, rows, (1.2, 5.2, 1), right=(2,), size=7.0)
    paper.keep(18.0)
    paper.paragraph(
        language.text(
            "To check this report: medfuse verify-report REPORT.pdf --bundle BUNDLE, with the "
            "study's files. The file {file} attached to it holds all that it says; the QR code and "
            "each page's foot have its SHA-256. A digest shows that pages and record belong "
            "together, not who made them: anyone with medfuse can make another report. Only one "
            "sealed with a key shows that.",
            file=ATTACHMENT,
        ),
        SMALL,
        GREY,
    )


def _lay(
    paper: Paper, layer: LayerRecord, place: tuple[float, float, float, float], described: str
) -> None:
    """Draw a map over a picture."""
    paper.picture(layer.png, place, described)
    with Image.open(io.BytesIO(layer.png)) as drawn:
        size = drawn.size
    for outline in layer.outlines:
        paper.lines(outline.points, place, size, solid=outline.positive)
    x, y, width, height = place
    for spot in layer.spots:
        middle = x + spot.column * width / size[0]
        above = y + spot.top * height / size[1] - 2.8
        paper.label(format_signed(spot.value), middle, above, place)
    paper.set_draw_color(*RULE)


def _fit(frame: FrameEvidence, side: float) -> tuple[float, float]:
    share = side / max(frame.rows, frame.columns)
    return frame.columns * share, frame.rows * share


def _caption(language: Language, frame: FrameEvidence, read: int) -> str:
    said = language.text(
        "Frame {number} of {read} that were read (image {instance}, frame {frame} of it), "
        "{columns} by {rows} pixels",
        number=frame.number,
        read=read,
        instance=frame.instance + 1,
        frame=frame.frame + 1,
        columns=frame.columns,
        rows=frame.rows,
    )
    if frame.spacing_mm is not None:
        said += language.text(" of {spacing} mm", spacing=f"{frame.spacing_mm[0]:.3g}")
    return said


def _name_target(language: Language, target: str) -> str:
    return words.title(language, target.rpartition(".")[2])


def _say_band(band: BandRecord | None) -> str:
    if band is None:
        return ""
    return f"{format_signed(band.lowest)} … {format_signed(band.highest)}"


def _novel_share(record: ReportRecord) -> str:
    promises = record.answer.promises
    return "" if promises is None else f"{promises.false_alarms:.1%}"


def _list_versions(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())
