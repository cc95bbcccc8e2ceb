"""Open-I's XML reports, or Kaggle's tables of them, in; films, indication and MeSH findings out."""

import lzma
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from medfuse.config import Task, TaskKind
from medfuse.data.importers.source import (
    Importer,
    ImportOptions,
    SourceCohort,
    SourceStudy,
    choose,
    inside,
    read_rows,
)
from medfuse.data.studies import read_file
from medfuse.errors import LimitError, SourceError

NOTES = {
    "indication": "why the film was taken: free of the answer",
    "findings": "what the reader saw: contains the answer",
    "report": "findings and impression: contains the answer",
    "none": "no note",
}

FINDINGS = {
    "cardiomegaly": ("Cardiomegaly",),
    "pleural_effusion": ("Pleural Effusion",),
    "atelectasis": ("Pulmonary Atelectasis",),
    "opacity": ("Opacity", "Airspace Disease", "Infiltrate", "Consolidation"),
    "calcified_granuloma": ("Calcified Granuloma", "Granuloma"),
    "nodule": ("Nodule", "Mass"),
    "emphysema": ("Emphysema", "Pulmonary Emphysema"),
    "pulmonary_edema": ("Pulmonary Edema",),
    "pulmonary_congestion": ("Pulmonary Congestion",),
    "pneumothorax": ("Pneumothorax",),
    "pneumonia": ("Pneumonia",),
    "fracture": ("Fractures, Bone",),
    "hiatal_hernia": ("Hernia, Hiatal",),
}
"""A finding and the MeSH headings that state it."""

NORMAL = "normal"
_NOT_INDEXED = "no indexing"

REPORTS_TAR = "NLMCXR_reports.tgz"
KAGGLE = ("indiana_reports.csv", "indiana_projections.csv")
_IMAGE_FOLDERS = ("", "NLMCXR_png", "NLMCXR_dcm", "images", "images/images_normalized")
_IMAGE_FORMS = (".dcm", ".png", ".jpg")
_XML_BYTES = 2**20
_TAR_BYTES = 2**28


def read_open_i(folder: Path, options: ImportOptions) -> SourceCohort:
    """Read reports as XML, in a folder or in ``NLMCXR_reports.tgz``, or Kaggle's two tables.

    Raises:
        SourceError: None of the three is there, or one is not as published.
    """
    note = choose("note", options.note, NOTES)
    left_out: Counter[str] = Counter()
    if (folder / KAGGLE[0]).is_file():
        studies: Iterator[SourceStudy] = _read_kaggle(folder, note, left_out)
        total: int | None = sum(1 for _ in read_rows(inside(folder, KAGGLE[0]), ("uid",)))
    else:
        names = _list_xml(folder)
        total = len(names) or None
        studies = _read_reports(folder, names, note, left_out)
    tasks = (
        Task(name="findings", kind=TaskKind.MULTILABEL, classes=tuple(FINDINGS)),
        Task(name=NORMAL, kind=TaskKind.BINARY, classes=(NORMAL,)),
    )
    return SourceCohort(
        tasks=tasks,
        studies=studies,
        total=total,
        left_out=left_out,
        remarks=(
            "Findings are the MeSH headings that people gave each report; one that is not given is",
            "taken as absent, and reports without headings have unknown labels.",
        ),
    )


def _list_xml(folder: Path) -> tuple[Path, ...]:
    for place in (
        folder / "ecgen-radiology",
        folder / "NLMCXR_reports" / "ecgen-radiology",
        folder,
    ):
        found = sorted(place.glob("*.xml"), key=lambda path: (len(path.name), path.name))
        if found:
            return tuple(inside(folder, str(path.relative_to(folder))) for path in found)
    if not (folder / REPORTS_TAR).is_file():
        raise SourceError(
            f"{folder}: expected Open-I's reports as ecgen-radiology/*.xml or {REPORTS_TAR}, or "
            f"Kaggle's {' and '.join(KAGGLE)}; there is none"
        )
    return ()


def _read_reports(
    folder: Path, names: Sequence[Path], note: str, left_out: Counter[str]
) -> Iterator[SourceStudy]:
    texts = (read_file(path, _XML_BYTES) for path in names) if names else _unpack(folder)
    for text in texts:
        yield _read_report(folder, text, note, left_out)


def _unpack(folder: Path) -> Iterator[bytes]:
    """Read the reports inside the archive, without writing any."""
    whole = 0
    try:
        with tarfile.open(inside(folder, REPORTS_TAR), "r:*") as archive:
            for member in archive:
                whole += member.size
                if whole > _TAR_BYTES:
                    raise LimitError(f"{REPORTS_TAR}: unpacked, more than {_TAR_BYTES} bytes")
                if not member.isreg() or not member.name.endswith(".xml"):
                    continue
                if member.size > _XML_BYTES:
                    raise LimitError(f"{REPORTS_TAR}: a report has more than {_XML_BYTES} bytes")
                file = archive.extractfile(member)
                assert file is not None  # a regular file has content
                yield file.read(_XML_BYTES)
    except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        raise SourceError(f"{REPORTS_TAR}: damaged ({type(error).__name__})") from error


def _read_report(folder: Path, data: bytes, note: str, left_out: Counter[str]) -> SourceStudy:
    try:
        root: Element = fromstring(data, forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError) as error:
        raise SourceError(f"a report is not plain XML ({type(error).__name__})") from error
    uid = root.find("uId")
    if root.tag != "eCitation" or uid is None or not uid.get("id"):
        raise SourceError("a report is not Open-I's: expected <eCitation> with <uId id=...>")
    parts = {
        (part.get("Label") or "").upper(): (part.text or "").strip()
        for part in root.iter("AbstractText")
    }
    headings = [heading.text or "" for heading in root.iterfind("MeSH/major")]
    names = [image.get("id") or "" for image in root.iter("parentImage")]
    identifier = str(uid.get("id"))
    return SourceStudy(
        # Each person has one study here, and nothing says who it is.
        patient_id=identifier,
        study_id=identifier,
        images=_find_images(folder, names, left_out),
        note=_choose_note(parts, note),
        labels=read_headings(headings),
    )


def _read_kaggle(folder: Path, note: str, left_out: Counter[str]) -> Iterator[SourceStudy]:
    images: dict[str, list[str]] = {}
    projections = inside(folder, KAGGLE[1])
    if not projections.is_file():
        raise SourceError(f"{folder}: expected {KAGGLE[1]} beside {KAGGLE[0]}; there is none")
    # Frontal films first, since a model of few frames sees those.
    rows = sorted(
        read_rows(projections, ("uid", "filename", "projection")),
        key=lambda row: row["projection"] != "Frontal",
    )
    for row in rows:
        images.setdefault(row["uid"], []).append(row["filename"])
    needed = ("uid", "MeSH", "indication", "findings", "impression")
    for row in read_rows(inside(folder, KAGGLE[0]), needed):
        parts = {name.upper(): row[name] for name in ("indication", "findings", "impression")}
        yield SourceStudy(
            patient_id=row["uid"],
            study_id=row["uid"],
            images=_find_images(folder, images.get(row["uid"], ()), left_out),
            note=_choose_note(parts, note),
            labels=read_headings(row["MeSH"].split(";")),
        )


def read_headings(headings: Sequence[str]) -> dict[str, str]:
    """Turn MeSH headings, such as ``Opacity/lung/base``, into a label for each finding."""
    first = {heading.split("/")[0].strip().lower() for heading in headings if heading.strip()}
    if not first or _NOT_INDEXED in first:
        return dict.fromkeys((*FINDINGS, NORMAL), "")
    labels = {
        name: str(int(any(heading.lower() in first for heading in stated)))
        for name, stated in FINDINGS.items()
    }
    return labels | {NORMAL: str(int(NORMAL in first))}


def _choose_note(parts: dict[str, str], note: str) -> str:
    if note == "report":
        return "\n".join(filter(None, (parts.get("FINDINGS", ""), parts.get("IMPRESSION", ""))))
    return "" if note == "none" else parts.get(note.upper(), "")


def _find_images(folder: Path, names: Sequence[str], left_out: Counter[str]) -> tuple[Path, ...]:
    """Find the films that a report names, with or without an ending, in the usual folders."""
    found = []
    for name in names:
        path = next(
            (
                path
                for place in _IMAGE_FOLDERS
                for form in ("", *_IMAGE_FORMS)
                if (path := inside(folder, place, f"{name}{form}")).is_file()
            ),
            None,
        )
        if path is None:
            left_out["image that is not there"] += 1
        else:
            found.append(path)
    return tuple(found)


OPEN_I = Importer(
    title="Open-I: Indiana University Chest X-ray Collection",
    licence="CC BY-NC-ND 4.0",
    citation="Demner-Fushman et al. 2016, doi 10.1093/jamia/ocv080",
    read=read_open_i,
)
