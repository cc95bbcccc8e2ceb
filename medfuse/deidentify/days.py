"""A note's text in; where a day stands in numbers without its year, such as 12/25, out."""

import re
from collections.abc import Iterator

_MONTHS_A_YEAR, _DAYS_A_MONTH = 12, 31
_LARGEST_SCORE = 12
"""What is marked out of more than a dozen is seldom written as a fraction without its unit."""

# "3/5" is a day only where one of these announces it; it may be a score anywhere else.
_EVENT = (
    r"admitted|discharged|d/c['\u2019]?d|dc['\u2019]?d|seen|evaluated|examined|reviewed|operated"
    r"|extubated|intubated|transferred|presented|started|stopped|underwent|diagnosed|died|expired"
    r"|scheduled|signed|dictated|drawn|collected|obtained|performed|last|next|onset|began|resolved"
    r"|fell|inserted|removed|placed|exposed|vaccinated|tested|swabbed|delivered|arrived|returned"
)
_STUDY = (
    r"CXR|CTA?|CTPA|HRCT|LDCT|MR[IA]|MRCP|PET|KUB|AXR|(?-i:USS?)|films?|x-?rays?|radiographs?|scans?|echo"
    r"|TTE|TEE|EKG|ECG|EEG|PFTs?|labs?|mammogram|ultrasound|doppler|duplex|angio(?:gram)?|imaging"
    r"|[ABV]BG|CBC|BMP|CMP|LFTs?|troponins?|COVID|PCR|swab"
)
_PROCEDURE = (
    r"CABG|PCI|TAV[RI]|[AM]VR|EGD|ERCP|TH[AR]|TK[AR]|ORIF|stent(?:ed|s)?|cath|pacemaker|PICC|foley"
    r"|appy|chole|\w{3,}(?:ectomy|ostomy|otomy|plasty|scopy|centesis)|ablation|transplant|bronch"
    r"|dialysis|surgery|vaccin\w+|shot|booster|jab|(?-i:OR)|ICU|ED|ER|UCC|SNF|rehab|clinic|home"
)
# Out of 13 or more, and out of a dozen at most.
_SCORES = (
    r"GCS|MMSE|mini-?mental|MoCA|SLUMS|AMTS|ACE-?(?:III|R)|scor(?:es?|ed|ing)|scale|PHQ|GAD|NIHSS|SOFA"
    r"|CIWA|COWS|Braden|Norton|Barthel|Tinetti|Bishop|Epworth|HAM-?D|MADRS|EPDS|IPSS|Waterlow"
    r"|MELD|APACHE|ratio|tit(?:er|re)s?|dilution"
)
_SMALL_SCORES = (
    r"AMT|Apgars?|Gleason|CURB|FLACC|VAS|recall|orientat\w+|grade|stage|motor|strength|power|pain"
    r"|reflex\w*|pulses"
)
_BODY_PART = r"(?:chest|thorax|head|brain|neck|abd\w*|pelvis|(?:[CLT]-?)?spine|knee|hip)"
_SURE = (
    rf"on|since|until|till|thru|dated?|as\s+of|due|effective|{_EVENT}|{_STUDY}|{_PROCEDURE}|visit"
    rf"|(?:last|next)\s+(?!(?:{_SCORES}|{_SMALL_SCORES})\b)[a-z]+"
    r"|(?:first|second|third|1st|2nd|3rd)\s+(?:dose|shot|jab|vaccine)"
    rf"|(?:{_STUDY})\s+(?:of\s+)?(?:the\s+)?{_BODY_PART}"
    r"|admission|discharge|appointment|appt|follow-?up|f/u|birthday|LMP|EDD|EDC|BM|addendum"
    r"|comparison|mon|tues?|wed|thurs?|fri|sat|sun"
    r"|(?:mon|tues|wednes|thurs|fri|satur|sun)day"
)
# After these it may be a score, as in "from 3/5 to 4/5", so that those that look like one stay.
_UNSURE = (
    r"from|before|after|by|between|of|exam|study|studies|biopsy|bx|cultures?|note|report|prior"
    r"|received|completed|positive|dose|pos|negative|neg|worse|better|cx|[bu]cx"
)
_SURELY = re.compile(
    rf"(?<!\w)(?:{_SURE})(?:\s+(?:of|on|from|dated|was|is))?[\s:,(@-]+$", re.IGNORECASE
)
_PERHAPS = re.compile(
    rf"(?<!\w)(?:{_UNSURE}|(?:s/p|status\s+post)\s+[a-z][\w-]*|(?:{_STUDY})\s+[a-z]+(?:/[a-z]+)?)"
    r"(?:\s+(?:of|on|from|dated))?[\s:,(-]+$",
    re.IGNORECASE,
)
# "no change c/w 3/5", but not "strength 4/5 compared to 3/5"
_COMPARED = re.compile(
    r"(?<!\w)(?:compared?\s+(?:to|with)|c/w|cf\.?|vs\.?|versus)[\s:(]+$",
    re.IGNORECASE,
)
_LINE_BEGINS = re.compile(r"(?:^|\n)[ \t]*(?:[-*\u2022][ \t]*)?$")
# "3/5 CXR", and at the beginning of a line "3/5 0730", "3/5: no fever" and "3/5 - no fever"
_BEFORE_STUDY = re.compile(
    rf"['\u2019]?s?[\s:]\s*(?:(?i:RN|MD|nursing|progress|clinic|ED|ICU|admission|discharge)\s+)?"
    rf"(?i:{_STUDY}|notes?|visit|admission|addendum)\b"
)
_BEFORE_LINE = re.compile(r"\s*(?:[:\u2013-]\s|@|\d{4}\b|\d{1,2}:\d\d|\d{1,2}\s?[ap]m\b)")
# "WBC 12.3 (3/5)"
_AFTER_VALUE = re.compile(
    r"\b[A-Za-z][\w-]*[\s:]+(?:of\s+|was\s+)?(?P<value>\d+(?:\.\d+)?)"
    r"\s?(?:%|[a-zA-Z]{1,5}(?:/[a-zA-Z]+)?)?\s\($"
)

_COUNTED = (
    r"(?:days?|weeks?|wks?|doses?|cycles?|courses?|sessions?|rounds?|sets?)(?!\s*\#?\d)"
    r"|months?|mos?|hours?|hrs?|h(?!\s?[&/])|hourly|years?|yrs?|mm|cm|mg|mcg|kg|g(?![\s-]*tube)|ml"
    r"|cc(?!\s*:)|L(?!\s+(?!of\b)[a-z])|mmHg|units?|NS|inch(?:es)?|taper|Fr|french|gauge|hpf"
    r"|tabs?|tablets?|pills?|caps?|capsules?|packs?|ppd|bottles?|specimens?|samples?|slides?"
    r"|fragments?|fractions?|nodes?|LNs?|lymph|cores?|biopsies|limbs?|extremities|quadrants?|lobes?"
    r"|leads?|segments?|joints?|ribs?|eyes|teeth|stools|symptoms|items|views?|occasions?|attempts?"
    r"|times|trials?|criteria|points?|correct|patients|strength|power|murmurs?|ago|apart"
    r"|of\s+(?!last\b|this\b)[a-z]+"
)
_DAY_AND_MONTH = re.compile(
    r"(?<![\w/%+<>=#.])(?<![a-z]-)(?<!\d[:,])(?P<a>\d{1,2})/(?P<b>\d{1,2})(?:-\d{1,2}(?![\d/]))?"
    rf"(?![\w/%+]|[.,]\d|[\s-]*(?:{_COUNTED})\b)",
    re.IGNORECASE,
)
_PAIN = re.compile(
    r"\s+(?:pain|normal|saline|systolic|diastolic|pulses?|reflexes|positive|full|strong)\b"
    r"|\s*[:-]\s+(?:(?:motor|muscle|pain|grip)\s+)?(?:strength|power|pain)\b",
    re.IGNORECASE,
)
_EYES = r"VA|visual|acuity|vision|snellen|O[DSU]|pin-?hole|unaided|[BU]CVA|sees"
_AIRWAY = (
    r"bi-?pap|bi-?level|NIV|NIPPV|AVAPS|PSV?|pressure\s+support|[IE]PAP|PEEP|PIP|CPAP|vent(?:ilator)?"
    r"|settings?|PC|SIMV"
)
_VALUES = r"H\s?[/&]\s?H|hgb\s?/\s?hct|BUN\s?/\s?\w+|AST\s?/\s?ALT|I\s?/\s?O"
# Where one of these stands, with no other fraction in between, it is a score or two values.
_UNTIL_HERE = r"(?:-?\d+)?\b(?:(?!\d/\d)[^.;\n]){0,30}$"
_SCORED_BEFORE = re.compile(rf"(?<!\w)(?:{_SCORES}|{_VALUES}){_UNTIL_HERE}", re.IGNORECASE)
_SMALL_BEFORE = re.compile(rf"(?<!\w)(?:{_SMALL_SCORES}){_UNTIL_HERE}", re.IGNORECASE)
_EYES_BEFORE = re.compile(rf"(?<!\w)(?:{_EYES}){_UNTIL_HERE}", re.IGNORECASE)
_AIRWAY_BEFORE = re.compile(rf"(?<!\w)(?:{_AIRWAY}){_UNTIL_HERE}", re.IGNORECASE)
_SCORED_AFTER = re.compile(
    rf"\s+(?:(?:on|in)\s+)?(?:the\s+|an?\s+)?(?:{_SCORES})\b(?![\s:]*\d)"
    rf"|\s+(?:(?:pos(?:itive)?|neg(?:ative)?|sentinel|involved|pelvic|axillary|regional|mediastinal"
    rf"|hilar|right|left)\s+){{1,3}}(?:{_COUNTED})\b",
    re.IGNORECASE,
)
_EYES_AFTER = re.compile(
    rf"\s+(?:(?:on|in)\s+)?(?:the\s+)?(?:{_EYES}|(?:right|left|both)\s+eyes?)\b", re.IGNORECASE
)
# The word just before, as in "image 12/25", "nodes (3/14)", "fraction 12/25" and "every 4/24"
_COUNTED_BEFORE = re.compile(
    r"(?<!\w)(?:images?|img|im|series|ser|se|slices?|pages?|frames?|fig(?:ure)?|cycle|fractions?|week"
    r"|day|session|part|step|item|question|number|no\.|CK|IL|HPV|trisomy|every|over|within|q|x|\u00d7"
    r"|nodes?|LNs?|lymph|cores?|biopsies|bottles|samples)"
    r"(?:\s+(?:were|was|are|is|in|involved|pos(?:itive)?|neg(?:ative)?|\+))*[\s:(#,-]*$",
    re.IGNORECASE,
)
_DRUG_BEFORE = re.compile(
    r"(?<!\w)(?:\w+(?:pril|sartan|statin|dipine|olol|thiazide|mibe)|HCTZ?|vytorin|lotrel|caduet|azor"
    r"|vaseretic|liptruzet|prinzide|zestoretic|exforge|lotensin|nexlizet|percocet|norco|suboxone)"
    r"[\s:(-]*$",
    re.IGNORECASE,
)
_DOSE_AFTER = re.compile(r"\s+(?:daily|nightly|qd|bid|tid|qhs|po)\b", re.IGNORECASE)
_FIXED = {(24, 7), (2, 2)}
"""Round the clock, and "secondary to"."""
_SNELLEN = {3, 6, 20}
"""Metres or feet that vision is tested from."""
_REACH = 60
_AND_DAY = re.compile(r"\s*(?:,|-|\u2013|&|and|or|to|through|thru|until)\s*", re.IGNORECASE)
_GERMAN_DAY = re.compile(
    r"\b(?:am|seit|vom|bis|ab)\s+"
    r"(?P<day>(?:0?[1-9]|[12]\d|3[01])\.\s?(?:0?[1-9]|1[0-2])\.)(?!\s?\d)",
    re.IGNORECASE,
)


def find_days(text: str) -> Iterator[tuple[int, int]]:
    """Find days of a month that are written in numbers and without a year.

    One with a day above 12 is seldom anything else and stays only beside what says so; any other
    goes only where something announces it.
    """
    end_of_last = -1
    for match in _DAY_AND_MONTH.finditer(text):
        a, b = int(match["a"]), int(match["b"])
        joined = end_of_last >= 0 and _AND_DAY.fullmatch(text, end_of_last, match.start())
        if _is_day(a, b) and (joined or _is_announced(text, match, a, b)):
            yield match.span()
            end_of_last = match.end()
    for match in _GERMAN_DAY.finditer(text):
        yield match.span("day")


def _is_announced(text: str, match: re.Match[str], a: int, b: int) -> bool:
    """Say whether a fraction's neighbours make a day of it."""
    before, end = text[max(0, match.start() - _REACH) : match.start()], match.end()
    small = max(a, b) <= _LARGEST_SCORE
    hurts = small and a <= b and _PAIN.match(text, end)
    if _SURELY.search(before) and not hurts:
        return True
    if _is_scored(text, match, a, b) or (small and _SMALL_BEFORE.search(before)):
        return False
    if not small or _BEFORE_STUDY.match(text, end):
        return True
    if _LINE_BEGINS.search(before) and _BEFORE_LINE.match(text, end):
        return not hurts
    if _COMPARED.search(before):
        return not re.search(rf"/{b}\b[^.;\n]*$", before)
    value = _AFTER_VALUE.search(before)
    if value and text.startswith(")", end):
        return float(value["value"]) != a
    return a > b and _PERHAPS.search(before) is not None


def _is_scored(text: str, match: re.Match[str], a: int, b: int) -> bool:
    """Say whether a fraction's neighbours make a score, a count or two values of it."""
    before, end = text[max(0, match.start() - _REACH) : match.start()], match.end()
    return bool(
        (a, b) in _FIXED
        or _SCORED_BEFORE.search(before)
        or _SCORED_AFTER.match(text, end)
        or _COUNTED_BEFORE.search(before)
        or (a in _SNELLEN and (_EYES_BEFORE.search(before) or _EYES_AFTER.match(text, end)))
        or (a > b and _AIRWAY_BEFORE.search(before))
        or (a % 5 == b % 5 == 0 and (_DRUG_BEFORE.search(before) or _DOSE_AFTER.match(text, end)))
    )


def _is_day(a: int, b: int) -> bool:
    small, large = sorted((a, b))
    return 1 <= small <= _MONTHS_A_YEAR and large <= _DAYS_A_MONTH
