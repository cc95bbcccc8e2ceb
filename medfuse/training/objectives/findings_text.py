"""The findings-text objective: a step in, how badly its studies' sentences are foretold out."""

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from medfuse.models.processes import count_processes, sum_across
from medfuse.text.vocabulary import PADDING
from medfuse.training.dataset import SentenceBatch
from medfuse.training.dropout import drop_modalities
from medfuse.training.objectives.step import Step, keep
from medfuse.training.settings import FindingsTextSettings
from medfuse.types import MODALITIES


class FindingsTextObjective(nn.Module):
    """Foretell each word of a sentence from the study, the finding and the words before it.

    Some modalities are left out, and a finding's sentence is then the one that rests on what is
    left; so the decoder learns to say no more than it has seen. Unlike the generation objective it
    teaches the encoders too: a sentence names the signs of which a label gives the sum alone.
    """

    def __init__(self, settings: FindingsTextSettings) -> None:
        super().__init__()
        self.weight = settings.weight
        self.modality_dropout = settings.modality_dropout

    def forward(self, step: Step) -> Float[Tensor, ""]:
        """Average the cross-entropy over all words."""
        decoder = step.model.decoder
        assert decoder is not None
        sentences = step.batch.sentences
        present = step.present.cpu().numpy()
        rng = step.shared_rng("findings_text")
        kept = drop_modalities(present, self.modality_dropout, rng, step.share)
        chosen = [] if sentences is None else choose_sentences(sentences, present, kept)
        words = torch.zeros(0, 2, dtype=torch.int64) if sentences is None else sentences.words
        words = words[chosen].to(decoder.kind.device)
        # Of all processes together, whose gradients are averaged.
        total = sum_across((words[:, 1:] != PADDING).sum()) / count_processes()
        if sentences is None or not chosen:
            return decoder.kind.sum() * 0.0
        memory = decoder.remember(keep(step.encoded, kept))
        written = decoder(
            *memory, sentences.study[chosen], sentences.finding[chosen], words[:, :-1]
        )
        loss = functional.cross_entropy(
            written.logits.flatten(0, 1),
            words[:, 1:].flatten(),
            ignore_index=PADDING,
            reduction="sum",
        )
        return loss / total


def choose_sentences(
    sentences: SentenceBatch, present: Bool[np.ndarray, "b m"], kept: Bool[np.ndarray, "b m"]
) -> list[int]:
    """Choose, of each finding of each study, the sentence that rests on most of what is left.

    One that rests on all that its study has goes first, and goes where anything was left out.

    Args:
        sentences: Of the batch.
        present: The modalities that each study has.
        kept: Those of them that are left.
    """
    study, finding = sentences.study.tolist(), sentences.finding.tolist()
    needs, whole = sentences.needs.cpu().numpy(), sentences.whole.tolist()
    best: dict[tuple[int, int], tuple[int, int]] = {}
    for i, (s, f) in enumerate(zip(study, finding, strict=True)):
        untouched = bool((kept[s] == present[s]).all())
        if not (untouched if whole[i] else bool((kept[s] | ~needs[i]).all())):
            continue
        rests_on = len(MODALITIES) + 1 if whole[i] else int(needs[i].sum())
        if (s, f) not in best or rests_on > best[s, f][0]:
            best[s, f] = (rests_on, i)
    return [i for _, i in best.values()]
