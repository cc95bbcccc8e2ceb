"""The feature cache: a cohort's rows in, each study's arrays by modality out, computed only once.

What is kept of a modality is what its frozen encoder makes of it or, when the encoder is trained,
what the encoder reads. The key says all that this depends on: the files' bytes, the settings and
the code that prepare them, and the encoder's name and weights.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Bool
from torch import nn

import medfuse.data
import medfuse.models
import medfuse.trust.descriptors
from medfuse.config import PrepareSettings
from medfuse.data.cohort import CohortRow
from medfuse.data.missing import thin_row
from medfuse.errors import TrainingError
from medfuse.models.fused import FusedModel
from medfuse.models.settings import ModelSettings
from medfuse.models.weights import tokenizer_path
from medfuse.training.settings import FeatureSettings
from medfuse.training.store import ArrayStore
from medfuse.training.workers import PreparedRow, combine, prepare_rows
from medfuse.types import MODALITIES, Modality

ENCODED_AT_ONCE = 16
"""Frames, notes or recordings in one pass through a frozen encoder."""

STUDIES_AT_ONCE = 32
"""Studies whose prepared arrays are in memory at once, beside those that workers hold."""

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class FeatureSource:
    """What one study's features are made of.

    Attributes:
        keys: In the store, by modality; the absent ones are not in it.
        descriptions: Likewise, of what novelty is told by.
        digests: SHA-256 of the files' bytes, by modality.
    """

    keys: Mapping[Modality, str]
    descriptions: Mapping[Modality, str]
    digests: Mapping[Modality, str]


@dataclass(frozen=True, slots=True)
class Features:
    """The features of the studies that can be used.

    Attributes:
        rows: Those studies, in the order given.
        left_out: How many others could not be used.
    """

    rows: tuple[CohortRow, ...]
    sources: tuple[FeatureSource, ...]
    store: ArrayStore = field(repr=False)
    left_out: int = 0

    def get(self, study: int, modality: Modality) -> np.ndarray | None:
        """Give one modality of one study, tokens first; None where it is absent or empty."""
        key = self.sources[study].keys.get(modality)
        values = None if key is None else self.store.get(key)
        return values if values is not None and len(values) else None

    def describe(self, study: int) -> dict[Modality, np.ndarray]:
        """Give the description of each modality that a study has, by which novelty is told."""
        keys = self.sources[study].descriptions
        found = {m: np.array(self.store.get(key)) for m, key in keys.items()}
        return {m: own for m, own in found.items() if len(own)}

    @property
    def present(self) -> Bool[np.ndarray, "n 3"]:
        """Which modalities each study has, once prepared; a silent recording is none."""
        there = [[self.get(i, m) is not None for m in MODALITIES] for i in range(len(self.sources))]
        return np.array(there).reshape(-1, len(MODALITIES))

    def thinned(self, kept: Bool[np.ndarray, "n 3"]) -> "Features":
        """Give the studies as they would be had they never had the other modalities."""
        sources = []
        for source, row in zip(self.sources, kept, strict=True):
            left = {m for m, yes in zip(MODALITIES, row, strict=True) if yes}
            parts = (source.keys, source.descriptions, source.digests)
            sources.append(FeatureSource(*({m: p[m] for m in p if m in left} for p in parts)))
        rows = tuple(thin_row(row, own) for row, own in zip(self.rows, kept, strict=True))
        return replace(self, rows=rows, sources=tuple(sources))

    @property
    def digest(self) -> str:
        """SHA-256 of all the files that the features come from."""
        return combine([d for source in self.sources for _, d in sorted(source.digests.items())])


class Progress:
    """What is told of the work, study by study; this one tells nobody."""

    def begin(self, total: int) -> None:
        """Hear how many studies there are to do."""

    def advance(self) -> None:
        """Hear that one more is done."""


def build_features(
    rows: Sequence[CohortRow],
    prepare: PrepareSettings,
    model: FusedModel,
    model_settings: ModelSettings,
    settings: FeatureSettings,
    folder: Path,
    progress: Progress,
) -> Features:
    """Find every study's features in the cache, and compute those that are not there.

    Args:
        rows: Which studies.
        prepare: How their files become arrays.
        model: Whose frozen encoders to run, on the device it is on.
        model_settings: Its settings.
        settings: How to keep features.
        folder: The cache; made when it is not there.
        progress: Told of the studies that must be computed.

    Raises:
        TrainingError: A study's files cannot be used, and settings do not say to leave it out;
            or none can.
    """
    tokenizer = tokenizer_path(model_settings)
    recipes = _write_recipes(prepare, model, model_settings, settings, tokenizer)
    cache = _Cache(folder, recipes, model, np.dtype(settings.dtype))
    sources = [cache.find(row) for row in rows]
    todo = [i for i, source in enumerate(sources) if source is None]
    progress.begin(len(todo))
    faults: list[str] = []
    prepared = prepare_rows([rows[i] for i in todo], prepare, tokenizer, settings.workers)
    for chunk in _chunks(zip(todo, prepared, strict=True), STUDIES_AT_ONCE):
        faults += [found.fault for _, found in chunk if found.fault is not None]
        fine = [(i, found) for i, found in chunk if found.fault is None]
        cache.keep([found for _, found in fine])
        for i, found in fine:
            cache.remember(rows[i], found.digests)
            sources[i] = cache.source(found.digests)
        for _ in chunk:
            progress.advance()
    if faults and settings.unreadable == "refuse":
        more = f" (and {len(faults) - 1} more studies)" if len(faults) > 1 else ""
        raise TrainingError(
            f"{faults[0]}{more}; repair the files, or set features.unreadable = 'leave_out'"
        )
    used = [(row, source) for row, source in zip(rows, sources, strict=True) if source is not None]
    if not used:
        raise TrainingError(f"no study can be used; the first: {faults[0]}")
    return Features(
        rows=tuple(row for row, _ in used),
        sources=tuple(source for _, source in used),
        store=cache.store,
        left_out=len(faults),
    )


class _Cache:
    """The store with the names of what is in it, and the encoders that fill it."""

    def __init__(
        self, folder: Path, recipes: Mapping[Modality, str], model: FusedModel, dtype: np.dtype
    ) -> None:
        self.store = ArrayStore(folder)
        self._recipes, self._model, self._dtype = recipes, model, dtype
        self._describing = _digest_files([Path(medfuse.trust.descriptors.__file__)])
        # Channels last makes depthwise convolutions a third faster on a processor.
        model.image.backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._log = folder / "digests.txt"
        self._known: dict[str, str] = {}
        if self._log.exists():
            for line in self._log.read_text(encoding="utf-8").splitlines():
                signature, _, digest = line.partition(" ")
                self._known[signature] = digest

    def find(self, row: CohortRow) -> FeatureSource | None:
        """Give a row's features if its files are as they were and all of them are kept."""
        digests = {m: self._known.get(s, "") for m, s in _sign(row).items()}
        source = self.source(digests)
        wanted = (*source.keys.values(), *source.descriptions.values())
        return source if all(key in self.store for key in wanted) else None

    def source(self, digests: Mapping[Modality, str]) -> FeatureSource:
        """Name what files with these digests become."""
        keys = {m: combine([self._recipes[m], digest]) for m, digest in digests.items()}
        described = {m: combine([key, self._describing]) for m, key in keys.items()}
        return FeatureSource(keys, described, digests)

    def remember(self, row: CohortRow, digests: Mapping[Modality, str]) -> None:
        """Note what the files hold, so that they need not be read again while unchanged."""
        with self._log.open("a", encoding="utf-8") as log:
            for modality, signature in _sign(row).items():
                log.write(f"{signature} {digests[modality]}\n")

    def keep(self, studies: Sequence[PreparedRow]) -> None:
        """Encode studies and put the features into the store."""
        for modality in MODALITIES:
            new: dict[str, np.ndarray] = {}
            for study in studies:
                if modality in study.digests:
                    key = self.source(study.digests).keys[modality]
                    if modality in study.values:
                        new[key] = study.values[modality]
                    else:  # a file that gives nothing to read, such as a note of left out sections
                        self.store.put({key: np.zeros(0, self._dtype)})
            new = {key: values for key, values in new.items() if key not in self.store}
            encoded = self._encode(modality, list(new.values()))
            self.store.put(dict(zip(new, encoded, strict=True)))
            self.store.put(
                {
                    self.source(study.digests).descriptions[modality]: study.descriptions.get(
                        modality, np.zeros(0)
                    )
                    for study in studies
                    if modality in study.digests
                }
            )

    def _encode(self, modality: Modality, values: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
        if modality not in self._model.frozen:
            return (array if array.dtype == np.int64 else self._round(array) for array in values)
        if modality is Modality.IMAGE:
            return self._encode_images(values)
        return self._encode_sequences(modality, values)

    def _encode_images(self, studies: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
        """Encode frame by frame, whatever study they are of."""
        frames = (frame for study in studies for frame in study)
        cells: list[np.ndarray] = []
        for part in _chunks(frames, ENCODED_AT_ONCE):
            values = np.stack(part)[:, None]
            cells += list(
                self._extract(Modality.IMAGE, values, np.ones((len(part), 1), bool))[:, 0]
            )
        first = 0
        for study in studies:
            yield np.stack(cells[first : first + len(study)])
            first += len(study)

    def _encode_sequences(
        self, modality: Modality, rows: Sequence[np.ndarray]
    ) -> Iterator[np.ndarray]:
        """Encode notes or recordings of like length together, so that little goes to padding."""
        features: dict[int, np.ndarray] = {}
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        for part in _chunks(iter(order), ENCODED_AT_ONCE):
            first = rows[part[0]]
            values, mask = pad(
                [rows[i] for i in part], np.zeros((1, *first.shape[1:]), first.dtype)
            )
            encoded = self._extract(modality, values, mask)
            real = self._model.encoders[modality].cover(torch.from_numpy(mask)).numpy()
            features |= {i: row[own] for i, row, own in zip(part, encoded, real, strict=True)}
        yield from (features[i] for i in range(len(rows)))

    @torch.inference_mode()
    def _extract(self, modality: Modality, values: np.ndarray, mask: np.ndarray) -> np.ndarray:
        device = next(self._model.parameters()).device
        features = self._model.extract(
            modality, torch.from_numpy(values).to(device), torch.from_numpy(mask).to(device)
        )
        return self._round(features.cpu().numpy())

    def _round(self, values: np.ndarray) -> np.ndarray:
        """Keep a number as the settings say, the largest possible one where it would overflow."""
        most = np.finfo(self._dtype).max
        return np.asarray(np.clip(values, -most, most).astype(self._dtype))


def pad(
    rows: Sequence[np.ndarray | None], padding: np.ndarray
) -> tuple[np.ndarray, Bool[np.ndarray, "b n"]]:
    """Stack arrays of different length, filled up with zeros to at least ``padding``'s length.

    Returns:
        The stack, in ``padding``'s dtype, and its mask.
    """
    length = max(len(padding), *(len(row) for row in rows if row is not None), 0)
    values = np.zeros((len(rows), length, *padding.shape[1:]), padding.dtype)
    mask = np.zeros((len(rows), length), bool)
    for i, row in enumerate(rows):
        if row is not None:
            values[i, : len(row)] = row
            mask[i, : len(row)] = True
    return values, mask


def _sign(row: CohortRow) -> dict[Modality, str]:
    """Sign each modality by its files' paths, sizes and times, or by the note's own text."""
    signed: dict[Modality, str] = {}
    files = {
        Modality.IMAGE: row.images,
        Modality.NOTE: () if row.note is None else (row.note,),
        Modality.VOICE: () if row.voice is None else (row.voice,),
    }
    for modality, paths in files.items():
        if paths:
            stats = [path.stat() for path in paths]
            parts = [(str(p), s.st_size, s.st_mtime_ns) for p, s in zip(paths, stats, strict=True)]
            signed[modality] = hashlib.sha256(repr(parts).encode()).hexdigest()
    if row.note_text is not None:
        signed[Modality.NOTE] = hashlib.sha256(row.note_text.encode()).hexdigest()
    return signed


def _write_recipes(
    prepare: PrepareSettings,
    model: FusedModel,
    model_settings: ModelSettings,
    settings: FeatureSettings,
    tokenizer: Path,
) -> dict[Modality, str]:
    """Write down all that a modality's features depend on, its files' bytes excepted."""
    own = {
        Modality.IMAGE: prepare.image.model_dump(mode="json"),
        Modality.NOTE: prepare.note.model_dump(mode="json")
        | {"tokenizer": hashlib.sha256(tokenizer.read_bytes()).hexdigest()},
        Modality.VOICE: prepare.voice.model_dump(mode="json"),
    }
    recipes = {}
    for modality in MODALITIES:
        encoder = None
        backbone = model.encoders[modality].backbone
        if modality in model.frozen and backbone is not None:
            encoder = [str(getattr(model_settings, modality.value)), _digest_weights(backbone)]
        recipe = [
            modality.value,
            own[modality],
            prepare.limits.model_dump(mode="json"),
            encoder,
            settings.dtype,
            _digest_code(),
        ]
        recipes[modality] = json.dumps(recipe, sort_keys=True)
    return recipes


def _digest_weights(network: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _digest_code() -> str:
    """Hash the code that prepares and encodes, so that a corrected decoder gets no old output."""
    packages = (medfuse.data, medfuse.models)
    return _digest_files([f for p in packages for f in sorted(Path(p.__path__[0]).rglob("*.py"))])


def _digest_files(paths: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _chunks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Give items in lists of at most ``size``."""
    items = iter(items)
    while chunk := list(islice(items, size)):
        yield chunk
