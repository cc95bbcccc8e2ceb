"""A note's text in; where it says an age above 89, and what stands there instead, out.

The Safe Harbor rule (45 CFR 164.514(b)(2)(i)(C)) puts all ages above 89 into one category, and with
them whatever tells one, such as a year of birth.
"""

import re
from collections.abc import Iterator
from itertools import chain

from medfuse.deidentify.dates import DATE
from medfuse.deidentify.settings import OLDEST_AGE

_OLDEST_HUMAN = 125

_NUMBER = r"9\d|1[0-2]\d"
_ONES = "one|two|three|four|five|six|seven|eight|nine"
_TEENS = "ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen|eighteen|nineteen|twenty"
_WORDS = (
    rf"ninety(?:[\s-]+(?:{_ONES}))?"
    rf"|(?:a|one)[\s-]+hundred(?:[\s-]+(?:and[\s-]+)?(?:twenty[\s-]+(?:{_ONES})|{_TEENS}|{_ONES}))?"
    r"|[a-zäöü]*neunzig|(?:ein)?hundert[a-zäöü]*"
)
# "years", "yrs", "y", "y.o.", "y/o", "y o", "yo", "yof"; not the y of "y-axis".
_YEARS = (
    r"[\s-]*(?:(?:years?|yrs?|jahre?)\b|y[\s./]{0,2}o(?:ld\b|[mf]?\b)|y(?![\w-])|y-?old\b|jährig)"
)
_SINCE_BIRTH = (
    r"\b(?:aged?|alter)\b(?:\s*\((?:in\s+)?(?:years?|yrs?|y)\))?[\s:=]+(?:(?:is|was|of)\s+)?"
)

_AGE = re.compile(
    rf"""(?<![\d.,/])(?:(?P<number>{_NUMBER})|\b(?P<words>{_WORDS}))(?={_YEARS})
    |{_SINCE_BIRTH}(?:(?P<number_after>{_NUMBER})(?!\d|[.,/]\d|\s*%)|(?P<words_after>{_WORDS})\b)""",
    re.VERBOSE | re.IGNORECASE,
)
# "92M", "92/F", "92 F with": capitals only, as m is metres; M/L, M cells and F-waves are none.
_SEX = re.compile(
    rf"""(?<![\w.,/-])(?P<number>{_NUMBER})(?=
      [MF](?![\w/°-]|\s*(?:cells|units|fever|temp))
    | \s?/\s?[MF](?![\w/])
    | \s(?:WF|WM|AAF|AAM|BF)\b
    | \s[MF]\s+(?:with|w/|who|presents|presenting|presented|admitted|here|c/o|p/w|s/p|h/o|hx|pmh)
    )""",
    re.VERBOSE,
)
# Where no unit is written: "turned 92", "she is 92.", "Male, 92," and "died at 92".
_WHO = r"(?:patient|pt|he|she|who|mother|father|husband|wife|brother|sister|aunt|uncle)"
_BARE = re.compile(
    rf"""(?<![\w.,/-])(?P<nth>(?:{_NUMBER})(?:st|nd|rd|th))(?=\s+birthday)
    |\bturn(?:ed|s|ing)\s+(?P<turned>{_NUMBER})(?!\w|[.,/]\d|\s*(?:%|°|degrees))
    |\b{_WHO}\s+(?:is|was)\s+(?:now\s+)?(?P<being>{_NUMBER})(?=\s*(?:[;)]|[.,](?!\d)|and\b|but\b|$))
    |\b(?:male|female|man|woman|lady|gentleman),?\s+\(?(?P<apart>{_NUMBER})(?=[;)]|[.,](?!\d))
    |\b(?:died|dead|deceased|passed(?:\s+away)?|lived|alive)\s+(?:at|to|until)\s+
      (?P<ended>{_NUMBER})(?!\w|[.,/:]\d|\s*(?:%|am\b|pm\b))""",
    re.VERBOSE | re.IGNORECASE,
)
_SEX_FIRST = re.compile(rf"(?<![\w/])[MF]\s?/\s?(?P<number>{_NUMBER})(?![\w/]|[.,]\d|\s*%)")
# "Fever of 101F" is no woman.
_TEMPERATURE = re.compile(
    r"\b(?:t|tm|tc|tmax|temp\w*|fevers?|febrile|afebrile|hypertherm\w+|hypotherm\w+|pyrexi\w+)\b"
    r"[^.;\n]{0,30}$",
    re.IGNORECASE,
)
_TEMPERATURE_REACH = 50
_CENTENARIAN = re.compile(r"\b(?:super)?centenarian\b", re.IGNORECASE)
_NINETIES = re.compile(
    r"\b(?:his|her|their)\s+"
    r"(?P<which>(?:(?:early|mid|late)[\s-]*)?(?:90['\u2019]?s|nineties)|1[0-2]0['\u2019]?s)(?!\w)",
    re.IGNORECASE,
)

_BIRTH = (
    r"(?:\bborn|\bD\.?O\.?B\b\.?|\bY\.?O\.?B\b\.?|\bdate\s+of\s+birth|\byear\s+of\s+birth"
    r"|\bbirth[\s-]?(?:date|day|year)|\bb\.|\bgeb\.|\bgeboren(?:\s+am)?|\bgeburts(?:datum|jahr))"
    r"[\s:=(]*(?:(?:is|was|in|on|the|year|about|around|circa|ca?\.|~|im\s+jahr|am)[\s:]*){0,3}"
)
_BIRTH_YEAR = re.compile(
    rf"{_BIRTH}(?P<year>(?:18|19|20)\d\d|['\u2019]\d\d)"
    r"(?!\d|[.,]\d|[-/]\d|\s*(?:m?g|gm|grams?|kg|ml|lbs?)\b)",
    re.IGNORECASE,
)
_BIRTH_DATE = re.compile(_BIRTH, re.IGNORECASE)


def find_ages(text: str) -> Iterator[tuple[int, int, str]]:
    """Find ages above 89: where each begins and ends, and what is to stand there."""
    for match in chain(_AGE.finditer(text), _BARE.finditer(text)):
        group = str(match.lastgroup)
        number = re.match(r"\d+", match[group])
        if number is None:
            too_old = match[group].lower() not in {"ninety", "neunzig"}
        else:
            too_old = OLDEST_AGE < int(number[0]) <= _OLDEST_HUMAN
        if too_old:
            yield *match.span(group), f"{OLDEST_AGE}th" if group == "nth" else str(OLDEST_AGE)
    for match in chain(_SEX.finditer(text), _SEX_FIRST.finditer(text)):
        before = text[max(0, match.start() - _TEMPERATURE_REACH) : match.start()]
        too_old = OLDEST_AGE < int(match["number"]) <= _OLDEST_HUMAN
        if too_old and not _TEMPERATURE.search(before):
            yield *match.span("number"), str(OLDEST_AGE)
    for match in _CENTENARIAN.finditer(text):
        yield *match.span(), "nonagenarian"
    for match in _NINETIES.finditer(text):
        yield *match.span("which"), "90s"


def find_births(text: str) -> Iterator[tuple[int, int]]:
    """Find years and dates of birth: where each begins and ends.

    Moved, a date of birth would still tell the age by any other moved date.
    """
    for match in _BIRTH_DATE.finditer(text):
        date = DATE.match(text, match.end())
        if date is not None:
            yield date.span()
    for match in _BIRTH_YEAR.finditer(text):
        yield match.span("year")
