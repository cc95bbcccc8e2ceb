"""How studies were made: site, date, licence, source, machine, format, size, rate; leaks out."""

import re
from collections.abc import Iterator, Sequence
from datetime import date, datetime
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from jaxtyping import Float

from medfuse.leaks.association import Association, Feature, cut_numbers, cut_values
from medfuse.leaks.checks.telling import balance_rows, find_telling
from medfuse.leaks.examined import Examined
from medfuse.leaks.report import LeakFinding, Remedy


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


KIND_WORDS: dict[str, frozenset[str]] = {
    "site": _words(
        "site hospital institution centre center clinic ward department unit facility location "
        "country city state region province district"
    ),
    "date": _words("date time day month year week timestamp datetime"),
    "licence": _words("licence license copyright rights"),
    "source": _words(
        "source origin provider url uri website link domain doi credit author publisher journal "
        "dataset collection database batch annotator reader operator technician language"
    ),
    "scanner": _words(
        "scanner manufacturer vendor device machine station software microphone mic phone handset "
        "recorder stethoscope filter detector kvp mas exposure protocol sequence view projection "
        "position"
    ),
    "format": _words(
        "format extension filetype mimetype codec encoding compression quality bits folder"
    ),
    "size": _words("width height rows columns cols size pixels resolution aspect"),
    "sampling-rate": _words("rate samplerate hz khz bandwidth bitrate channels"),
}
"""Words in a column's name that say what sort of acquisition it tells of, by kind."""

KINDS = tuple(KIND_WORDS)

BODY_WORDS = _words(
    "heart pulse respiratory breathing glomerular filtration sedimentation survival"
)
"""Words beside "rate" in a column that says how the patient is."""

DATE_FORMATS = ("%Y-%m-%d", "%Y%m%d", "%Y/%m/%d", "%d.%m.%Y", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M")

MOSTLY = 0.9
"""Share of a column's cells that must be dates or numbers for the column to be of these."""

SAFELY = 0.9
"""A low-pass lies this far below the least bandwidth."""


def check_acquisition(examined: Examined) -> list[LeakFinding]:
    """Test everything that says how a study was made, kind by kind."""
    findings = []
    for kind in KINDS:
        features = [*_of_columns(examined, kind), *_of_files(examined, kind)]
        remedy = _remedy_for_rate if kind == "sampling-rate" else balance_rows
        findings += find_telling(examined, kind, features, remedy)
    return findings


def kind_of_column(name: str, examined: Examined) -> str | None:
    """Say what kind of acquisition a column tells of by its name; None of any other column."""
    settings = examined.settings
    if name in settings.ignore or name in settings.clinical:
        return None
    words = set(split_name(name))
    for kind, known in KIND_WORDS.items():
        if words & known and not (kind == "sampling-rate" and words & BODY_WORDS):
            return kind
    return "source" if name in settings.acquisition else None


def split_name(name: str) -> list[str]:
    """Split a column's name into lower-case words: ``ctDate`` and ``ct_date`` alike."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    return re.findall(r"[a-z]+", spaced.lower())


def cut_column(name: str, cells: Sequence[str]) -> Iterator[Feature]:
    """Make features of a column by what its cells hold: dates, numbers, addresses or names."""
    filled = [cell for cell in cells if cell]
    if not filled:
        return
    made: Feature | None
    dates = parse_dates(cells)
    numbers = _parse_numbers(cells)
    if dates is not None:
        # A bound is one study's own day, which may say whose study it is, so the month is shown.
        made = cut_numbers(name, dates, lambda day: f"{date.fromordinal(int(day)):%Y-%m}")
    elif numbers is not None:
        made = cut_numbers(name, numbers)
    elif sum(cell.startswith(("http://", "https://")) for cell in filled) > len(filled) / 2:
        domains = [urlsplit(cell).netloc.removeprefix("www.") for cell in cells]
        made = cut_values(f"{name} (domain)", domains)
    else:
        made = cut_values(name, cells) if len(set(filled)) <= len(filled) / 2 else None
    if made is not None:
        yield made
    if (dates is not None or numbers is not None) and 0 < len(filled) < len(cells):
        there = cut_values(f"{name} given", ["yes" if cell else "no" for cell in cells])
        if there is not None:
            yield there


def parse_dates(cells: Sequence[str]) -> np.ndarray | None:
    """Read a column as days, NaN where a cell is none; None where it is no column of dates."""
    filled = sum(bool(cell) for cell in cells)
    for form in DATE_FORMATS:
        days = np.array([_parse_date(cell, form) for cell in cells])
        if filled and np.count_nonzero(~np.isnan(days)) >= MOSTLY * filled:
            return days
    return None


def _parse_date(cell: str, form: str) -> float:
    try:
        parsed = datetime.strptime(cell, form)
    except ValueError:
        return float("nan")
    return float(parsed.toordinal()) if 1900 <= parsed.year <= 2100 else float("nan")


def _parse_numbers(cells: Sequence[str]) -> np.ndarray | None:
    numbers = np.full(len(cells), np.nan)
    filled = 0
    for i, cell in enumerate(cells):
        if cell:
            filled += 1
            try:
                numbers[i] = float(cell)
            except ValueError:
                continue
    numbers[~np.isfinite(numbers)] = np.nan
    return numbers if filled and (~np.isnan(numbers)).sum() >= MOSTLY * filled else None


def _of_columns(examined: Examined, kind: str) -> Iterator[Feature]:
    """Make features of the table's columns of a kind."""
    heard_hz = _heard_hz(examined)
    for name, cells in examined.others.items():
        if kind_of_column(name, examined) != kind:
            continue
        rates = _parse_rates(name, cells) if kind == "sampling-rate" else None
        if rates is None:
            yield from cut_column(name, cells)
        elif (made := cut_numbers(name, np.minimum(rates, 2 * heard_hz))) is not None:
            yield made
    roles = {"site": [row.site for row in examined.rows], "date": [r.date for r in examined.rows]}
    if kind in roles:
        yield from cut_column(kind, roles[kind])


def _of_files(examined: Examined, kind: str) -> Iterator[Feature]:
    """Make features of what files and their headers say of a kind."""
    images = [facts.image for facts in examined.facts]
    voices = [facts.voice for facts in examined.facts]
    made: list[Feature | None] = []
    if kind == "scanner":
        for keyword in sorted({k for image in images if image for k in image.made}):
            values = [None if image is None else image.made.get(keyword, "") for image in images]
            made.append(cut_values(keyword, values))
    elif kind == "format":
        for key in sorted({k for image in images if image for k in image.stored}):
            values = [None if image is None else image.stored.get(key, "") for image in images]
            made.append(cut_values(f"image {key}", values))
        for key in ("format", "encoding", "channels"):
            values = [None if voice is None else voice.stored.get(key, "") for voice in voices]
            made.append(cut_values(f"recording {key}", values))
        for part in ("image", "voice"):
            paths = [_path(examined, i, part) for i in range(len(examined.rows))]
            made.append(
                cut_values(
                    f"{part} file's ending", [None if p is None else p.suffix for p in paths]
                )
            )
            made.append(
                cut_values(f"{part} file's name", [None if p is None else _stem(p) for p in paths])
            )
    elif kind == "size":
        for key in ("files", "frames", "rows", "columns", "aspect"):
            numbers = [np.nan if image is None else image.numbers.get(key, 0) for image in images]
            made.append(cut_numbers(f"image {key}", np.array(numbers, dtype=np.float64)))
    elif kind == "sampling-rate":
        values = [None if v is None else v.stored.get("sampling rate", "") for v in voices]
        made.append(cut_values("sampling rate", values))
        made.append(cut_numbers(BANDWIDTH, _bandwidths(examined)))
    yield from (feature for feature in made if feature is not None)


BANDWIDTH = "bandwidth of the recording"


def _bandwidths(examined: Examined) -> np.ndarray:
    voices = [facts.voice for facts in examined.facts]
    return np.array(
        [np.nan if v is None else v.numbers["bandwidth_hz"] for v in voices], dtype=np.float64
    )


def _path(examined: Examined, i: int, part: str) -> Path | None:
    row = examined.rows[i]
    return row.voice if part == "voice" else (row.images[0] if row.images else None)


def _stem(path: Path) -> str:
    """Give the letters that a file's name begins with, since many sets name files by source."""
    found = re.match(r"[A-Za-z]*", path.stem)
    return found[0].lower() if found else ""


def _heard_hz(examined: Examined) -> float:
    """Give the highest frequency that the model hears."""
    voice = examined.prepare.voice
    return min(voice.lowpass_hz, voice.high_hz)


def _parse_rates(name: str, cells: Sequence[str]) -> np.ndarray | None:
    """Read a column as sampling rates in Hz; None where it is no column of these."""
    numbers = _parse_numbers(cells)
    if numbers is None or "rate" not in split_name(name) or not np.nanmin(numbers) >= 1_000:
        return None
    return numbers


def _remedy_for_rate(examined: Examined, association: Association) -> Remedy | None:
    """Low-pass all recordings below the least bandwidth; balance what does not come from it."""
    lowest = find_lowpass(examined)
    if lowest is None:
        return balance_rows(examined, association)
    return Remedy(lowpass_hz=lowest)


def find_reach(examined: Examined) -> Float[np.ndarray, " n"]:
    """Find up to which frequency each recording reaches, by its sound and by columns of rates."""
    reach = _bandwidths(examined)
    for name, cells in examined.others.items():
        if kind_of_column(name, examined) == "sampling-rate":
            rates = _parse_rates(name, cells)
            if rates is not None:
                reach = np.fmin(reach, np.minimum(rates / 2, _heard_hz(examined)))
    return reach


def find_lowpass(examined: Examined) -> float | None:
    """Find a frequency up to which all recordings reach; None where they reach alike already."""
    reach = find_reach(examined)
    reach = reach[~np.isnan(reach)]
    if not len(reach):
        return None
    # A few near-silent recordings must not take everything from the others.
    lowest = float(np.quantile(reach, 0.02))
    if not 200 <= lowest <= 0.95 * reach.max():
        return None
    return float(np.floor(SAFELY * lowest / 100) * 100)
