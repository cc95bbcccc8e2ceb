"""The command retrieve: a bundle, a cohort and one modality in, studies whose other is near out."""

import json as json_module
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from medfuse.types import Modality
from medfuse_serving.commands import BundlePath, Provider, read_given

if TYPE_CHECKING:
    from medfuse.data.cohort import CohortRow
    from medfuse.trust.retrieval import Embeddings, Recall
    from medfuse_serving.predictor import Predictor


def retrieve(
    bundle: BundlePath,
    cohort: Annotated[Path, typer.Argument(help="The table of the studies to look through.")],
    dicom: Annotated[
        list[Path] | None, typer.Option(help="The image asked about; several files may be given.")
    ] = None,
    note: Annotated[Path | None, typer.Option(help="The note asked about.")] = None,
    voice: Annotated[Path | None, typer.Option(help="The recording asked about.")] = None,
    to: Annotated[
        Modality | None, typer.Option(help="What is looked for; both others by default.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many of the nearest are shown.")] = 10,
    evaluate: Annotated[
        bool, typer.Option(help="Measure recall in all six directions instead of asking.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, not a table.")] = False,
    provider: Provider = None,
) -> None:
    """Given an image, a note or a recording, find the studies whose other modality is nearest."""
    from medfuse.synthetic.pairing import read_pairing
    from medfuse.trust.retrieval import measure_recall, nearest
    from medfuse_serving.predictor import Predictor

    given = {Modality.IMAGE: dicom, Modality.NOTE: note, Modality.VOICE: voice}
    asked = [m for m, value in given.items() if value]
    if len(asked) != (0 if evaluate else 1):
        raise typer.BadParameter("give one of --dicom, --note, --voice, or --evaluate")
    if asked and to is asked[0]:
        raise typer.BadParameter(f"--to {to} is what was given; look for another modality")
    predictor = Predictor(bundle, provider)
    predictor.require_shared_space()
    rows = _read_rows(cohort)
    gallery = embed_rows(predictor, rows)
    if evaluate:
        known = read_pairing(cohort.parent, [(r.study_id, r.sex, r.site) for r in rows])
        patients = [row.patient_id for row in rows]
        recalls = measure_recall(gallery, patients, truth=known.score if known else None)
        _show_recalls(recalls, json)
        return
    limits = predictor.bundle.manifest.prepare.limits
    study = read_given(limits, tuple(dicom or ()), note, voice)
    query = predictor.embed([study]).vectors[asked[0]][0]
    wanted = [to] if to else [m for m in Modality if m is not asked[0]]
    found = {
        m: [
            (rows[i].study_id, float(cosine))
            for i, cosine in zip(*nearest(query, gallery, m, top), strict=True)
        ]
        for m in wanted
    }
    _show_found(found, json)


def embed_rows(predictor: "Predictor", rows: Sequence["CohortRow"]) -> "Embeddings":
    """Bring studies into the shared space, with progress on stderr.

    Raises:
        MedfuseError: A study's files cannot be used.
    """
    import numpy as np
    from rich.progress import Progress

    from medfuse.data.cohort import load_study
    from medfuse.trust.retrieval import Embeddings
    from medfuse_serving.predictor import BATCH_STUDIES

    parts = []
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("Embedding studies", total=len(rows))
        for start in range(0, len(rows), BATCH_STUDIES):
            some = rows[start : start + BATCH_STUDIES]
            parts.append(predictor.embed([load_study(row) for row in some]))
            bar.advance(task, len(some))
    vectors = {m: np.concatenate([part.vectors[m] for part in parts]) for m in Modality}
    return Embeddings(vectors, np.concatenate([part.present for part in parts]))


def _read_rows(table: Path) -> tuple["CohortRow", ...]:
    from medfuse.data.cohort import CohortSettings, read_cohort

    return read_cohort(CohortSettings(table=table, unlabelled="train"), ()).rows


def _show_found(found: dict[Modality, list[tuple[str, float]]], as_json: bool) -> None:
    if as_json:
        lines = {
            m.value: [{"study_id": name, "cosine": cosine} for name, cosine in own]
            for m, own in found.items()
        }
        sys.stdout.write(json_module.dumps(lines, indent=2) + "\n")
        return
    table = Table("looked for", "rank", "study", "cosine", title="Nearest studies")
    for m, own in found.items():
        for rank, (name, cosine) in enumerate(own, start=1):
            table.add_row(m.value, str(rank), name, f"{cosine:.3f}")
    Console(highlight=False).print(table)


def _show_recalls(recalls: Sequence["Recall"], as_json: bool) -> None:
    if as_json:
        lines = [
            {
                "asked": r.asked.value,
                "found": r.found.value,
                "studies": r.studies,
                "recall": {str(k): figure.model_dump() for k, figure in r.recall.items()},
                "chance": {str(k): value for k, value in r.chance.items()},
                "best": r.best and {str(k): value for k, value in r.best.items()},
                "median_rank": r.median_rank,
                "best_median_rank": r.best_rank,
            }
            for r in recalls
        ]
        sys.stdout.write(json_module.dumps(lines, indent=2) + "\n")
        return
    known = any(r.best is not None for r in recalls)
    caption = "at best: by every sign, sex and site, none of them mistaken" if known else None
    table = Table("given", "looked for", "studies", title="Retrieval", caption=caption)
    for head in ("recall at 1", "recall at 10", "median rank"):
        table.add_column(head)
    for r in recalls:
        cells = [
            _lines(str(r.recall[k]), r.chance[k], None if r.best is None else r.best[k])
            for k in r.recall
        ]
        rank = f"{r.median_rank:g}"
        if r.best_rank is not None:
            rank += f"\n\n{r.best_rank:g} at best"
        table.add_row(r.asked, r.found, str(r.studies), *cells, rank)
        table.add_section()
    Console(highlight=False).print(table)


def _lines(measured: str, chance: float, best: float | None) -> str:
    known = "" if best is None else f"\n{best:.3f} at best"
    return f"{measured}\n{chance:.3f} by chance{known}"
