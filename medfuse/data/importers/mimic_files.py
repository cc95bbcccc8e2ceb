"""MIMIC-CXR's folder tree, which EGD-CXR and REFLACX point into: paths and reports out."""

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from medfuse.data.importers.source import inside, read_note
from medfuse.data.note import find_sections

NOTES: Mapping[str, str] = {
    "indication": "what the referrer asked: free of the answer",
    "findings": "what the reader saw: contains the answer",
    "report": "the whole report: contains the answer",
    "none": "no note",
}
"""What of a report may be the note; the first is the default."""

_SECTIONS = {"indication": ("INDICATION", "HISTORY"), "findings": ("FINDINGS",)}
_PATH = re.compile(r"files/p\d\d/p(\d+)/s(\d+)/([0-9A-Za-z-]+)\.(?:dcm|jpg)$")
_FORMS = (".dcm", ".dcm.gz", ".jpg")

CHEXPERT = (
    *("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Enlarged Cardiomediastinum"),
    *("Fracture", "Lung Lesion", "Lung Opacity", "No Finding", "Pleural Effusion"),
    *("Pleural Other", "Pneumonia", "Pneumothorax", "Support Devices"),
)


def study_folder(root: Path, subject_id: str, study_id: str) -> Path:
    """Give the folder of a study's images, ``files/p10/p10000032/s50414267``."""
    return inside(root, "files", f"p{subject_id[:2]}", f"p{subject_id}", f"s{study_id}")


def find_image(root: Path, path: str) -> Path | None:
    """Find the file that a table names ``files/p15/.../x.dcm``, as DICOM, in gzip or as JPEG."""
    match = _PATH.search(path.replace("\\", "/"))
    if match is None:
        return None
    folder = study_folder(root, match[1], match[2])
    for form in _FORMS:
        candidate = folder / f"{match[3]}{form}"
        if candidate.is_file():
            return inside(root, str(candidate.relative_to(root.resolve())))
    return None


def study_of(path: str) -> tuple[str, str]:
    """Read the subject and study numbers in a path; empty where it has none."""
    match = _PATH.search(path.replace("\\", "/"))
    return (match[1], match[2]) if match else ("", "")


def find_images(folder: Path, root: Path) -> tuple[Path, ...]:
    """List a study folder's images; of one image in several forms, the DICOM."""
    found: dict[str, Path] = {}
    if folder.is_dir():
        for form in reversed(_FORMS):
            for path in folder.glob(f"*{form}"):
                found[path.name.removesuffix(form)] = path
    paths = (found[name] for name in sorted(found))
    return tuple(inside(root, str(path.relative_to(root.resolve()))) for path in paths)


def read_report(
    root: Path, subject_id: str, study_id: str, part: str, left_out: Counter[str]
) -> str:
    """Read the report beside a study's folder, or the part of it that is the note."""
    folder = study_folder(root, subject_id, study_id)
    path = folder.with_name(f"{folder.name}.txt")
    if part == "none" or not path.is_file():
        return ""
    text = read_note(inside(root, str(path.relative_to(root.resolve()))), left_out)
    return text if part == "report" else take_sections(text, _SECTIONS[part])


def take_sections(text: str, names: tuple[str, ...]) -> str:
    """Take sections out of a report, without their headings and with their lines joined."""
    parts = [
        " ".join(text[section.body : section.end].split())
        for section in find_sections(text)
        if set(section.names) & set(names)
    ]
    return "\n".join(part for part in parts if part)
