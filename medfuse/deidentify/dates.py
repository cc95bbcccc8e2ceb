"""Dates in a note: where they are, and how one reads that is moved by some days."""

import re
from datetime import date, timedelta

MONTHS = (
    *("january", "february", "march", "april", "may", "june", "july", "august", "september"),
    *("october", "november", "december"),
)
_OTHER_MONTHS = {
    **{"januar": 1, "jänner": 1, "februar": 2, "märz": 3, "mai": 5, "juni": 6, "juli": 7},
    **{"oktober": 10, "dezember": 12, "sept": 9, "okt": 10, "dez": 12, "mrz": 3},
}
_NUMBERS = {
    **{name: i for i, name in enumerate(MONTHS, 1)},
    **{name[:3]: i for i, name in enumerate(MONTHS, 1)},
    **_OTHER_MONTHS,
}
# Capitals tell a month from "may" and "march"; longer names go first.
_MONTH = "|".join(
    form
    for name in sorted(_NUMBERS, key=len, reverse=True)
    for form in (name.capitalize(), name.upper())
)
_DAY = r"(?P<{0}>0?[1-9]|[12]\d|3[01])(?:st|nd|rd|th)?"
_YEAR = r"(?P<{0}>(?:19|20)\d\d)"

# What is written in words or with the year first has one meaning; the rest may have two.
DATE = re.compile(
    rf"""(?<!\w)(?<!\d[.,])(?:
      (?P<iy>(?:19|20)\d\d)(?P<isep>[-/.])(?P<im>0?[1-9]|1[0-2])(?P=isep)(?P<id>0?[1-9]|[12]\d|3[01])
    | (?P<cy>(?:19|20)\d\d)(?P<cm>0[1-9]|1[0-2])(?P<cd>0[1-9]|[12]\d|3[01])
    | (?P<na>\d\d?)(?P<nsep>[/.-])(?P<nb>\d\d?)(?P=nsep)(?P<ny>(?:19|20)\d\d|\d\d(?!\d))
    | {_DAY.format("wd")}(?P<wgap>\.?\s*(?:of\s+)?|-)(?P<wm>{_MONTH})\b
      (?P<wend>[.,]?\s*|-){_YEAR.format("wy")}
    | (?P<mm>{_MONTH})\b(?P<mgap>\.?\s*){_DAY.format("md")}(?P<mend>,?\s+){_YEAR.format("my")}
    | (?:{_DAY.format("xd")}\.?\s+(?:of\s+)?)(?:{_MONTH})\b(?!\s*\d)
    | (?:{_MONTH})\b\.?\s+(?:the\s+)?{_DAY.format("yd")}(?!\d|\.\d|\s*(?:%|mm|cm|mg|ml|kg))
    | (?:{_MONTH})\b,?\s+{_YEAR.format("zy")}
    | (?:0?[1-9]|1[0-2])/{_YEAR.format("qy")}
    | (?<=\b[Ii]n\s)(?:19|20)\d\d(?!\d) | (?<=\b[Ss]ince\s)(?:19|20)\d\d(?!\d)
    | (?<=\b[Ff]rom\s)(?:19|20)\d\d(?!\d) | (?<=\b[Ii]m\sJahr\s)(?:19|20)\d\d(?!\d)
    )(?!\d|[.,]\d)""",
    re.VERBOSE,
)
"""A date, or a part of one that is more than a month's name."""


def move_date(match: re.Match[str], days: int, day_first: bool | None) -> str | None:
    """Write a date moved by some days as it was written; None where that can't be said.

    A date without its day, month or year is not moved, nor is one whose day and month may be
    either, nor one that is none.
    """
    g = match.groupdict()
    if g["iy"]:
        day = _moved(g["iy"], g["im"], g["id"], days)
        return None if day is None else f"{day:%Y}{g['isep']}{day:%m}{g['isep']}{day:%d}"
    if g["cy"]:
        day = _moved(g["cy"], g["cm"], g["cd"], days)
        return None if day is None else f"{day:%Y%m%d}"
    if g["na"]:
        return _move_numeric(g, days, day_first)
    if g["wm"]:
        day = _moved(g["wy"], str(_NUMBERS[g["wm"].lower()]), g["wd"], days)
        return (
            None
            if day is None
            else f"{day.day}{g['wgap']}{_month(day, g['wm'])}{g['wend']}{day.year}"
        )
    if g["mm"]:
        day = _moved(g["my"], str(_NUMBERS[g["mm"].lower()]), g["md"], days)
        return (
            None
            if day is None
            else f"{_month(day, g['mm'])}{g['mgap']}{day.day}{g['mend']}{day.year}"
        )
    return None


def _move_numeric(g: dict[str, str | None], days: int, day_first: bool | None) -> str | None:
    a, b, year, sep = str(g["na"]), str(g["nb"]), str(g["ny"]), str(g["nsep"])
    if len(year) < 4:
        return None
    if sep == ".":  # so written where the day goes first
        day_first = True
    if int(a) > 12:
        day_first = True
    elif int(b) > 12:
        day_first = False
    if day_first is None:
        return None
    day = _moved(year, b if day_first else a, a if day_first else b, days)
    order = ("%d", "%m", "%Y") if day_first else ("%m", "%d", "%Y")
    return None if day is None else sep.join(day.strftime(part) for part in order)


def _moved(year: str | None, month: str | None, day: str | None, days: int) -> date | None:
    try:
        return date(int(year or 0), int(month or 0), int(day or 0)) + timedelta(days)
    except (ValueError, OverflowError):
        return None


def _month(day: date, like: str) -> str:
    """Name a month in English, as long and as large as another is written."""
    name = MONTHS[day.month - 1]
    name = name[:3] if len(like) <= 4 and like.lower() not in MONTHS else name
    return name.upper() if like.isupper() else name.capitalize()
