"""A packaged settings file and a folder of data in; studies, their features and metadata out."""

import hashlib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from rich.console import Console

from medfuse.config import PrepareSettings
from medfuse.data.cohort import Cohort, CohortRow, load_study, read_whole_table
from medfuse.data.importers import IMPORTERS
from medfuse.data.importers.source import ImportOptions
from medfuse.data.importers.write import TABLE, write_import
from medfuse.data.note import read_sections
from medfuse.deidentify.pseudonyms import make_pseudonyms
from medfuse.deidentify.session import Session
from medfuse.deidentify.settings import DeidentifySettings
from medfuse.training.features import Features
from medfuse.training.fit import choose_device
from medfuse.training.gather import gather
from medfuse.training.settings import TrainSettings
from medfuse.types import Modality

COMMON_VALUE = 3
"""Studies that share a value of a column, for it to be a number of its own."""


@dataclass(frozen=True, slots=True)
class Material:
    """The studies of a benchmark, prepared by the project's one way.

    Attributes:
        settings: By which they were read.
        features: What frozen encoders made of them, or what a trained one reads.
        others: Columns of the table that no model reads, a cell per study.
    """

    settings: TrainSettings
    cohort: Cohort
    features: Features = field(repr=False)
    others: Mapping[str, tuple[str, ...]] = field(repr=False)

    @property
    def labels(self) -> Bool[np.ndarray, " n"]:
        """The one yes or no that is asked."""
        return np.asarray(self.cohort.labels[:, 0] == 1)

    @property
    def patients(self) -> tuple[str, ...]:
        """Whose studies they are."""
        return tuple(row.patient_id for row in self.cohort.rows)

    def column(self, name: str) -> tuple[str, ...]:
        """Give a column as it stands in the table."""
        known = {"sex": [row.sex for row in self.cohort.rows]}
        known["age"] = [row.age for row in self.cohort.rows]
        return tuple(known[name]) if name in known else self.others[name]


def read_settings_of(name: str, table: Path, features: Path) -> TrainSettings:
    """Read a benchmark's packaged settings, pointed at a table and a feature cache."""
    place = files("medfuse").joinpath(f"training/benchmark/{name}.toml")
    whole = tomllib.loads(place.read_text(encoding="utf-8"))
    whole["cohort"]["table"] = table
    whole["features"] = {"cache": features}
    return TrainSettings.model_validate(whole)


def read_material(settings: TrainSettings, out: Path, console: Console | None) -> Material:
    """Read a cohort and prepare its studies, or find them prepared.

    Raises:
        CohortError: The table cannot be used.
        SettingsError: A model's weights are missing.
        TrainingError: A study cannot be used.
    """
    cohort, features = gather(settings, out, choose_device(settings), console)
    table = read_whole_table(settings.cohort, settings.tasks)
    place = {row.number: i for i, row in enumerate(table.cohort.rows)}
    places = [place[row.number] for row in cohort.rows]
    others = {name: tuple(cells[i] for i in places) for name, cells in table.others.items()}
    return Material(settings, cohort, features, others)


def import_source(name: str, source: Path, out: Path) -> Path:
    """Import a source as ``medfuse import`` does, once; give the cohort's table.

    Args:
        name: In `IMPORTERS`.
        source: Its folder or file.
        out: Folder of imported cohorts.

    Raises:
        SourceError: It is not laid out as published.
    """
    stat = source.stat()
    signed = repr((str(source.resolve()), stat.st_size, stat.st_mtime_ns)).encode()
    folder = out / f"{name}-{hashlib.sha256(signed).hexdigest()[:12]}"
    if not (folder / TABLE).is_file():  # written after all studies
        options = ImportOptions()
        importer = IMPORTERS[name]
        session = Session(make_pseudonyms(None), DeidentifySettings(keep_ids=True))
        write_import(name, importer, importer.read(source, options), options, folder, session)
    return folder / TABLE


def pool_images(
    features: Features, studies: Sequence[int] | None = None
) -> Float[np.ndarray, "n d"]:
    """Give the mean, the highest value and the spread of each channel over a study's cells.

    Args:
        features: Of studies that all have an image.
        studies: Whose; all by default.
    """
    pooled = []
    for i in range(len(features.rows)) if studies is None else studies:
        cells = features.get(int(i), Modality.IMAGE)
        assert cells is not None  # a benchmark's studies all have the modality it reads
        flat = cells.reshape(-1, cells.shape[-1]).astype(np.float32)
        pooled.append(np.concatenate([flat.mean(axis=0), flat.max(axis=0), flat.std(axis=0)]))
    return np.stack(pooled).astype(np.float64)


def pool_notes(
    features: Features, studies: Sequence[int] | None = None
) -> Float[np.ndarray, "n d"]:
    """Give the mean state of a note's word pieces; zeros where there is no note."""
    chosen = range(len(features.rows)) if studies is None else [int(i) for i in studies]
    states = [features.get(i, Modality.NOTE) for i in chosen]
    length = next(own.shape[1] for own in states if own is not None)
    return np.stack(
        [np.zeros(length) if own is None else own.mean(axis=0, dtype=np.float64) for own in states]
    )


def read_texts(rows: Sequence[CohortRow], prepare: PrepareSettings) -> np.ndarray:
    """Read the text that the model gets of each note; empty where there is none."""
    texts = []
    for row in rows:
        note = load_study(row).note
        texts.append(read_sections(note, prepare.note, prepare.limits) if note else "")
    return np.array(texts, dtype=object)


def encode_columns(columns: Mapping[str, Sequence[str]]) -> Float[np.ndarray, "n d"]:
    """Turn metadata into numbers: a number stays one, any other value gets a column of its own.

    No label enters. A missing number is the median, with a column that says that it is missing.
    """
    parts = []
    for name, cells in columns.items():
        column = pd.Series(list(cells), name=name)
        numbers = pd.to_numeric(column, errors="coerce")
        filled = column[column != ""]
        if len(filled) and numbers[filled.index].notna().all():
            parts.append(numbers.fillna(numbers.median()).to_frame())
            parts.append(numbers.isna().astype(float).to_frame(f"{name} missing"))
        else:
            common = column.map(column.value_counts()) >= COMMON_VALUE
            parts.append(pd.get_dummies(column.where(common, "another"), prefix=name, dtype=float))
    return pd.concat(parts, axis=1).to_numpy(dtype=np.float64)
