"""A note's text in; where it says an age above 89, and what stands there instead, out.

The Safe Harbor rule (45 CFR 164.514(b)(2)(i)(C)) puts all ages above 89 into one category, and with
them whatever tells one, such as a year of birth.
"""

import re
from collections.abc import Iterator
from itertools import chain

from medfuse.deidentify.dates import DATE, MONTHS
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
# "years", "yrs", "y", "y.o.", "y/o", "y-o", "yo", "yof", "yM"; not the y of "y-axis".
_GAP = r"[\s\u2010-\u2013-]*"
_YEARS = (
    rf"{_GAP}(?:(?:years?|yrs?|jahre?)\b"
    r"|y[\s./\u2010-\u2013-]{0,2}o(?:ld\b|(?:[mf]|[bw][mf]|aa[mf])?\b)"
    r"|y[mf]\b|y(?![\w-])|y-?old\b|jährig)"
)
_ABOUT = (
    r"(?:now|also|already|about|around|approx(?:imately|\.)?|almost|nearly|over|currently|still"
    r"|only|just|both|aged?)"
)
_SINCE_BIRTH = (
    r"\b(?:aged?|alter)\b(?:\s*\((?:in\s+)?(?:years?|yrs?|y)\))?[\s:=(|~-]+"
    rf"(?:(?:is|was|of|{_ABOUT})\s+){{0,2}}"
)
_UNIT = (
    r"(?:%|°|percent|degrees?|m?g\b|mcg|kg|lbs?\b|ml\b|mm\b|cm\b|mmol|mmhg|bpm|ms\b|min(?:ute)?s?\b"
    r"|hours?|hrs?\b|days?|weeks?|wks?\b|months?|mos?\b|beats|on\s+(?:ra|room|\d)|/|x\b|miles?"
    r"|km\b|times)"
)
_NO_UNIT = rf"(?!\w|[.,:]\d|\s*{_UNIT})"

_AGE = re.compile(
    rf"""(?<![\d.,/])(?:(?P<number>{_NUMBER})|\b(?P<words>{_WORDS}))(?={_YEARS})
    |{_SINCE_BIRTH}(?:(?P<number_after>{_NUMBER})(?!\d|[.,/]\d|\s*(?:%|days?|weeks?|months?|mos?\b))
      |(?P<words_after>{_WORDS})\b)""",
    re.VERBOSE | re.IGNORECASE,
)
# "92M", "92/F", "92 F with": capitals only, as m is metres; M/L, M cells and F-waves are none.
_SEX = re.compile(
    rf"""(?<![\w.,/-])(?P<number>{_NUMBER})(?=
      [MF](?![\w/°-]|\s*(?:cells|units|fever|temp))
    | \s?/\s?[MF](?![\w/])
    | \s?[\u2640\u2642]
    | \s(?:WF|WM|AAF|AAM|BF|BM)\b
    | \s[MF]\s+(?:with|w/|who|presents|presenting|presented|admitted|here|c/o|p/w|s/p|h/o|hx|pmh
      |BIB|brought|sent|referred|found|fell|fall|lives|living|NKDA|(?:ex-?|non-?)?smoker)
    | \s(?:male|female|man|woman|lady|gentleman)\b(?!\s+(?:patients|subjects|controls|mice|rats))
    )""",
    re.VERBOSE,
)
# Where no unit is written: "turned 92", "she is 92.", "Male, 92," and "died at 92".
_KIN = (
    r"(?:(?:grand|step|god|great-){0,3}(?:mother|father)|mum|mom|dad|grand(?:ma|pa|mum|dad)|parents?"
    r"|husband|wife|spouse|partner|brother|sister|sibling|twin|son|daughter|aunt|uncle|cousin|mgm|mgf"
    r"|pgm|pgf)"
)
_SOMEONE = (
    rf"(?:{_KIN}|patient|pt|male|female|man|woman|lady|gentleman|carer|caregiver|widow(?:er)?|veteran"
    r"|neighbou?r|friend|retiree|pensioner|(?:retired|former|ex-)\s*[a-z]+(?:\s[a-z]+)?"
    r"|(?-i:M(?:rs?|s|iss)\.?\s+[A-Z][\w'\u2019-]+(?:\s[A-Z][\w'\u2019-]+)?))"
)
_WHO = rf"(?:{_SOMEONE}|he|she|they|who)"
_IS = r"(?:['\u2019]s|['\u2019]ll\s+be|\s+(?:is|was|are|were|will\s+be|would\s+be))"
# What is said of people only, so that a number before it is not a measured one.
_OF_PEOPLE = (
    r"(?:(?:frail|widowed|retired|independent|bed-?bound|house-?bound|wheelchair|demented|dnr|dnacpr"
    r"|still|(?:she|he|they|pt|the\s+patient)\b)"
    r"|lives?\b|living\s+(?:alone|with|in|independently)|in\s+(?:an?\s+)?(?:nursing|care)"
    r"|drives|walks|gardens|has\s+(?:dementia|copd|chf|cancer))"
)
_WITH_HISTORY = (
    r"with\s+(?:an?\s+)?(?:h/?o|hx|history|pmh\w*|known|multiple|dementia|copd|chf|htn)\b"
)
_END = (
    rf"(?=\s*(?:[;)]|[.,](?!\d)|and\b(?!\s+on)|but\b|{_WITH_HISTORY}|in\s+hospice|next\b"
    r"|this\s+(?:year|month)|today|soon|$))"
)
_OLD = rf"(?:{_NUMBER}|{_WORDS})"
_BARE = re.compile(
    rf"""(?<![\w.,/-])(?P<nth>(?:{_NUMBER})(?:st|nd|rd|th))(?=\s+birthday)
    |\bturn(?:ed|s|ing)\s+(?P<turned>{_OLD}){_NO_UNIT}
    |\b{_WHO}{_IS}\s+(?:{_ABOUT}\s+){{0,2}}(?P<being>{_OLD}){_END}
    |\b{_SOMEONE}\s*(?:[,:]\s*)?\(\s*(?:{_ABOUT}\s+)?(?P<bracketed>{_OLD})\s*(?=[),;])
    |\b{_SOMEONE}(?:,|\s+of)?\s+(?P<apart>{_OLD})(?=[;)]|[.,](?!\d)|$)
    |\b{_KIN}\s*[:,]?\s*(?P<kin>{_OLD}){_NO_UNIT}
    |\b{_KIN}\s+(?:d\.?|dec['\u2019]?d\.?|died|deceased|passed)\s*(?:@|at|,)?\s*
      (?P<late>{_OLD}){_NO_UNIT}
    |\b(?:died|dead|deceased|passed(?:\s+away)?|lived|alive|survived)\s+
      (?:at|to(?:\s+be)?|until|till|@)\s*(?P<ended>{_OLD}){_NO_UNIT}(?!\s*(?:am|pm)\b)
    |\(\s*[MF],?\s(?P<sexed>{_NUMBER})\s*\)""",
    re.VERBOSE | re.IGNORECASE,
)
# Weaker words, after which a number may be measured as well.
_WEAK = re.compile(
    rf"""(?:^|(?<=[.!?;]\s))(?-i:At)\s+(?P<at>{_OLD}),?\s+
      (?=he\b|she\b|they\b|(?:the\s+)?(?:patient|pt)\b)
    |\b(?:frail|independent|active|sharp|spry|robust|fit|elderly|old|healthy|well|intact|alone
      |driv(?:es|ing)|work(?:s|ing)|walk(?:s|ing))\s+at\s+(?P<doing>{_OLD}){_NO_UNIT}
    |\b(?:now|at|already|approaching|nearing|pushing|nearly|almost)\s+(?P<of_people>{_OLD})
      (?=,?\s+(?:and\s+|but\s+)?{_OF_PEOPLE})
    |(?<![\w.,/:-])(?P<years_later>{_NUMBER})(?=,?\s+(?:and|but)\s+(?:still\s+)?{_OF_PEOPLE})""",
    re.VERBOSE | re.IGNORECASE | re.MULTILINE,
)
_MEASURED = re.compile(
    r"(?<!['\u2019])\b(?:sats?|sa?o2|spo2|o2|pox|oximetry|saturat\w+|hr|pulse|p|rate|bpm|rr|[sd]?bp|map"
    r"|t|temp\w*|wt|weigh\w*|bmi|glucose|sugars?|bs|bg|fsbs|bm|hgb|hb|pl(?:t|atelet)s?|cr|creat\w*"
    r"|egfr|gfr|na|k|wbc|crp|esr|ck|bnp|inr|fio2|ef|fev1|fvc|scor\w+|level|ldl|hdl|chol\w*|qt\w*|pr"
    r"|qrs|room|bed)\b[^.;\n]{0,30}$",
    re.IGNORECASE,
)
_SEX_FIRST = re.compile(rf"(?<![\w/])[MF]\s?/\s?(?P<number>{_NUMBER})(?![\w/]|[.,]\d|\s*%)")
# At the beginning of a line in small letters, too: "92f fell", "Triage: 92 m w/ cough".
_SEX_AT_BEGINNING = re.compile(
    rf"^[ \t]*(?:[a-z]+(?:[ \t][a-z]+)?:[ \t]*|pt[ \t]+)?(?P<number>{_NUMBER})[ \t]?[mf]"
    r"(?=[,;.\s]|$)(?![ \t]+(?:walk\w*|away|from|long|high|wave|to\b))",
    re.IGNORECASE | re.MULTILINE,
)
# "Fever of 101F" is no woman.
_TEMPERATURE = re.compile(
    r"\b(?:t|tm|tc|tmax|temp\w*|fevers?|febrile|afebrile|hypertherm\w+|hypotherm\w+|pyrexi\w+)\b"
    r"[^.;\n]{0,30}$",
    re.IGNORECASE,
)
_REACH = 50
_CENTENARIAN = re.compile(r"\b(?:super)?centenarian\b", re.IGNORECASE)
_NINETIES = re.compile(
    r"\b(?:his|her|their)\s+"
    r"(?P<which>(?:(?:early|mid|late)[\s-]*)?(?:90['\u2019]?s|nineties)|1[0-2]0['\u2019]?s)(?!\w)",
    re.IGNORECASE,
)

_BIRTH = (
    r"(?:\bborn|\b(?:D[./]?O[./]?B|Y[./]?O[./]?B)\b\.?(?:\s+[a-z]+){0,3}?"
    r"|\b(?:date|year|yr)\s+of\s+birth(?:\s+[a-z]+){0,3}?"
    r"|\bbirth[\s-]?(?:date|day|year|yr)\b(?:\s+[a-z]+){0,3}?|(?<!at\s)\bbirth(?=\s*[:=])"
    r"|\bb\.|\bgeb\.|\bgeboren(?:\s+am)?|\bgeburts(?:datum|jahr)|\b(?:jahrgang|jg\.)"
    r"|(?<=[\w,;.(]\s)\*(?=\d)|(?<=\()\*(?=\d)|(?:,\s*|\(|\b[mf],?\s+|male,?\s+)b(?=\s\d{4}))"
    r"[\s:=(#|\u2013-]*"
    r"(?:(?:is|was|in|on|the|year|about|around|circa|ca?\.|~|im\s+jahr|am)[\s:]*){0,3}"
)
_BORN_IN = r"(?:19|20)\d\d|18[89]\d"
_NO_WEIGHT = r"(?!\d|[.,]\d|[-/]\d|\s*(?:m?g|gm|grams?|kg|ml|lbs?)\b)"
_BIRTH_YEAR = re.compile(
    rf"{_BIRTH}(?P<year>(?:{_BORN_IN})(?:[-/](?:0?[1-9]|1[0-2]))?|['\u2019]\d\d){_NO_WEIGHT}"
    # "born in Italy in 1931", and not "born at term, 1950 g"
    rf"|\bborn\s(?:(?!weigh|bw\b|wt\b)[^.;:\n\d]){{1,40}}?(?P<later>{_BORN_IN}){_NO_WEIGHT}"
    rf"|\b{_SOMEONE},?\s*\(\s*(?P<bracketed>{_BORN_IN})\s*\)",
    re.IGNORECASE,
)
# "DOB 12-Mar-31", of which the rules for dates would leave the year
_BIRTH_SHORT = re.compile(
    rf"{_BIRTH}(?P<short>(?:\d{{1,2}}[\s.-]+)?(?:{'|'.join(name[:3] for name in MONTHS)})[a-z]*"
    r"[\s.,-]+(?:\d{1,2},\s*)?['\u2019]?\d\d)(?!\d|,?\s*\d)",
    re.IGNORECASE,
)
_BIRTH_DATE = re.compile(rf"{_BIRTH}(?=\d|(?-i:[JFMASOND])[a-zä]{{2}})", re.IGNORECASE)


def find_ages(text: str) -> Iterator[tuple[int, int, str]]:
    """Find ages above 89: where each begins and ends, and what is to stand there."""
    for match in chain(_AGE.finditer(text), _BARE.finditer(text), _find_weak(text)):
        group = str(match.lastgroup)
        number = re.match(r"\d+", match[group])
        if number is None:
            too_old = match[group].lower() not in {"ninety", "neunzig"}
        else:
            too_old = OLDEST_AGE < int(number[0]) <= _OLDEST_HUMAN
        if too_old:
            yield *match.span(group), f"{OLDEST_AGE}th" if group == "nth" else str(OLDEST_AGE)
    for match in chain(
        _SEX.finditer(text), _SEX_FIRST.finditer(text), _SEX_AT_BEGINNING.finditer(text)
    ):
        at = match.start("number")
        too_old = OLDEST_AGE < int(match["number"]) <= _OLDEST_HUMAN
        if too_old and not _TEMPERATURE.search(text[max(0, at - _REACH) : at]):
            yield *match.span("number"), str(OLDEST_AGE)
    for match in _CENTENARIAN.finditer(text):
        yield *match.span(), "nonagenarian"
    for match in _NINETIES.finditer(text):
        yield *match.span("which"), "90s"


def _find_weak(text: str) -> Iterator[re.Match[str]]:
    for match in _WEAK.finditer(text):
        if not _MEASURED.search(text[max(0, match.start() - _REACH) : match.start()]):
            yield match


def find_births(text: str) -> Iterator[tuple[int, int]]:
    """Find years and dates of birth: where each begins and ends.

    Moved, a date of birth would still tell the age by any other moved date.
    """
    for match in _BIRTH_SHORT.finditer(text):
        yield match.span("short")
    for match in _BIRTH_DATE.finditer(text):
        date = DATE.match(text, match.end())
        if date is not None:
            yield date.span()
    for match in _BIRTH_YEAR.finditer(text):
        yield match.span(str(match.lastgroup))
