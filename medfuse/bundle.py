"""The bundle: all a hospital runs, as one folder, verified by hash before any of it is loaded."""

import hashlib
import json
import os
import secrets
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AwareDatetime, Field, JsonValue, StringConstraints, ValidationError

from medfuse.attribution.scale import Scales
from medfuse.config import PrepareSettings, Settings, Task
from medfuse.errors import BundleError
from medfuse.leaks.report import LeakRecord
from medfuse.text.record import TextRecord
from medfuse.trust.calibration import Calibration
from medfuse.trust.record import TrustRecord
from medfuse.types import Modality

SCHEMA_VERSION: Final = 6
MANIFEST = "manifest.json"
GRAPH = "predict.onnx"
ANSWER_GRAPH = "answer.onnx"
EXPLAIN_GRAPH = "explain.onnx"
TEXT_GRAPH = "text.onnx"
WEIGHTS = "weights.safetensors"
BACKGROUND = "background.safetensors"
NOVELTY = "novelty.safetensors"
TOKENIZER = "tokenizer.json"
MODEL_CARD = "model_card.md"
GOLDEN_ANSWER = "golden/answer.json"
REQUIRED = (GRAPH, TOKENIZER, MODEL_CARD, GOLDEN_ANSWER)
EXPLAINING = (ANSWER_GRAPH, EXPLAIN_GRAPH, WEIGHTS, BACKGROUND)
"""What a bundle that explains its answers has beside that."""

WRITING = (TEXT_GRAPH, WEIGHTS)
"""What one that writes findings text has beside that."""

READ_VERSIONS = (2, 3, 4, 5, SCHEMA_VERSION)
"""One of version 2 writes no text, one of 3 promises nothing, none up to 4 was recalibrated, and
none up to 5 says what kind of studies its promises rest on."""

TIE = "medfuse.predict"
"""The key of another graph's metadata that names the graph whose answers it goes with."""

NOTICE = (
    "For research and evaluation. Not a medical device: not cleared or approved by any regulator, "
    "and not to be used to diagnose, treat or triage a patient."
)

_MANIFEST_BYTES = 16 * 2**20

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
FileName = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*$"),
]
"""A path inside the bundle: plain parts that neither climb out of it nor hide."""


class FileRecord(Settings):
    """What a file of the bundle must be, byte for byte."""

    sha256: Sha256
    size: int = Field(ge=0, description="bytes")


class ArraySpec(Settings):
    """One input or output of the graph; an axis named by a word may have any length."""

    name: str
    dtype: Literal["float32", "int64", "bool"]
    axes: tuple[int | str, ...]


class SubsetParity(Settings):
    """How the graph compares with the torch model on studies with one subset of modalities.

    Every figure is the largest absolute difference of any element for any such study of the sweep,
    divided by the output's scale: its largest absolute value in the whole sweep, by torch.

    Attributes:
        studies: How many were compared.
        logits: Graph in ONNX Runtime against torch, both float32.
        embeddings: The same for the embeddings and the fused vector, the worst of them.
        onnx_to_float64: Logits of the graph against the torch model in float64, on one study.
        torch_to_float64: Logits of the torch model in float32 against float64, on that study.
    """

    studies: int = Field(gt=0)
    logits: float = Field(ge=0)
    embeddings: float = Field(ge=0)
    onnx_to_float64: float = Field(ge=0)
    torch_to_float64: float = Field(ge=0)


class SizeParity(Settings):
    """The same comparison for one size of batch, all subsets together.

    Attributes:
        batch: Studies in the batch.
        frames: Most image frames of a study in it.
        word_pieces: Most word pieces.
        mel_frames: Most mel frames.
        logits: As in `SubsetParity`.
    """

    batch: int = Field(gt=0)
    frames: int = Field(gt=0)
    word_pieces: int = Field(gt=0)
    mel_frames: int = Field(gt=0)
    logits: float = Field(ge=0)


class ParityReport(Settings):
    """The graph against the torch model it was made from, on studies no training has seen."""

    tolerance: float = Field(gt=0, description="what every relative difference was held to")
    provider: str = Field(description="ONNX Runtime's execution provider")
    scale: dict[str, float] = Field(description="largest absolute value of each output, by torch")
    subsets: dict[str, SubsetParity]
    sizes: tuple[SizeParity, ...]


class ModalityCertificate(Settings):
    """How the bundle's attributions to one modality compare with Captum's.

    Relative differences are of one study's map: the L2 norm of the difference by that of the other
    map. Each is the median over the studies, except for the two that say worst.

    Attributes:
        studies: How many had the modality.
        relative_l2: ONNX Runtime's map against Captum's on the torch model in float32.
        worst_relative_l2: The same for the worst study.
        worst_difference: The largest difference of any element of any study, relative to the
            largest element of that study's map.
        onnx_to_float64: ONNX Runtime's map against Captum's on the torch model in float64.
        captum_to_float64: Captum's map in float32 against that in float64.
    """

    studies: int = Field(gt=0)
    relative_l2: float = Field(ge=0)
    worst_relative_l2: float = Field(ge=0)
    worst_difference: float = Field(ge=0)
    onnx_to_float64: float = Field(ge=0)
    captum_to_float64: float = Field(ge=0)

    def holds(self, limit: float, ratio: float) -> bool:
        """Whether the maps agree, or ONNX Runtime's are about as near the exact ones as Captum's.

        Args:
            limit: Of the median relative L2 difference from Captum.
            ratio: How much further from float64 than Captum in float32 ONNX Runtime may be.
        """
        return self.relative_l2 <= limit or self.onnx_to_float64 <= ratio * self.captum_to_float64


class Certificate(Settings):
    """The bundle's integrated gradients against Captum's, on studies that no training has seen.

    Attributes:
        studies: How many were compared.
        by_subset: Of those, how many had each subset of modalities.
        by_target: And how many were about each target.
        points: Of the integral's quadrature, the same on both sides.
        baseline: Its name.
        provider: ONNX Runtime's execution provider.
        limit: What the median relative L2 difference was held to.
        ratio: Or else, what the distance from float64 was held to, in Captum's own.
        modalities: The comparison.
        overridden: Whether the bundle was written although it doesn't hold.
        versions: Libraries that were compared.
    """

    studies: int = Field(gt=0)
    by_subset: dict[str, int]
    by_target: dict[str, int]
    points: int = Field(gt=0)
    baseline: str
    provider: str
    limit: float = Field(gt=0)
    ratio: float = Field(gt=0)
    modalities: dict[Modality, ModalityCertificate]
    overridden: bool = False
    versions: dict[str, str]

    @property
    def holds(self) -> bool:
        """Whether every modality's comparison holds."""
        return all(m.holds(self.limit, self.ratio) for m in self.modalities.values())


class ExplainRecord(Settings):
    """What the bundle's own explanations rest on.

    Attributes:
        inputs: Of ``explain.onnx``; ``answer.onnx`` takes all but the last.
        outputs: Of ``explain.onnx``.
        answers: Outputs of ``answer.onnx``: the logits, and each frame's share of the attention.
        embedding: The name of the word pieces' table in ``weights.safetensors``.
        certificate: The comparison with Captum.
        scales: Where each picture's colour is full.
    """

    inputs: tuple[ArraySpec, ...]
    outputs: tuple[ArraySpec, ...]
    answers: tuple[ArraySpec, ...]
    embedding: str
    certificate: Certificate
    scales: Scales


class TextSubsetParity(Settings):
    """How findings text compares with torch's on studies with one subset of modalities.

    Every figure is the largest absolute difference, divided by the output's largest value by torch.

    Attributes:
        studies: How many were compared.
        memory: Of the tokens that are written from.
        logits: Of the words to stand next, after each word of the sentences that torch writes.
        energy: Of what each token added to each word.
        sentences: How many were written by both.
        alike: How many of them are the same, word for word.
    """

    studies: int = Field(gt=0)
    memory: float = Field(ge=0)
    logits: float = Field(ge=0)
    energy: float = Field(ge=0)
    sentences: int = Field(ge=0)
    alike: int = Field(ge=0)


class TextParity(Settings):
    """Findings text by graph against that by torch, on studies no training has seen."""

    tolerance: float = Field(gt=0, description="what every relative difference was held to")
    subsets: dict[str, TextSubsetParity]


class TextManifest(Settings):
    """What the bundle's findings text rests on.

    Attributes:
        record: How the decoder is asked.
        inputs: Of ``text.onnx``; ``memory`` and ``memory_mask`` are outputs of ``predict.onnx``.
        outputs: Of ``text.onnx``.
        parity: The comparison with torch.
    """

    record: TextRecord
    inputs: tuple[ArraySpec, ...]
    outputs: tuple[ArraySpec, ...]
    parity: TextParity


class RecalibrationRecord(Settings):
    """Whose studies a bundle's calibration and promises rest on, where not on training's.

    Attributes:
        created: When.
        parent: Digest of the bundle that it was made from.
        cohort: Digest of the table's rows.
        split: Which of its studies.
        studies: How many of them were used.
        patients: Of so many.
        left_out: Studies that were not, by reason.
        novelty: The modalities of which these studies say what is usual; of others the parent does.
    """

    created: AwareDatetime
    parent: Sha256
    cohort: Sha256
    split: str
    studies: int = Field(gt=0)
    patients: int = Field(gt=0)
    left_out: dict[str, int]
    novelty: tuple[Modality, ...]


class Manifest(Settings):
    """All that is true of a bundle; see docs/bundle.md for each field."""

    schema_version: Literal[2, 3, 4, 5, 6] = SCHEMA_VERSION
    notice: str = NOTICE
    created: AwareDatetime
    files: dict[FileName, FileRecord] = Field(default_factory=dict)
    opset: int = Field(gt=0)
    inputs: tuple[ArraySpec, ...]
    outputs: tuple[ArraySpec, ...]
    prepare: PrepareSettings
    tasks: tuple[Task, ...] = Field(min_length=1)
    calibration: Calibration
    trust: TrustRecord | None = Field(
        default=None, description="None where nothing is promised of its answers"
    )
    parity: ParityReport
    explain: ExplainRecord | None = Field(
        default=None, description="None where the bundle can't explain its answers"
    )
    text: TextManifest | None = Field(
        default=None, description="None where the bundle writes no findings text"
    )
    model: dict[str, JsonValue] = Field(description="the network's settings, for the record")
    checkpoint: Sha256 = Field(description="digest of the checkpoint this was exported from")
    training_data: str = Field(description="digest of the cohort the model was trained on")
    leaks: LeakRecord | None = Field(
        default=None, description="what that cohort gives away; null where nobody looked"
    )
    recalibrated: RecalibrationRecord | None = Field(
        default=None, description="None of a bundle that is as it was exported"
    )
    metrics: dict[str, JsonValue] = Field(description="the checkpoint's figures, for the record")
    trained_with: dict[str, str] = Field(description="libraries and their versions")
    exported_with: dict[str, str] = Field(description="likewise; ONNX Runtime is that of parity")


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle whose every file was the manifest's when it was opened.

    Attributes:
        path: The folder.
        manifest: What it declares.
        digest: SHA-256 of the manifest's bytes, as hex; it names the bundle, since the manifest
            holds the hash of everything else.
    """

    path: Path
    manifest: Manifest
    digest: str

    def read(self, name: str) -> bytes:
        """Read a file once and verify those very bytes, so that what is loaded is what was checked.

        Raises:
            BundleError: The file isn't part of the bundle, or no longer what the manifest says.
        """
        record = self.manifest.files.get(name)
        if record is None:
            raise BundleError(f"{self.path}: the bundle has no file {name!r}; export it again")
        with _open_regular(self.path / name) as file:
            data = file.read(record.size + 1)
        if len(data) != record.size or hashlib.sha256(data).hexdigest() != record.sha256:
            raise _altered(self.path, name)
        return data


def open_bundle(path: Path) -> Bundle:
    """Open a bundle after verifying that it is whole, unaltered and of a version we know.

    The folder itself may be reached by a symbolic link (a server's ``current``); nothing in it
    may be one.

    Raises:
        BundleError: It isn't a bundle; a file is missing, added, altered or a link; or its schema
            version is not known. The message says which and what to do.
    """
    path = path.resolve()
    data = _read_manifest_bytes(path)
    manifest = _parse_manifest(path, data)
    found = _list_files(path)
    expected = {MANIFEST, *manifest.files}
    required = {
        *REQUIRED,
        *(EXPLAINING if manifest.explain else ()),
        *(WRITING if manifest.text else ()),
        *((NOVELTY,) if manifest.trust else ()),
    }
    if missing := sorted((expected | required) - found):
        raise BundleError(
            f"{path}: {', '.join(missing)} missing from the bundle; copy the whole folder again"
        )
    if extra := sorted(found - expected):
        raise BundleError(
            f"{path}: {', '.join(map(repr, extra))} not part of the bundle; remove what was added, "
            "or copy the folder again"
        )
    for name, record in manifest.files.items():
        with _open_regular(path / name) as file:
            size = os.fstat(file.fileno()).st_size
            if size != record.size or hashlib.file_digest(file, "sha256").hexdigest() != (
                record.sha256
            ):
                raise _altered(path, name)
    return Bundle(path=path, manifest=manifest, digest=hashlib.sha256(data).hexdigest())


def write_bundle(path: Path, contents: Mapping[str, bytes], manifest: Manifest) -> Bundle:
    """Write a bundle beside its place and move it there whole, then open it as serving will.

    Args:
        path: The folder to make. An empty folder or another bundle there is replaced.
        contents: Every file but the manifest, by its path inside the bundle.
        manifest: Whose `files` are filled in from ``contents``.

    Raises:
        BundleError: ``path`` holds something that isn't a bundle or can't be written, or a file's
            name doesn't fit one.
    """
    path = path.resolve()
    check_place(path)
    records = {
        name: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        for name, data in sorted(contents.items())
    }
    try:
        manifest = Manifest.model_validate(manifest.model_dump() | {"files": records})
    except ValidationError as error:
        raise BundleError(f"{path}: {_first(error)}") from error
    staging = path.parent / f".{path.name}.{secrets.token_hex(4)}"
    try:
        staging.mkdir(parents=True)
        for name, data in contents.items():
            (staging / name).parent.mkdir(parents=True, exist_ok=True)
            (staging / name).write_bytes(data)
        (staging / MANIFEST).write_bytes(format_manifest(manifest))
        open_bundle(staging)
        check_place(path)
        if path.exists():
            old = staging.with_name(f"{staging.name}.old")
            path.rename(old)
            staging.rename(path)
            shutil.rmtree(old)
        else:
            staging.rename(path)
    except OSError as error:
        raise BundleError(f"{path}: cannot be written ({error.strerror})") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return open_bundle(path)


def check_place(path: Path) -> None:
    """Check that a bundle may be written to a path: nothing is there, or another bundle.

    Raises:
        BundleError: Something is there that is not wholly a bundle's own.
    """
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    try:
        manifest = _parse_manifest(path, _read_manifest_bytes(path))
        ours = _list_files(path) <= {MANIFEST, *manifest.files}
    except BundleError:
        ours = False
    if not ours:
        raise BundleError(
            f"{path}: there is something here that is not a bundle, and it is left alone; choose "
            "another place or remove it first"
        )


def tie_digest(predict: bytes, weights: bytes) -> str:
    """Name a graph together with its weights, as SHA-256 in hex; see `TIE`."""
    parts = (hashlib.sha256(data).hexdigest() for data in (predict, weights))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def format_manifest(manifest: Manifest) -> bytes:
    """Write a manifest as JSON, the same bytes for the same manifest."""
    text = json.dumps(
        manifest.model_dump(mode="json"), indent=2, ensure_ascii=False, allow_nan=False
    )
    return (text + "\n").encode()


def _read_manifest_bytes(path: Path) -> bytes:
    if not path.is_dir():
        raise BundleError(f"{path}: expected a bundle's folder; there is none")
    if not os.path.lexists(path / MANIFEST):
        raise BundleError(
            f"{path}: no {MANIFEST}, so this is not a bundle; `medfuse export` makes one"
        )
    with _open_regular(path / MANIFEST) as file:
        data = file.read(_MANIFEST_BYTES + 1)
    if len(data) > _MANIFEST_BYTES:
        raise BundleError(f"{path}: {MANIFEST} is larger than {_MANIFEST_BYTES} bytes")
    return data


def _parse_manifest(path: Path, data: bytes) -> Manifest:
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path}: {MANIFEST} is not JSON; copy the folder again") from error
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version not in READ_VERSIONS:
        known = " and ".join(map(str, READ_VERSIONS))
        raise BundleError(
            f"{path}: the bundle has schema version {version!r}, and this medfuse reads {known}; "
            "export it again, or install the medfuse that wrote it"
        )
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        raise BundleError(f"{path}: {MANIFEST} is not valid: {_first(error)}") from error


def _list_files(path: Path) -> set[str]:
    """List every file under a folder, by its path inside it; refuse links and devices."""

    def stop(error: OSError) -> None:
        raise BundleError(f"{path}: cannot be read ({error.strerror})") from error

    found = set()
    for folder, folders, files in os.walk(path, onerror=stop):
        for name in folders + files:
            entry = Path(folder, name)
            mode = entry.lstat().st_mode
            if stat.S_ISREG(mode):
                found.add(entry.relative_to(path).as_posix())
            elif not stat.S_ISDIR(mode):
                raise _not_plain(entry)
    return found


def _open_regular(path: Path) -> BufferedReader:
    """Open a plain file, and neither follow a link nor wait on a pipe."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if path.is_symlink():
            raise _not_plain(path) from error
        raise BundleError(f"{path}: cannot be read ({error.strerror})") from error
    file = os.fdopen(descriptor, "rb")
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        file.close()
        raise _not_plain(path)
    return file


def _not_plain(path: Path) -> BundleError:
    return BundleError(
        f"{path}: a link or a special file, and a bundle holds plain files alone; copy the folder "
        "again with links resolved"
    )


def _altered(path: Path, name: str) -> BundleError:
    return BundleError(
        f"{path}: {name} is not the file the manifest describes (its SHA-256 differs); do not use "
        "it, copy the folder again from where it was exported"
    )


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
