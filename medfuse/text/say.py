"""A study's answers and its tokens in; the findings that may be stated, in words, out."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from medfuse.config import TaskKind
from medfuse.text.places import Layout, find_evidence
from medfuse.text.record import TextRecord
from medfuse.text.writing import Writer, weigh_parts, write_drafts
from medfuse.types import MODALITIES, FindingsText, Prepared, Sentence, TaskPrediction


def say_findings(
    record: TextRecord,
    tasks: Sequence[TaskPrediction],
    writer: Writer,
    memory: Float[np.ndarray, "n d"],
    mask: Bool[np.ndarray, " n"],
    layout: Layout,
    prepared: Prepared,
) -> FindingsText:
    """Write a sentence of every finding whose probability reaches its threshold.

    Args:
        record: How the decoder is asked.
        tasks: What the model answers of the study.
        writer: The decoder.
        memory: The study's tokens.
        mask: Which are real.
        layout: How they stand.
        prepared: The study.
    """
    probabilities = {
        target: float(chance)
        for task in tasks
        if task.task.kind in (TaskKind.BINARY, TaskKind.MULTILABEL)
        for target, chance in zip(task.task.targets, task.probabilities, strict=True)
    }
    stated = [
        i
        for i, target in enumerate(record.findings)
        if (least := record.thresholds[target]) is not None and probabilities[target] >= least
    ]
    drafts = write_drafts(writer, memory, mask, stated)
    vocabulary = record.vocabulary
    own = layout.members(len(mask))
    present = [m for m in MODALITIES if m in prepared.present]
    sentences = []
    for i, draft in zip(stated, drafts, strict=True):
        target = record.findings[i]
        threshold = record.thresholds[target]
        if draft is not None and threshold is not None:
            dues = weigh_parts(writer, memory, mask, i, draft, [own[m] for m in present])
            sentences.append(
                Sentence(
                    target=target,
                    probability=probabilities[target],
                    threshold=threshold,
                    text=vocabulary.decode(draft.words),
                    likelihood=draft.likelihood,
                    evidence=find_evidence(
                        draft.reading,
                        dict(zip(present, dues.tolist(), strict=True)),
                        layout,
                        prepared,
                    ),
                )
            )
    said = {sentence.target for sentence in sentences}
    left_out = tuple(target for target in record.findings if target not in said)
    return FindingsText(tuple(sentences), left_out)
