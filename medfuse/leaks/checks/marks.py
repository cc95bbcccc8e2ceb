"""Burned-in text, markers, plates and frames: sharp edges and flat borders in; leaks out."""

import numpy as np
from scipy.ndimage import find_objects, label

from medfuse.config import Box
from medfuse.leaks.association import Association, Feature, cut_numbers, find_associations, flag
from medfuse.leaks.checks.telling import find_telling, judge, measure
from medfuse.leaks.examined import Examined
from medfuse.leaks.image_facts import GRID
from medfuse.leaks.report import LeakFinding, Remedy, pick_examples

FEWEST_PIXELS = 6
"""Pixels at sharp edges that make a cell of the grid hold a mark."""

MARGIN = 0.25 / GRID
"""A blanked box is this much wider than the cells that hold the mark."""


def check_marks(examined: Examined) -> list[LeakFinding]:
    """Test each cell of a grid for whether a mark in it tells a label.

    Tissue hardly has edges that go from dark to bright within two pixels; letters, plates, leads
    and drains do. Where one of those is a sign of the disease, it is a sign of its treatment.
    """
    there = np.array([facts.image is not None for facts in examined.facts])
    if not there.any():
        return []
    edges = np.zeros((len(there), GRID, GRID))
    for i, facts in enumerate(examined.facts):
        if facts.image is not None:
            edges[i] = facts.image.edges
    marked = edges >= FEWEST_PIXELS
    cells = [(y, x) for y in range(GRID) for x in range(GRID) if 0 < marked[there, y, x].mean() < 1]
    features = {f"a mark at row {y + 1}, column {x + 1} of {GRID}": (y, x) for y, x in cells}
    made = [flag(name, marked[:, y, x], there) for name, (y, x) in features.items()]
    found = find_associations(made, examined.targets, examined.patients, examined.alpha)
    findings = []
    for target in dict.fromkeys(a.target.name for a in found):
        own = [a for a in found if a.target.name == target]
        findings.append(_report(examined, own, [features[a.feature.name] for a in own], marked))
    borders = [f for f in (_cut_border(examined, side) for side in SIDES) if f is not None]
    return findings + find_telling(examined, "border", borders)


SIDES = ("top", "bottom", "left", "right")


def _cut_border(examined: Examined, side: str) -> Feature | None:
    name = f"flat border, {side}"
    images = [facts.image for facts in examined.facts]
    widths = [np.nan if image is None else image.numbers[name] for image in images]
    return cut_numbers(name, np.array(widths))


def _report(
    examined: Examined,
    own: list[Association],
    cells: list[tuple[int, int]],
    marked: np.ndarray,
) -> LeakFinding:
    """Report the cells that tell one target as boxes."""
    grid = np.zeros((GRID, GRID), dtype=bool)
    grid[tuple(np.array(cells).T)] = True
    boxes = tuple(_widen(place) for place in find_objects(label(grid, np.ones((3, 3)))[0]))
    best = min(own, key=lambda a: a.p)
    figure = measure(examined, best)
    with_mark = np.flatnonzero(marked[:, grid].any(axis=1) & best.target.known)
    positive = int((best.target.labels[with_mark] == 1).sum())
    return LeakFinding(
        kind="marks",
        severity=judge(examined, figure),
        target=best.target.name,
        feature=best.feature.name,
        figure=figure,
        count=len(with_mark),
        p=best.p,
        examples=pick_examples(examined.name(with_mark)),
        message=f"Sharp edges, as of letters and markers, tell {best.target.name}: of "
        f"{len(with_mark)} studies with some in the marked place(s), {positive} are positive.",
        remedy=Remedy(blank=boxes),
    )


def _widen(place: tuple[slice, slice]) -> Box:
    """Give the box of some cells and a little more."""
    (top, bottom), (left, right) = ((s.start / GRID, s.stop / GRID) for s in place)
    return Box(
        top=max(0.0, top - MARGIN),
        left=max(0.0, left - MARGIN),
        bottom=min(1.0, bottom + MARGIN),
        right=min(1.0, right + MARGIN),
    )
