"""Thumbnails, note texts and fingerprints in; the same image, note or recording twice, out.

Candidates come from a cheap comparison of all with all, and a second, finer look confirms them.
What one patient has twice is no leak as long as the patient stays in one split.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Float32, UInt8
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.optimize import minimize
from scipy.sparse import csr_matrix

from medfuse.data.image import resize
from medfuse.leaks.examined import Examined
from medfuse.leaks.image_facts import THUMBNAIL
from medfuse.leaks.report import LeakFinding, Remedy, pick_examples
from medfuse.leaks.voice_facts import compare_fingerprints

COARSE = 16
"""Side to which thumbnails are shrunk for the first look."""

MOMENTS = 24
"""Moments to which a recording is shrunk for it."""

LIKE = 0.5
"""Correlation from which a second look is taken."""

NEIGHBOURS = 3
"""Most candidates of one image or recording."""

SAME_IMAGE = 0.9
"""Correlation of the fine structure of two thumbnails, one of them cropped as the other is.

Of copies that are cropped, darker and compressed, all of 200 phantoms had 0.925 or more and 98 of
99 real films 0.897; other patients' films had at most 0.89 among 15,564 phantoms, which are much
alike, and 0.42 among 396 real ones."""

FLAT = 1 / 255
"""Fine structure up to which a pixel shows nothing."""

MOST_CROPPED = 5
"""Pixels by which one thumbnail may be a crop of another, so up to 8 % of a side."""

NEAR_GAP, LEAST_NEAR = 0.65, 0.65
"""Films whose best whole number of pixels brings them so near are looked at again: to a correlation
of 1 they lack at most this share of what is typical, and they have at least the second."""

STEP = 0.75
"""Pixels by which the search for the crop begins to look around."""

LOOKS = 2_000
"""Thumbnails that are looked at closely and held, of about 100 kB each."""

MANY = 20
"""Comparisons from which on there is a typical one."""

SAME_SOUND = 0.97
"""Correlation of two spectrograms."""

SAME_NOTE = 0.55
"""Share of the rare word runs of two notes, of the one with fewer, that they have in common."""

RUN = 4
"""Words in a run."""

RARE = 0.02
"""Runs in a larger share of patients are a template's, and say nothing."""

RARE_PATIENTS = 3
"""Runs of so many patients are rare in any cohort."""

FEWEST_RUNS = 8
"""Rare runs that two notes must have in common, at least."""

Pairs = list[tuple[int, int]]


def check_duplicates(examined: Examined) -> list[LeakFinding]:
    """Find what two patients, or two splits, have in common."""
    kinds = {
        "duplicate-image": ("an image", find_same_images),
        "duplicate-note": ("a note", find_same_notes),
        "duplicate-recording": ("a recording", find_same_recordings),
    }
    findings = []
    for kind, (what, find) in kinds.items():
        pairs = [pair for pair in find(examined) if not _one_patient(examined, *pair)]
        if pairs:
            findings.append(_report(examined, kind, what, pairs))
    return findings


def find_same_images(examined: Examined) -> Pairs:
    """Find pairs of studies of different patients with nearly the same frame."""
    owner, frames = [], []
    for i, facts in enumerate(examined.facts):
        for thumbnail in () if facts.image is None else facts.image.thumbnails:
            owner.append(i)
            frames.append(thumbnail)
    if len(frames) < 2:
        return []
    stack = np.stack(frames)
    side = THUMBNAIL // COARSE
    blocks = stack.reshape(-1, COARSE, side, COARSE, side)
    coarse = blocks.mean(axis=(2, 4), dtype=np.float32).reshape(len(stack), -1)

    @lru_cache(LOOKS)
    def look(k: int) -> _Look:
        return _look_closely(stack[k].astype(np.float32) / 255)

    compared = [
        (i, j, _compare(look(i), look(j)))
        for i, j in _candidates(coarse, np.array(owner), examined.patients)
    ]
    # Where all films are much alike, as in one protocol or of phantoms, fewer are looked at again.
    likes = [fit.correlation for *_, fit in compared]
    typical = float(np.median(likes)) if len(likes) > MANY else 0.0
    near = max(1 - (1 - typical) * NEAR_GAP, LEAST_NEAR)
    found = {
        (min(owner[i], owner[j]), max(owner[i], owner[j]))
        for i, j, fit in compared
        if fit.correlation >= near and _fit_crop(stack[i], stack[j], fit) >= SAME_IMAGE
    }
    return sorted(found)


@dataclass(frozen=True, slots=True)
class _Look:
    """A thumbnail's fine structure, to be laid over another's.

    What all chest films share is coarse, so a thumbnail is taken less its blurred self. What films
    of different patients share beside that, as a marker burned in at the same place or a frame, is
    strong and in few pixels, so no pixel weighs more than half of those that show anything do.

    Attributes:
        fine: Of the whole.
        norms: Of every window of it, for each number of pixels cropped.
        shrunk: Of the thumbnail shrunk by that number of pixels, with norm 1.
    """

    fine: Float[np.ndarray, "h w"]
    norms: tuple[np.ndarray, ...]
    shrunk: tuple[np.ndarray, ...]


def _look_closely(thumbnail: Float32[np.ndarray, "h w"]) -> _Look:
    fine, norms, shrunk = _take_fine(thumbnail), [], []
    for crop in range(MOST_CROPPED + 1):
        side = THUMBNAIL - crop
        small = _take_fine(resize(thumbnail, side, side) if crop else thumbnail)
        shrunk.append(small / (np.linalg.norm(small) or 1.0))
        windows = sliding_window_view(fine**2, (side, side))
        norms.append(np.sqrt(windows.sum(axis=(2, 3))) + 1e-9)
    return _Look(fine, tuple(norms), tuple(shrunk))


@dataclass(frozen=True, slots=True)
class _Fit:
    """How well one image fits into a part of the other, and into which.

    Attributes:
        correlation: Of their fine structure.
        first: Whether it is the first image of which a part is taken.
        crop: Pixels off its left, top, right and bottom.
    """

    correlation: float
    first: bool
    crop: tuple[float, float, float, float]


def _compare(one: _Look, other: _Look) -> _Fit:
    """Correlate two images as they are, and with either a part of the other."""
    still = float((one.fine * other.shrunk[0]).sum() / one.norms[0][0, 0])
    best = _Fit(still, first=True, crop=(0.0, 0.0, 0.0, 0.0))
    for first, whole, part in ((True, one, other), (False, other, one)):
        for crop in range(1, MOST_CROPPED + 1):
            small = part.shrunk[crop]
            windows = sliding_window_view(whole.fine, small.shape)
            fits = np.einsum("yxab,ab->yx", windows, small) / whole.norms[crop]
            top, left = map(int, np.unravel_index(fits.argmax(), fits.shape))
            if fits[top, left] > best.correlation:
                sides = (float(left), float(top), float(crop - left), float(crop - top))
                best = _Fit(float(fits[top, left]), first, sides)
    return best


def _fit_crop(
    one: UInt8[np.ndarray, "64 64"], other: UInt8[np.ndarray, "64 64"], fit: _Fit
) -> float:
    """Correlate two images at the best crop near the one found, to a part of a pixel."""
    whole, part = (one, other) if fit.first else (other, one)
    picture = Image.fromarray(whole.astype(np.float32) / 255)
    seen = _take_fine(part.astype(np.float32) / 255)

    def miss(crop: Float[np.ndarray, "4"]) -> float:
        left, top, right, bottom = np.clip(crop, 0, THUMBNAIL / 4)
        cropped = picture.resize(
            picture.size,
            Image.Resampling.BILINEAR,
            box=(left, top, picture.width - right, picture.height - bottom),
        )
        return -_correlate(_take_fine(np.asarray(cropped)), seen)

    start = np.array(fit.crop, float)
    corners = np.vstack([start, start + STEP * np.eye(len(start))])
    found = minimize(
        miss, start, method="Nelder-Mead", options={"initial_simplex": corners, "maxfev": 150}
    )
    return max(fit.correlation, -float(found.fun))


def _correlate(one: Float[np.ndarray, "h w"], other: Float[np.ndarray, "h w"]) -> float:
    norms = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float((one * other).sum()) / norms if norms else 0.0


def find_same_notes(examined: Examined) -> Pairs:
    """Find pairs of studies of different patients whose notes share most of their rare wording.

    The share is of the note with fewer rare runs: of an excerpt that is all of them, and each word
    that a copy leaves out makes some that the other has not.
    """
    notes = [facts.note for facts in examined.facts]
    runs = [set() if note is None else word_runs(note) for note in notes]
    patients_with: Counter[int] = Counter()
    seen: set[tuple[int, int]] = set()
    for own, patient in zip(runs, examined.patients.tolist(), strict=True):
        for run in own:
            if (run, patient) not in seen:
                seen.add((run, patient))
                patients_with[run] += 1
    most = max(RARE_PATIENTS, RARE * (int(examined.patients.max()) + 1))
    number: dict[int, int] = {}
    row, column = [], []
    for i, own in enumerate(runs):
        rare = [run for run in own if patients_with[run] <= most]
        if len(rare) >= FEWEST_RUNS:
            row += [i] * len(rare)
            column += [number.setdefault(run, len(number)) for run in rare]
    if not row:
        return []
    table = csr_matrix((np.ones(len(row)), (row, column)), (len(runs), len(number)))
    shared = (table @ table.T).tocoo()
    sizes = np.asarray(table.sum(axis=1)).ravel()
    fewer = np.minimum(sizes[shared.row], sizes[shared.col])
    alike = (shared.data >= np.maximum(SAME_NOTE * fewer, FEWEST_RUNS)) & (shared.row < shared.col)
    return sorted(zip(shared.row[alike].tolist(), shared.col[alike].tolist(), strict=True))


def word_runs(note: str) -> set[int]:
    """Hash every run of `RUN` words."""
    words = re.findall(r"\w+", note.lower())
    return {hash(tuple(words[i : i + RUN])) for i in range(len(words) - RUN + 1)}


def find_same_recordings(examined: Examined) -> Pairs:
    """Find pairs of studies of different patients with nearly the same sound."""
    owner = [i for i, f in enumerate(examined.facts) if f.voice is not None]
    prints = [f.voice.fingerprint for f in examined.facts if f.voice is not None]
    usable = [k for k, own in enumerate(prints) if len(own) >= MOMENTS]
    if len(usable) < 2:
        return []
    coarse = np.stack([_shrink(prints[k]).ravel() for k in usable])
    found = set()
    for a, b in _candidates(coarse, np.array([owner[k] for k in usable]), examined.patients):
        i, j = usable[a], usable[b]
        if compare_fingerprints(prints[i], prints[j], lag=3) >= SAME_SOUND:
            found.add((min(owner[i], owner[j]), max(owner[i], owner[j])))
    return sorted(found)


def _candidates(
    vectors: Float[np.ndarray, "k d"], owner: np.ndarray, patients: np.ndarray
) -> Pairs:
    """Give pairs of different patients that are alike at first sight, by blocks of rows."""
    unit = _to_unit(vectors - vectors.mean(axis=1, keepdims=True))
    unit = _to_unit(unit - unit.mean(axis=0)).astype(np.float32)  # what all share tells nothing
    who = patients[owner]
    found: set[tuple[int, int]] = set()
    for start in range(0, len(unit), 512):
        block = unit[start : start + 512] @ unit.T
        block[who[start : start + 512, None] == who[None, :]] = -1
        for k, row in enumerate(block):
            near = np.flatnonzero(row >= LIKE)
            for j in near[np.argsort(-row[near], kind="stable")][:NEIGHBOURS]:
                found.add((min(start + k, int(j)), max(start + k, int(j))))
    return sorted(found)


def _to_unit(vectors: Float[np.ndarray, "k d"]) -> Float[np.ndarray, "k d"]:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(norms > 0, norms, 1))


def _shrink(fingerprint: Float[np.ndarray, "t f"]) -> Float[np.ndarray, "m f"]:
    """Average a spectrogram over equal shares of its length."""
    edges = np.linspace(0, len(fingerprint), MOMENTS + 1).astype(int)
    return np.stack([fingerprint[a:b].mean(axis=0) for a, b in pairwise(edges)])


def _take_fine(image: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    fine = image - gaussian_filter(image, 1.0)
    strength = np.abs(fine)
    shown = strength[strength > FLAT]
    most = np.median(shown) if shown.size else FLAT
    cut = np.clip(fine, -most, most)
    return np.asarray(cut - cut.mean())


def _one_patient(examined: Examined, i: int, j: int) -> bool:
    return bool(examined.patients[i] == examined.patients[j])


def _report(examined: Examined, kind: str, what: str, pairs: Pairs) -> LeakFinding:
    """Fail where splits are crossed, or where splits are still to be made; else warn."""
    rows = examined.rows
    across = [(i, j) for i, j in pairs if rows[i].split is None or rows[i].split != rows[j].split]
    groups = join_pairs(pairs)
    studies = [study for group in groups for study in group]
    labels = [
        target.name
        for target in examined.targets
        if any(_differ(float(target.labels[i]), float(target.labels[j])) for i, j in pairs)
    ]
    where = "across splits" if across and rows[across[0][0]].split is not None else ""
    return LeakFinding(
        kind=kind,
        severity="fail" if across else "warn",
        feature=what,
        count=len(studies),
        examples=pick_examples(examined.name(studies)),
        message=f"{len(pairs)} pair(s) of different patients' studies share {what} {where}".rstrip()
        + "."
        + (f" Their labels differ in {', '.join(labels)}." if labels else ""),
        remedy=_remedy(examined, groups),
    )


def _remedy(examined: Examined, groups: Sequence[Sequence[int]]) -> Remedy:
    """Make one patient of each group; where files carry the patient, keep its first study alone."""
    if any(row.check_patient_id for row in examined.rows):
        return Remedy(drop=tuple(s for group in groups for s in examined.name(group[1:])))
    return Remedy(group=tuple(examined.name(group) for group in groups))


def _differ(one: float, other: float) -> bool:
    return not np.isnan(one) and not np.isnan(other) and one != other


def join_pairs(pairs: Pairs) -> list[list[int]]:
    """Join pairs that share a study into groups."""
    group: dict[int, int] = {}

    def root(i: int) -> int:
        while group.setdefault(i, i) != i:
            i = group[i]
        return i

    for i, j in pairs:
        a, b = sorted((root(i), root(j)))
        group[b] = a
    joined: dict[int, list[int]] = {}
    for i in sorted(group):
        joined.setdefault(root(i), []).append(i)
    return list(joined.values())
