"""A manifest in; the model card out, for people to read before they trust an answer."""

import re

from pydantic import ValidationError

from medfuse.bundle import Certificate, Manifest, ParityReport, TextManifest
from medfuse.errors import ExportError
from medfuse.leaks.report import LeakRecord
from medfuse.training.report import Report, format_report
from medfuse.trust.record import TrustRecord


def write_model_card(manifest: Manifest) -> str:
    """Describe a model in Markdown: what it is for, what it was trained on, how well it does.

    The headings are those of Mitchell et al. 2019, "Model Cards for Model Reporting", as far as a
    manifest can fill them.

    Raises:
        ExportError: The manifest's metrics are not a training report of this version.
    """
    parts = [
        "# Model card",
        f"**{manifest.notice}**",
        "## Model\n\n"
        "One network reads a study's images, note and voice, whichever of them are there, and "
        "answers the tasks below. This folder is its export to ONNX by "
        f"medfuse {manifest.exported_with['medfuse']} on {manifest.created:%Y-%m-%d}.\n\n"
        + _list({key: str(value) for key, value in manifest.model.items() if value is not None}),
        "## Intended use\n\n"
        "Research, and evaluation by the hospital that runs it, on studies like those it was "
        "trained on. An answer is a probability to weigh beside everything else that is known of a "
        "patient. A missing modality is not evidence of anything: the answer then rests on the "
        "others, and says so.",
        "## Tasks\n\n" + _tasks(manifest),
        "## Input\n\n" + _input(manifest),
        "## Training data\n\n"
        f"Cohort with SHA-256 digest `{manifest.training_data}` (its rows, labels, splits and "
        f"files), by way of checkpoint `{manifest.checkpoint}`.\n\n" + _leaks(manifest.leaks),
        "## Metrics\n\n" + _metrics(manifest),
        *(["## Promises\n\n" + _promises(manifest.trust)] if manifest.trust else []),
        "## Parity with the trained model\n\n" + parity_table(manifest.parity),
        *(
            ["## Explanations\n\n" + certificate_table(manifest.explain.certificate)]
            if manifest.explain
            else []
        ),
        *(["## Findings text\n\n" + _text(manifest.text)] if manifest.text else []),
        "## Versions\n\n"
        "Trained with " + _join(manifest.trained_with) + "; exported with "
        f"{_join(manifest.exported_with)}; ONNX opset {manifest.opset}.",
    ]
    return "\n\n".join(parts) + "\n"


def _promises(trust: TrustRecord) -> str:
    own = trust.settings
    return (
        "Chosen on validation studies for each question, class and subset of modalities; they hold "
        "for studies like those, and `medfuse evaluate` checks them on others.\n\n"
        + _list(
            {
                "Sets and intervals": f"hold the truth in {own.coverage:.0%} of studies",
                "Sure answers": f"are wrong in at most {own.risk:.0%} "
                f"(confidence {own.confidence:.0%})",
                "Positive calls": f"find {own.sensitivity:.0%} of what is there",
                "Novelty": f"calls {own.false_alarms:.0%} of usual inputs novel",
            }
        )
    )


def parity_table(parity: ParityReport) -> str:
    """Tabulate parity by subset of modalities, in Markdown."""
    rows = [
        f"| {name} | {p.studies} | {p.logits:.1e} | {p.embeddings:.1e} | {p.onnx_to_float64:.1e} "
        f"| {p.torch_to_float64:.1e} |"
        for name, p in parity.subsets.items()
    ]
    return "\n".join(
        (
            "Largest difference on synthetic studies that no training has seen, relative to the "
            "largest value of the output in the whole sweep, by torch. Every figure of logits and "
            f"embeddings is at most {parity.tolerance:.0e}; measured on {parity.provider}.\n",
            "| present | studies | logits | embeddings | graph to float64 | torch to float64 |",
            "| --- | ---: | ---: | ---: | ---: | ---: |",
            *rows,
        )
    )


def certificate_table(certificate: Certificate) -> str:
    """Tabulate how the bundle's attributions compare with Captum's, in Markdown."""
    rows = [
        f"| {modality} | {m.studies} | {m.relative_l2:.1e} | {m.worst_relative_l2:.1e} "
        f"| {m.worst_difference:.1e} | {m.onnx_to_float64:.1e} | {m.captum_to_float64:.1e} |"
        for modality, m in certificate.modalities.items()
    ]
    verdict = (
        "They hold."
        if certificate.holds
        else "**They do not hold, and the bundle was written all the same.**"
    )
    return "\n".join(
        (
            "The bundle explains its answers by gradients of its own graph. Compared with Captum "
            f"on the trained model: integrated gradients with {certificate.points} points against "
            f"the baseline {certificate.baseline!r}, on {certificate.studies} synthetic studies "
            "that no training has seen, over all subsets of modalities and all targets, by "
            f"{certificate.provider}. Differences are relative to each map's own length, medians "
            f"except where it says worst. Held to: at most {certificate.limit:.0e} from Captum, "
            f"or at most {certificate.ratio:g} times as far from the model in float64 as Captum "
            f"in float32 is. {verdict}\n",
            "| attributions to | studies | from Captum | worst | worst element "
            "| graph to float64 | Captum to float64 |",
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
            *rows,
        )
    )


def _text(text: TextManifest) -> str:
    """Say what is stated, from where on, and how the graph that writes compares with torch."""
    record, subsets = text.record, text.parity.subsets.values()
    rows = [
        f"| {target} | {'never stated' if least is None else f'{least:.3f}'} |"
        for target, least in record.thresholds.items()
    ]
    worst = max(max(s.memory, s.logits, s.energy) for s in subsets)
    alike, written = sum(s.alike for s in subsets), sum(s.sentences for s in subsets)
    return "\n".join(
        (
            "A decoder writes a sentence of each finding whose calibrated probability reaches its "
            f"threshold, chosen on validation studies so that {record.precision:.0%} of what is "
            "stated is there. A sentence is generated, and says where the decoder read, which is "
            "not proof of what is there; a finding that is left out is not excluded.\n",
            f"On synthetic studies that no training has seen, {alike} of {written} sentences are "
            "those of the trained model, word for word; no output differs by more than "
            f"{worst:.1e} of its scale.\n",
            "| finding | stated from |",
            "| --- | ---: |",
            *rows,
        )
    )


def _leaks(leaks: LeakRecord | None) -> str:
    """Say what the check of the cohort found, and that it was overridden."""
    if leaks is None or leaks.mode == "off":
        return "**Nobody checked that cohort for leaks.**"
    verdict = "The check of that cohort for leaks found none that fails."
    if leaks.failed:
        verdict = (
            "**The check of that cohort for leaks failed and was overridden: labels are given away "
            f"by {', '.join(leaks.failed)}.** Figures below may rest on these."
        )
    if not leaks.findings:
        return verdict
    return verdict + "\n\n" + "\n".join(f"- {line}" for line in leaks.findings)


def _tasks(manifest: Manifest) -> str:
    rows = []
    for task in manifest.tasks:
        for name in task.classes:
            code = task.codes.get(name)
            coded = "" if code is None else f"{code.value} ({code.scheme}, {code.meaning})"
            cells = (task.name, task.kind, name, coded, task.unit or "", ", ".join(task.modalities))
            rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(
        (
            "| task | kind | class | code | unit | rests on |",
            "| --- | --- | --- | --- | --- | --- |",
            *rows,
        )
    )


def _input(manifest: Manifest) -> str:
    image, note, voice = manifest.prepare.image, manifest.prepare.note, manifest.prepare.voice
    left_out = ", ".join(note.exclude_sections) or "none"
    return _list(
        {
            "Images": f"DICOM{', PNG, JPEG' if image.pictures else ''}; at most {image.frames} "
            f"frames, seen at {image.size} by {image.size} pixels",
            "Note": f"at most {note.word_pieces} word pieces; sections left out: {left_out}",
            "Voice": f"from {voice.shortest_s:g} s; the first {voice.duration_s:g} s are heard",
        }
    )


def _metrics(manifest: Manifest) -> str:
    if not manifest.metrics:
        return "The checkpoint records none, so nothing is known of how well it answers."
    try:
        report = Report.model_validate(manifest.metrics)
    except ValidationError as error:
        raise ExportError(
            "the checkpoint's metrics are of another version of medfuse; train it again, or export "
            "it with the version that did"
        ) from error
    text = format_report(report, manifest.tasks)
    return re.sub("^#", "###", text, flags=re.MULTILINE).strip()  # below this section's heading


def _list(entries: dict[str, str]) -> str:
    return "\n".join(f"- {key}: {value}" for key, value in entries.items())


def _join(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in versions.items())
