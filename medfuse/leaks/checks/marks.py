"""Burned-in text, markers, plates and frames: sharp edges and flat borders in; leaks out."""

from collections.abc import Mapping
from functools import partial

import numpy as np
from jaxtyping import Float
from scipy.ndimage import find_objects, label

from medfuse.config import Box
from medfuse.leaks.association import (
    Association,
    Feature,
    Target,
    cut_numbers,
    find_associations,
    flag,
)
from medfuse.leaks.checks.telling import balance_rows, find_telling, judge, measure
from medfuse.leaks.examined import Examined
from medfuse.leaks.image_facts import BORDER_STEPS, BORDERS, GRID
from medfuse.leaks.report import LeakFinding, Remedy, pick_examples

FEWEST_PIXELS = 6
"""Pixels at sharp edges that make a cell of the grid hold a mark."""

MARGIN = 0.25 / GRID
"""A blanked box is this much wider than the cells that hold the mark."""

WIDEST = 0.16
"""Share of a side that a border takes at most; what is wider is taken for air around the body."""

COVERED = 0.98
"""Share of the borders that a blank is made to cover."""


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
    borders = {side: _measure_border(examined, side) for side in BORDERS}
    cut = [_cut_border(side, widths) for side, widths in borders.items()]
    return findings + find_telling(
        examined,
        "border",
        [feature for feature in cut if feature is not None],
        partial(_remedy_for_borders, borders),
    )


def _measure_border(examined: Examined, side: str) -> Float[np.ndarray, " n"]:
    images = [facts.image for facts in examined.facts]
    return np.array([np.nan if i is None else i.numbers[f"flat border, {side}"] for i in images])


def _cut_border(side: str, widths: Float[np.ndarray, " n"]) -> Feature | None:
    return cut_numbers(f"flat border, {side}", widths)


def _remedy_for_borders(
    borders: Mapping[str, Float[np.ndarray, " n"]], examined: Examined, association: Association
) -> Remedy | None:
    """Blank each side's border that tells the target; balance what is too wide to be a border."""
    found = {
        side: _find_width(examined, association.target, side, widths)
        for side, widths in borders.items()
    }
    boxes = tuple(_take_side(side, width) for side, width in found.items() if width is not None)
    return Remedy(blank=boxes) if boxes else balance_rows(examined, association)


def _find_width(
    examined: Examined, target: Target, side: str, widths: Float[np.ndarray, " n"]
) -> float | None:
    """Find how much of a side has to be blanked; None where its border does not tell the target.

    None, too, where what is left of the widths would still tell it.
    """

    def tells(left: Float[np.ndarray, " n"]) -> bool:
        feature = _cut_border(side, left)
        return feature is not None and bool(
            find_associations([feature], [target], examined.patients, examined.alpha)
        )

    narrow = widths[(widths > 0) & (widths <= WIDEST)]
    if not len(narrow) or not tells(widths):
        return None
    # A few films with more air beside them must not take as much from the others.
    width = float(np.quantile(narrow, COVERED, method="higher"))
    return None if tells(np.where(widths <= width, 0.0, widths)) else width


def _take_side(side: str, width: float) -> Box:
    """Give the box of a border of a measured width, which is a rounded one."""
    share = round(width + 0.5 / BORDER_STEPS, 3)
    edges = {"top": 0.0, "left": 0.0, "bottom": 1.0, "right": 1.0}
    inner = {
        "top": {"bottom": share},
        "bottom": {"top": round(1 - share, 3)},
        "left": {"right": share},
        "right": {"left": round(1 - share, 3)},
    }
    return Box(**{**edges, **inner[side]})


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
