"""What an attribution is measured against: a batch in, the same batch with nothing to see out."""

from collections.abc import Callable

import numpy as np
from tokenizers import Tokenizer

from medfuse.data.voice import SILENCE
from medfuse.errors import SettingsError
from medfuse.types import Batch, Modality


def blank_study(batch: Batch, tokenizer: Tokenizer) -> Batch:
    """Make every study black, wordless and silent, as long as it was.

    Word pieces become ``[MASK]``, which says "some word"; the special pieces around a note stay, so
    they get no attribution.

    Raises:
        SettingsError: The tokenizer has no ``[MASK]``.
    """
    mask_piece = tokenizer.token_to_id("[MASK]")
    if mask_piece is None:
        raise SettingsError("the note's tokenizer has no [MASK] piece, which a blank note needs")
    pieces = batch.values[Modality.NOTE]
    special = np.isin(pieces, tokenizer.encode("").ids)
    return Batch(
        values={
            Modality.IMAGE: np.zeros_like(batch.values[Modality.IMAGE]),
            Modality.NOTE: np.where(special, pieces, np.int64(mask_piece)),
            Modality.VOICE: np.full_like(batch.values[Modality.VOICE], SILENCE),
        },
        masks=batch.masks,
    )


BASELINES: dict[str, Callable[[Batch, Tokenizer], Batch]] = {"blank": blank_study}
