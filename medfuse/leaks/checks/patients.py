"""Who is in which split, and with which label; torn patients and contradicting labels out."""

from collections import defaultdict

import numpy as np

from medfuse.leaks.association import Target
from medfuse.leaks.examined import Examined
from medfuse.leaks.report import LeakFinding, Remedy, pick_examples

MOSTLY = 0.9
"""Share of patients whose studies agree in a label from which it is the patient's own."""

FEWEST = 10
"""Patients with several studies that are needed to tell."""


def check_splits(examined: Examined) -> list[LeakFinding]:
    """Find patients who are in more than one split of the table."""
    splits: dict[str, set[str]] = defaultdict(set)
    for row in examined.rows:
        if row.split is not None:
            splits[row.patient_id].add(row.split.value)
    torn = {patient for patient, own in splits.items() if len(own) > 1}
    if not torn:
        return []
    groups = [
        tuple(row.study_id for row in examined.rows if row.patient_id == patient)
        for patient in sorted(torn)
    ]
    studies = [study for group in groups for study in group]
    return [
        LeakFinding(
            kind="patient-in-splits",
            severity="fail",
            feature="patient and split",
            count=len(studies),
            examples=pick_examples(studies),
            message=f"{len(torn)} patient(s) are in more than one split, with {len(studies)} "
            "studies; a model can know them again.",
            remedy=Remedy(group=tuple(groups)),
        )
    ]


def check_labels(examined: Examined) -> list[LeakFinding]:
    """Find labels that disagree for one patient: on one day, or where labels are the patient's."""
    findings = []
    for target in examined.targets:
        findings += _same_day(examined, target)
        findings += _patients_own(examined, target)
    return findings


def _same_day(examined: Examined, target: Target) -> list[LeakFinding]:
    """Find studies of one patient and one day with different labels."""
    by_day: dict[tuple[str, str], list[int]] = defaultdict(list)
    for i, row in enumerate(examined.rows):
        if row.date and target.known[i]:
            by_day[row.patient_id, row.date].append(i)
    torn = [own for own in by_day.values() if len(set(target.labels[own].tolist())) > 1]
    if not torn:
        return []
    studies = [i for own in torn for i in own]
    return [
        LeakFinding(
            kind="label-conflict",
            severity="fail",
            target=target.name,
            feature="patient and date",
            count=len(studies),
            examples=pick_examples(examined.name(studies)),
            message=f"{len(torn)} time(s) the studies of one patient and one day disagree in "
            f"{target.name}; one of them is wrong.",
            remedy=Remedy(drop=examined.name(studies)),
        )
    ]


def _patients_own(examined: Examined, target: Target) -> list[LeakFinding]:
    """Warn of the few patients whose labels disagree where almost all patients' agree."""
    count = int(examined.patients.max()) + 1
    known = target.known
    yes = np.bincount(examined.patients[known], target.labels[known], minlength=count)
    own = np.bincount(examined.patients[known], minlength=count)
    several = own > 1
    torn = several & (yes > 0) & (yes < own)
    agree = 1 - torn.sum() / max(several.sum(), 1)
    if several.sum() < FEWEST or not torn.any() or agree < MOSTLY:
        return []
    studies = np.flatnonzero(torn[examined.patients] & known)
    return [
        LeakFinding(
            kind="label-conflict",
            severity="warn",
            target=target.name,
            feature="patient",
            count=len(studies),
            examples=pick_examples(examined.name(studies)),
            message=f"{target.name} is the same in all studies of {agree:.0%} of patients, and "
            f"differs in {int(torn.sum())} patient(s): a course of disease, or a mistake.",
            remedy=Remedy(drop=examined.name(studies)),
        )
    ]
