"""A note's text in; the same without names, dates, numbers and places, and what was replaced, out.

Rules and lists, no learned model: what they miss and what they take for a name is measured in
docs/deidentify.md.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, dropwhile, takewhile

from medfuse.deidentify.ages import find_ages, find_births
from medfuse.deidentify.dates import DATE, move_date
from medfuse.deidentify.days import find_days
from medfuse.deidentify.lists import (
    LARGE_CITY,
    after_loose_title,
    after_title,
    also_names,
    cities,
    common_words,
    first_names,
    plain_words,
    surnames,
)
from medfuse.deidentify.pseudonyms import Person
from medfuse.deidentify.settings import DeidentifySettings

_MIN_LOUD_LETTERS = 4
_MISS_REACH = 20


@dataclass(frozen=True, slots=True)
class Replaced:
    """A part of a text that was replaced.

    Attributes:
        start: First character in the text as it came.
        end: One past the last.
        kind: ``name``, ``date``, ``age``, ``id``, ``phone``, ``email``, ``url`` or ``place``.
        by: What stands there now.
    """

    start: int
    end: int
    kind: str
    by: str = field(repr=False)


_CAP = r"[A-ZÀ-ÖØ-ÞĀ-Ž][a-zß-öø-ÿĀ-ž]+(?:['’-][A-ZÀ-ÖØ-ÞĀ-Ž]?[a-zß-öø-ÿĀ-ž]+)*"
_MC = r"(?:(?:Mc|Mac|O['’]|D['’]|De|Van|Von)[A-ZÀ-ÖØ-ÞĀ-Ž][a-zß-öø-ÿĀ-ž]+)"
_WORD = rf"(?:{_MC}|{_CAP})"
_CAPITALS = r"[A-ZÀ-ÖØ-ÞĀ-Ž][A-ZÀ-ÖØ-ÞĀ-Ž'’-]+"
_PARTICLE = r"(?:(?:van|von|de|del|der|den|la|le|da|di|bin|al)\s+)"
_NAME = (
    rf"(?:(?:[A-Z]\.?\s+)?{_PARTICLE}*{_WORD}"
    rf"(?:[ \t]+(?:[A-Z]\.?[ \t]+)?{_PARTICLE}*{_WORD}){{0,2}})"
)
_LOUD_SURNAME = (
    rf"(?:(?:VAN|VON|DE|DER|DEN|DEL|DELLA|LA|LE|DI|DA|AL|EL|BIN)[ \t]+)*(?:Mc|Mac)?{_CAPITALS}"
)
_LOUD = rf"(?:{_CAPITALS}(?:,?[ \t]+{_CAPITALS}){{0,3}})"

_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_URL = re.compile(r"(?:https?://|ftp://|www\.)[^\s<>\"')\]]+", re.IGNORECASE)
_ID_CUE = re.compile(
    r"""\b(?:MRN|M\.R\.N\.|medical\s+record(?:\s+number)?|hospital\s+(?:number|no\.?)|patient\s*id
    |patient\s+(?:number|no\.?)|pid|accession(?:\s+(?:number|no\.?))?|acc(?:ession)?\s*\#|case\s*(?:id|no\.?|\#)
    |ssn|social\s+security(?:\s+number)?|nhs(?:\s+(?:number|no\.?))?|insurance(?:\s+(?:number|no\.?|id))?
    |account(?:\s+(?:number|no\.?))?|licen[cs]e(?:\s+(?:number|no\.?))?|serial(?:\s+(?:number|no\.?))?
    |device\s+id|specimen(?:\s+(?:number|no\.?))?|fallnummer|patientennummer|versichertennummer)
    [\s:#.=-]*(?P<value>(?=[\w-]*\d)[A-Za-z0-9][\w-]{2,}(?:\s\d{3,})*)""",
    re.VERBOSE | re.IGNORECASE,
)
_SSN = re.compile(r"(?<![\d-])\d{3}-\d{2}-\d{4}(?![\d-])")
_PHONE = re.compile(
    r"""(?<![\w.,/-])(?:
      (?:\+|00)\d{1,3}(?:[ .\-/]?\(?\d{1,5}\)?){2,5}\d
    | \(\d{2,5}\)[ .\-/]?\d{3,4}(?:[ .\-]?\d{3,4})+
    | \d{3}[ .\-]\d{3}[ .\-]\d{4} | 0\d{2,4}[ \-/]\d{3,4}(?:[ \-]?\d{2,4})+
    )(?![\w-])""",
    re.VERBOSE,
)
_PHONE_CUE = re.compile(
    r"\b(?:tel|telephone|phone|fax|pager|beeper|mobile|ext|extension|telefon)\b[\s.:#]*"
    r"(?P<value>[\d(+][\d\s()./-]{2,}\d)",
    re.IGNORECASE,
)
_LONG = re.compile(r"(?<![\w.,-])\d(?:[ -]?\d){6,}(?![\w]|[.,]\d)")
_MIXED = re.compile(r"(?<![\w-])(?=[A-Z]*\d)[A-Z]{1,4}-?\d{5,}(?:-\d+)*(?!\w)")
_UID = re.compile(r"(?<![\w.])[0-2](?:\.\d+){5,}(?![\w.]*\d)")
_IP = re.compile(r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d.])")

_TITLED = re.compile(
    rf"\b(?:Drs?\.?|Doctor|Prof\.?|Professor|Mr\.?|Mrs\.?|Ms\.?|Miss|Herrn?|Frau|Nurse|Sister|Sir|"
    rf"Mme\.?|M\.)[ \t]+(?:(?:Dr|Prof|med)\.?[ \t]+)*(?P<value>{_NAME}|{_CAPITALS})"
)
_TITLED_LOUD = re.compile(rf"\b(?:DR|MR|MRS|PROF|MISS)\.?[ \t]+(?P<value>{_LOUD})")
# In small letters "mr" is magnetic resonance as well, "ms" a disease or a thousandth of a second,
# "miss" is done to doses, "np" a swab and "sr" a rhythm.
_SMALL = r"[a-zß-öø-ÿĀ-ž]{2,}(?:['’-][a-zß-öø-ÿĀ-ž]{2,})*|[od]['’][a-zß-öø-ÿ]{2,}"
_SMALL_PARTICLE = (
    r"(?:(?:van|von|de|del|della|der|den|dos|das|du|la|le|da|di|bin|ben|al|el|ter|ten|st\.?|mac|mc)"
    r"[ \t]+)"
)
_TITLED_SMALL = re.compile(
    r"(?<!\d)(?<!\d[ \t])\b"
    r"(?:(?P<sure>[Dd]rs?|[Mm]rs|[Pp]rof|[Mm]ister|[Mm]r(?=\.)|[Mm]s(?=\.))"
    r"|[Mm]r|[Mm]s|[Dd]octor|[Pp]rofessor|(?P<miss>[Mm]iss)|[Nn]urse|[Mm]atron|[Mm]idwife"
    r"|(?P<short>rn|RN|s/?n|S/?N|sr|np|NP|lpn|LPN|sister))(?:\.[ \t]*|[ \t]+)"
    rf"(?P<value>{_SMALL_PARTICLE}*(?P<last>{_SMALL}))(?:(?=[ \t]+(?P<more>{_SMALL})))?"
)
# What stands after a person and makes a name of a word that no list has.
_DOES = re.compile(
    r"['’]s\b|[ \t]+(?:is|was|has|had|who|will|would|does|did|denies|denied|reports|reported|states"
    r"|stated|says|said|complains|complained|c/o|coughs|came|comes|called|feels|felt|slept|ate|lives"
    r"|wants|asks|asked|agrees|agreed|presents|presented|returns|returned|attended|aware|informed"
    r"|notified|paged|updated|consulted|here|seen|reviewed|today|this[ \t]+(?:am|pm|morning)|by|for"
    r"|at|on|in|to|and|from|with|re)\b|[ \t]*(?:[.,;:)?!/]|$)",
    re.IGNORECASE | re.MULTILINE,
)
_NO_NAME = re.compile(
    r".*(?:ed|ing|ly|tion|sion|ment|ness|ity|ical|al|(?<!v)ic|ous|ar|gram|graphy|scopy|metry|oid|itis|osis)"
)
_TO_MISS = re.compile(
    r"(?:\b(?:not|never|may|might|must|will|would|could|can|should|did|does|do|i|we|you|they|often"
    r"|always|sometimes|if|near|(?<!spoke )(?<!talked )(?<!spoken )to)|n['’]t)[ \t]+$",
    re.IGNORECASE,
)
_NAME_CUE = re.compile(
    rf"""\b(?i:(?:patient(?:'s)?\s+)?name\s*:|patient\s*:|pt\s*:|referr(?:ed|al)\s+(?:by|from)\s*:?
    |referring\s+(?:physician|doctor|md|provider)\s*:?|attending(?:\s+physician)?\s*:|resident\s*:
    |radiologist\s*:|consultant\s*:|(?:electronically\s+)?signed(?:\s+by)?\s*:?|dictated\s+by\s*:?
    |reported\s+by\s*:?|transcribed\s+by\s*:?|reviewed\s+by\s*:?|verified\s+by\s*:?|seen\s+by\s*:?
    |discussed\s+with\s*:?|communicated\s+(?:to|with)\s*:?|telephoned\s+to\s*:?|notified\s*:?
    |next\s+of\s+kin\s*:?|mother\s*:|father\s*:|wife\s*:|husband\s*:|daughter\s*:|son\s*:
    |my\s+name\s+is|this\s+is|überwiesen\s+von|unterschrift\s*:?)[ \t]*
    (?!(?i:dr|prof|mr|mrs|ms|doctor|professor)\b)(?P<value>{_NAME}(?:,[ \t]*{_NAME})?|{_LOUD})""",
    re.VERBOSE,
)
_DEAR = re.compile(
    rf"\bDear[ \t]+(?!(?:Sirs?|Madam|Colleagues?|Doctors?|Dr|Mr|Mrs|Ms|All|Team|Parents?)\b)"
    rf"(?P<value>{_NAME})"
)
_CREDENTIAL = re.compile(
    rf"\b(?P<value>{_NAME}),?[ \t]+"
    r"(?:M\.?D\.?|D\.?O\.?|Ph\.?D\.?|R\.?N\.?|FRCR|MBBS|MBChB|FACR|NP|PA-C)(?![\w])"
)
_LAST_FIRST = re.compile(
    rf"\b(?P<value>(?P<last>{_WORD}|{_CAPITALS}),[ \t]*(?P<first>{_WORD}|{_CAPITALS}))\b"
)
_FIRST_LAST = re.compile(
    rf"\b(?P<value>(?P<first>{_WORD})[ \t]+(?:[A-Z]\.?[ \t]+)?{_PARTICLE}*"
    rf"(?P<last>{_WORD}|{_LOUD_SURNAME}))\b"
)
_LOUD_FIRST = re.compile(rf"\b(?P<value>(?P<last>{_LOUD_SURNAME})[ \t]+(?P<first>{_WORD}))\b")
_MORE_NAME = re.compile(rf"[ \t]+(?P<last>{_WORD}|{_LOUD_SURNAME})\b")
_INITIALLED = re.compile(rf"\b(?P<value>(?:[A-Z]\.[ \t]?){{1,3}}(?P<last>{_WORD}))\b")

_CAP_PART = r"[A-ZÀ-ÖØ-ÞĀ-Ž][a-zß-öø-ÿĀ-ž]"
_ALONE = re.compile(rf"\b(?:{_CAP_PART}{{3,}}|{_CAP_PART}+(?:-{_CAP_PART}+)+)\b(?!-)")
_EPONYM = re.compile(
    r"(?:['’]s)?[ \t-]+(?:disease|syndrome|sign|lines?|catheter|lymphoma|o?esophagus|fracture|test"
    r"|palsy|tumou?r|drain|tube|thyroiditis|nodes?|complex|score|criteria|classification|position"
    r"|virus|purpura|respiration|procedure|operation|hernia|phenomenon|triad|contracture|ulcer|maneuver)\b",
    re.IGNORECASE,
)

_HOSPITAL = re.compile(
    rf"""\b(?P<value>
    (?:(?:St\.?|Saint|Mount|Mt\.?|{_CAP}|[A-Z]{{2,5}})['’]?s?[ \t]+(?:(?:of|and|the)[ \t]+)*){{1,5}}
    (?:Hospitals?|Clinic|Medical[ \t]+Cent(?:er|re)|Health[ \t]+(?:Cent(?:er|re)|System)|Infirmary
    |Hospice|Nursing[ \t]+Home|Klinik|Klinikum|Krankenhaus|University|Institute)
    (?:[ \t]+(?:of|in|at)[ \t]+{_CAP}(?:[ \t]+{_CAP})*)?)\b
    |\b(?P<b>(?:Hospital|University|Clinic|Klinikum|Universitätsklinikum|Krankenhaus|Hôpital|Ospedale)
    (?:[ \t]+(?:of|de|di|del|der|the))*[ \t]+{_CAP}(?:[ \t]+{_CAP})*)\b""",
    re.VERBOSE,
)
_GENERIC = frozenset(
    {
        *("the", "a", "an", "our", "this", "that", "local", "district", "general", "university"),
        *(
            "teaching",
            "community",
            "regional",
            "county",
            "outside",
            "at",
            "in",
            "from",
            "to",
            "day",
        ),
        *("referring", "hospital", "medical", "and"),
    }
)
_STREET = re.compile(
    rf"""\b(?P<value>\d{{1,5}}[A-Za-z]?,?[ \t]+(?:{_CAP}[ \t]+){{1,3}}
    (?:Street|St|Road|Rd|Avenue|Ave|Lane|Ln|Drive|Boulevard|Blvd|Way|Court|Square|Terrace|Close|Crescent|Place)\b\.?
    |{_CAP}(?:straße|strasse|str\.|weg|platz|allee|gasse)[ \t]*\d+[a-z]?
    |P\.?O\.?[ \t]*Box[ \t]*\d+)""",
    re.VERBOSE,
)
_STREET_ABROAD = re.compile(
    rf"""\b(?P<value>(?:\d{{1,4}},?[ \t]+)?(?i:rue|avenue|boulevard|chemin|via|viale|piazza|corso
    |calle|plaza|avenida|paseo|camino|ul\.|al\.|pl\.|ulica|aleja)[ \t]+
    (?:(?:de|del|della|di|la|las|los|du|des)[ \t]+)*
    {_CAP}(?:[ \t]+{_CAP})*(?:,?[ \t]+\d+[\w/]*)?)""",
    re.VERBOSE,
)
_ADDRESS_WORD = rf"(?:{_CAP}|\d[\w/-]*|[A-Z]{{2}}|de|del|della|di|la|von|van|der|du|des)"
_LIVES = re.compile(
    r"\b(?i:lives?|living|resid(?:es?|ing)|address(?:\s+is)?)[ \t:]+(?:(?i:at|on|in)[ \t]+)?"
    r"(?P<value>(?=[^\n.;]{0,60}\d)(?=\d|[A-Z])"
    rf"{_ADDRESS_WORD}(?:,?[ \t]+{_ADDRESS_WORD}){{1,9}})"
)
_TRAVEL = re.compile(
    rf"""\b(?i:lives|lived|living|resid(?:es|ing)|born|raised|grew[ ]up|travel(?:l?ed|l?ing|s)?
    |returned|flew|came|comes|visited|visiting|moved|trip|holiday|vacation)[ \t]+
    (?:(?i:home|back|recently)[ \t]+)?
    (?:(?i:in|to|from|near|at|via|through)[ \t]+)?
    (?P<value>{_CAP}(?:[ \t-]+{_CAP}){{0,3}})""",
    re.VERBOSE,
)
_POSTCODE = re.compile(
    r"\b(?:[A-Z]{2}[ \t]+\d{5}(?:-\d{4})?|[A-Z]{1,2}\d[A-Z\d]?[ \t]\d[A-Z]{2}"
    r"|[A-Z]\d[A-Z][ \t]?\d[A-Z]\d|(?:D|CH|A|F|I)-\d{4,5})\b"
)
_AFTER = re.compile(
    r"\b(?i:in|from|at|near|to|of|visited|via|through|resident\s+of|city|aus|nach)[ \t]+"
    rf"(?P<value>{_CAP}(?:[ \t-]+{_CAP}){{0,2}})"
)
_CAPPED = re.compile(rf"\b(?P<value>{_CAP}(?:[ \t-]+{_CAP}){{0,2}})")


def clean_text(
    text: str, person: Person, settings: DeidentifySettings
) -> tuple[str, tuple[Replaced, ...]]:
    """Replace what tells who a text is about.

    Args:
        text: As it came.
        person: Whose dates move by how much, and which names are known.
        settings: Whether text is cleaned at all, and what is done with dates.

    Returns:
        The cleaned text, and what was replaced in it, in order.
    """
    if not settings.text:
        return text, ()
    # Where two overlap, the earlier one in this list of rules stands.
    taken: list[Replaced] = []
    covered = bytearray(len(text))
    for found in chain(
        _find_numbers(text, person),
        _find_dates(text, person, settings),
        _find_ages(text),
        _find_names(text, person),
        _find_places(text),
        _find_bare_names(text),  # last, since streets and hospitals are called like people
    ):
        if not any(covered[found.start : found.end]):
            covered[found.start : found.end] = b"\1" * (found.end - found.start)
            taken.append(found)
    spans = tuple(sorted(taken, key=lambda found: found.start))
    return write_span(text, 0, len(text), spans), spans


def write_span(text: str, start: int, end: int, spans: tuple[Replaced, ...]) -> str:
    """Write a part of a text with what was replaced; a replacement stands where it begins."""
    parts, at = [], start
    for span in spans:
        if span.end <= start or span.start >= end:
            continue
        parts.append(text[at : max(span.start, at)])
        if span.start >= start:
            parts.append(span.by)
        at = min(span.end, end)
    return "".join((*parts, text[at:end]))


def _find_numbers(text: str, person: Person) -> Iterator[Replaced]:
    for identifier in person.identifiers:
        for match in re.finditer(rf"(?<!\w){re.escape(identifier)}(?!\w)", text):
            yield Replaced(*match.span(), "id", "[ID]")
    for kind, pattern in (
        ("email", _EMAIL),
        ("url", _URL),
        ("id", _UID),
        ("id", _ID_CUE),
        ("id", _SSN),
        ("phone", _PHONE_CUE),
        ("phone", _PHONE),
        ("id", _IP),
        ("id", _MIXED),
        ("id", _LONG),
    ):
        for match in pattern.finditer(text):
            start, end = match.span("value" if "value" in match.groupdict() else 0)
            # Eight digits that are a date are left to the rule for dates.
            if pattern is _LONG and DATE.fullmatch(match[0]):
                continue
            yield Replaced(start, end, kind, f"[{kind.upper()}]")


def _find_dates(text: str, person: Person, settings: DeidentifySettings) -> Iterator[Replaced]:
    for start, end in chain(find_births(text), find_days(text)):
        yield Replaced(start, end, "date", "[DATE]")
    for match in DATE.finditer(text):
        moved = None
        if settings.dates == "shift":
            moved = move_date(match, person.shift_days, settings.day_first)
        yield Replaced(*match.span(), "date", moved or "[DATE]")


def _find_ages(text: str) -> Iterator[Replaced]:
    for start, end, by in find_ages(text):
        yield Replaced(start, end, "age", by)


def _find_names(text: str, person: Person) -> Iterator[Replaced]:
    for start, end in _known_names(text, person):
        yield Replaced(start, end, "name", "[NAME]")
    for pattern in (_TITLED, _TITLED_LOUD, _NAME_CUE, _DEAR, _CREDENTIAL):
        for match in pattern.finditer(text):
            start, end = _trim(match["value"], match.start("value"))
            if end > start:
                yield Replaced(start, _end_of_loud(text, end), "name", "[NAME]")
    for match in _TITLED_SMALL.finditer(text):
        if _is_titled(text, match):
            value, more = match["last"], match["more"] or ""
            both = _parts(value) & first_names() and _parts(more) & surnames()
            named = both and more not in after_title() | common_words() | plain_words()
            end = match.end("more" if named else "value")
            yield Replaced(match.start("value"), _before_s(text, end), "name", "[NAME]")
    for match in _INITIALLED.finditer(text):
        # One initial may be a unit, as in "37 C. Laboratory".
        known = match["last"].lower() in surnames() or match["value"].count(".") > 1
        if _is_surname(match["last"]) and known:
            yield Replaced(*match.span("value"), "name", "[NAME]")


def _is_titled(text: str, match: re.Match[str]) -> bool:
    """Say whether a word in small letters after a title is a name."""
    word = match["last"]
    if match["sure"]:
        return word not in after_title()
    if word in after_loose_title():
        return False
    if match["miss"] and _TO_MISS.search(text, max(0, match.start() - _MISS_REACH), match.start()):
        return False
    parts = _parts(re.sub(r"['’]", "", word))
    listed = bool(parts & surnames() or parts & first_names())
    does = _DOES.match(text, match.end("value")) is not None
    plain = word in plain_words() | common_words() or _NO_NAME.fullmatch(word) is not None
    plain = plain or (match["miss"] is not None and word.endswith("s"))
    if match["short"]:
        return listed and does and not plain
    return listed or (does and not plain)


def _find_bare_names(text: str) -> Iterator[Replaced]:
    """Find names that nothing announces: pairs by the lists, and lone first names."""
    words = also_names()
    for order in (_LAST_FIRST, _FIRST_LAST, _LOUD_FIRST):
        at = 0
        # Each word may begin a name, so the search goes on at the next one.
        while (pair := order.search(text, at)) is not None:
            if _is_person(pair) and not _EPONYM.match(text, pair.end()):
                end = _end_of_name(text, pair)
                yield Replaced(pair.start("value"), end, "name", "[NAME]")
                at = end
            else:
                at = pair.start("first" if order is _FIRST_LAST else "last") + 1
    for match in _ALONE.finditer(text):
        known = match[0].lower() not in words and _named_at_an_end(match[0])
        if known and not _EPONYM.match(text, match.end()):
            yield Replaced(*match.span(), "name", "[NAME]")
            # What is left of "Quimby-Jones" where Quimby is known and gone.
            yield Replaced(
                match.end() - len(match[0].split("-")[-1]), match.end(), "name", "[NAME]"
            )


def _is_person(pair: re.Match[str]) -> bool:
    """Say whether two words are a name: "Mark Johnson" is one and "May Represent" is none."""
    first, last = pair["first"], pair["last"]
    if not _is_surname(last):
        return False
    named = bool(_parts(first) & first_names())
    surname = bool(_parts(last.split()[-1]) & surnames())
    if pair.re is not _LAST_FIRST and _is_loud(last):
        # Capitals beside a name are an abbreviation as well, as in "Jordan CT" and "Mary COPD".
        listed = named and surname and len(last) >= _MIN_LOUD_LETTERS
        return listed or (len(last) > _MIN_LOUD_LETTERS and _named_at_an_end(first))
    both = surname and bool(_parts(first) & surnames()) and pair.re is _FIRST_LAST
    plain = first.lower() in also_names()
    return (named and surname) or (not plain and (named or both))


def _end_of_name(text: str, pair: re.Match[str]) -> int:
    """Say where a name ends whose second word may be a second first name."""
    end, last = pair.end("value"), pair["last"]
    while (
        pair.re is _FIRST_LAST
        and _parts(last) & first_names() - also_names()
        and (more := _MORE_NAME.match(text, end)) is not None
        and _is_surname(more["last"])
        and more["last"].lower() not in also_names()
        and (not _is_loud(more["last"]) or len(more["last"]) > _MIN_LOUD_LETTERS)
    ):
        end, last = more.end(), more["last"]
    return end


def _known_names(text: str, person: Person) -> Iterator[tuple[int, int]]:
    """Find the names known from the table or header, in any case, whole and by part."""
    parts = {
        part
        for name in person.names
        for part in re.split(r"[\^=,;\s]+", name)
        if len(part) >= 2 and not part.endswith(".")
    }
    for part in sorted(parts, key=len, reverse=True):
        # A name that is a word as well, or two letters, is a name only where it has its capital.
        loose = part.lower() not in common_words() and len(part) > 2
        forms = {part} if loose else {part.capitalize(), part.upper()}
        joined = "|".join(re.escape(form) for form in sorted(forms))
        for match in re.finditer(
            rf"(?<!\w)(?:{joined})(?!\w)", text, re.IGNORECASE if loose else 0
        ):
            yield match.span()


def _trim(value: str, start: int) -> tuple[int, int]:
    """Drop the common words a pattern took along: before a name, and from one after it on."""
    plain = common_words() | _GENERIC
    words = [(m, m[0].strip(",.'’").lower() in plain) for m in re.finditer(r"\S+", value)]
    names = [m for m, _ in takewhile(lambda w: not w[1], dropwhile(lambda w: w[1], words))]
    if not names:
        return start, start
    return start + names[0].start(), start + _before_s(value, names[-1].end())


def _end_of_loud(text: str, end: int) -> int:
    """Take along the surname of "Dr. John SMITH", and not what "Mr. Smith COPD" has."""
    more = _MORE_NAME.match(text, end)
    if more is None or not _is_loud(more["last"]) or len(more["last"]) < _MIN_LOUD_LETTERS:
        return end
    return more.end() if _parts(more["last"].split()[-1]) & surnames() else end


def _is_loud(word: str) -> bool:
    return re.fullmatch(_LOUD_SURNAME, word) is not None


def _before_s(text: str, end: int) -> int:
    """Step back over the s of "Smith's"."""
    return end - 2 if re.search(r"\w['’]s$", text[max(0, end - 3) : end]) else end


def _parts(word: str) -> set[str]:
    """Split "Watson-Parker"; each part alone may be in a list."""
    return set(word.lower().split("-"))


def _named_at_an_end(word: str) -> bool:
    """Say whether a word, or its first or last part, is a first name and nothing else."""
    first, *_, last = word.lower().split("-") * 2
    return bool({first, last} & first_names() - also_names())


def _is_surname(word: str) -> bool:
    return len(word) > 2 and word.lower() not in common_words()


def _find_places(text: str) -> Iterator[Replaced]:
    for match in _HOSPITAL.finditer(text):
        group = "value" if match["value"] else "b"
        words = re.findall(r"[\w'’]+", match[group])
        named = words[:-1] if group == "value" else words[1:]
        if any(word.lower() not in _GENERIC | common_words() for word in named):
            yield Replaced(*match.span(group), "place", "[PLACE]")
    for pattern in (_LIVES, _STREET, _STREET_ABROAD, _POSTCODE):
        for match in pattern.finditer(text):
            start, end = match.span("value" if "value" in match.groupdict() else 0)
            yield Replaced(start, end, "place", "[PLACE]")
    for match in _TRAVEL.finditer(text):
        start, end = _trim(match["value"], match.start("value"))
        if end > start:
            yield Replaced(start, end, "place", "[PLACE]")
    known = cities()
    for context, least in ((_AFTER, 0), (_CAPPED, LARGE_CITY)):
        at = 0
        while (near := context.search(text, at)) is not None:
            start = near.start("value")
            word = _longest_city(near["value"], known, least)
            if word:
                yield Replaced(start, start + len(word), "place", "[PLACE]")
            first = re.match(r"\w+", text[start:])
            at = start + (len(word) or (len(first[0]) if first else 1))


def _longest_city(value: str, known: Mapping[str, int], least: int) -> str:
    """Give the longest beginning of a phrase that is a city of ``least`` people or more."""
    ends = [m.end() for m in re.finditer(r"\w+", value)]
    for end in reversed(ends):
        people = known.get(value[:end].lower())
        if people is not None and people >= least:
            return value[:end]
    return ""
