"""A MedMNIST file in; its small images, their classes and the official split out."""

import io
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Integer, UInt8
from PIL import Image

from medfuse.config import Task, TaskKind
from medfuse.data.importers.source import Importer, ImportOptions, SourceCohort, SourceStudy
from medfuse.errors import SourceError

SPLITS = {"train": "train", "val": "validation", "test": "test"}
UNPACKED_BYTES = 2**32

CLASSES: Mapping[str, tuple[str, ...]] = {
    "breastmnist": ("malignant", "normal_or_benign"),
    "chestmnist": (
        *("atelectasis", "cardiomegaly", "effusion", "infiltration", "mass", "nodule"),
        *("pneumonia", "pneumothorax", "consolidation", "edema", "emphysema", "fibrosis"),
        *("pleural_thickening", "hernia"),
    ),
    "octmnist": (*("choroidal_neovascularization", "diabetic_macular_edema", "drusen", "normal"),),
    "pneumoniamnist": ("normal", "pneumonia"),
}
"""What the numbers mean, for the sets that are used most; elsewhere a class is ``class_3``."""

Images = UInt8[np.ndarray, "n rows columns *channels"]
Labels = Integer[np.ndarray, "n k"]


def read_medmnist(folder: Path, options: ImportOptions) -> SourceCohort:
    """Read an ``.npz`` file, or the only one in a folder.

    Raises:
        SourceError: There is none or several, or it is not MedMNIST's.
    """
    path = _find(folder)
    parts = _load(path)
    width = {labels.shape[1] for _, labels in parts.values()}
    if len(width) != 1:
        raise SourceError(f"{path.name}: the splits have labels of different width")
    flag = path.stem.split("_")[0]
    multilabel = width.pop() > 1
    highest = max(int(labels.max()) for _, labels in parts.values())
    count = next(iter(parts.values()))[1].shape[1] if multilabel else highest + 1
    classes = CLASSES.get(flag, ())
    # A copy without the last class has fewer numbers than names.
    if len(classes) < count or (multilabel and len(classes) > count):
        classes = tuple(f"class_{i}" for i in range(max(count, 2)))
    kind = TaskKind.MULTILABEL if multilabel else TaskKind.MULTICLASS
    name = "findings" if multilabel else "label"
    return SourceCohort(
        tasks=(Task(name=name, kind=kind, classes=classes),),
        studies=_read_all(parts, classes, name if not multilabel else ""),
        total=sum(len(images) for images, _ in parts.values()),
        remarks=("Nothing says which images are of one patient; the official split is kept.",),
    )


def _find(folder: Path) -> Path:
    if folder.is_file():
        return folder
    found = sorted(folder.glob("*mnist*.npz"))
    if len(found) != 1:
        raise SourceError(
            f"{folder}: expected one MedMNIST file such as pneumoniamnist.npz; there are "
            f"{len(found)}; name the file itself"
        )
    return found[0]


def _load(path: Path) -> dict[str, tuple[Images, Labels]]:
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(info.file_size for info in archive.infolist()) > UNPACKED_BYTES:
                raise SourceError(f"{path.name}: becomes more than {UNPACKED_BYTES} bytes")
        with np.load(path, allow_pickle=False) as arrays:
            parts = {
                name: (arrays[f"{split}_images"], arrays[f"{split}_labels"])
                for split, name in SPLITS.items()
                if {f"{split}_images", f"{split}_labels"} <= set(arrays.files)
            }
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error, EOFError, MemoryError) as error:
        raise SourceError(f"{path.name}: not an .npz file ({type(error).__name__})") from error
    if not parts:
        raise SourceError(
            f"{path.name}: expected train_images, train_labels, val_images, val_labels, "
            "test_images and test_labels"
        )
    for images, labels in parts.values():
        flat = images.ndim == 3 or (images.ndim == 4 and images.shape[3] == 3)
        if not flat or images.dtype != np.uint8:
            raise SourceError(
                f"{path.name}: expected flat images of 8 bits, as in MedMNIST's 2-D sets"
            )
        if labels.ndim != 2 or len(labels) != len(images) or labels.dtype.kind not in "iu":
            raise SourceError(f"{path.name}: expected a row of whole numbers for each image")
        if not labels.size or labels.min() < 0 or (labels.shape[1] > 1 and labels.max() > 1):
            raise SourceError(
                f"{path.name}: expected images in each split, and labels of 0 or more (where an "
                "image has several, 0 or 1)"
            )
    return parts


def _read_all(
    parts: Mapping[str, tuple[Images, Labels]], classes: tuple[str, ...], task: str
) -> Iterator[SourceStudy]:
    for split, (images, labels) in parts.items():
        for i, (pixels, row) in enumerate(zip(images, labels, strict=True)):
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, format="PNG")
            own = {task: classes[int(row[0])]} if task else {
                name: str(int(value)) for name, value in zip(classes, row, strict=True)
            }  # fmt: skip
            identifier = f"{split}-{i}"
            yield SourceStudy(
                patient_id=identifier,
                study_id=identifier,
                images=(file.getvalue(),),
                labels=own,
                split=split,
            )


MEDMNIST = Importer(
    title="MedMNIST v2",
    licence="CC BY 4.0 (DermaMNIST CC BY-NC 4.0)",
    citation="Yang et al. 2023, doi 10.1038/s41597-022-01721-8",
    read=read_medmnist,
)
