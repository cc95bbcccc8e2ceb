"""Measure what de-identification misses, and masks wrongly in each TABLE.csv:COLUMN named.

Missed: sentences in which made-up people, places, dates and numbers stand as they do in notes. The
rules were mended by the first set, and its first names (Faker's) are in their lists. The second is
held out: other sentences, first names as frequent as nomquamgender's sources count them, and all
else from locales of Faker that no rule was tried on. Whoever changes a rule because of the second
moves its sentences to the first and writes others, once the rule is fixed: what is written before
is known to whoever writes the rule. Wrong: what is replaced in notes of the known-truth cohort,
and in the columns named, is printed to be judged by eye.
"""

import csv
import random
import re
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from faker import Faker

from medfuse.deidentify.pseudonyms import Person
from medfuse.deidentify.settings import DeidentifySettings
from medfuse.deidentify.text import clean_text
from medfuse.synthetic.options import CohortOptions
from medfuse.synthetic.study import make_study

LOCALES = ("en_US", "en_GB", "en_IN", "de_DE", "fr_FR", "es_ES", "it_IT", "pl_PL")
OTHER_LOCALES = ("en_NZ", "en_IE", "nl_NL", "sv_SE", "da_DK", "pt_BR", "cs_CZ", "ro_RO")
LATIN = re.compile(r"[a-zà-öø-ÿ]{2,}")
ROUNDS = 400
SEED = 0
THIS_YEAR = 2024
NAMES = frozenset({"first", "second", "last", "other", "small", "capitals"})
AGES_IN_WORDS = (
    *("ninety", "ninety-one", "ninety two", "ninety-three", "ninety-four", "ninety five"),
    *("ninety-six", "ninety-seven", "ninety-eight", "ninety-nine", "one hundred"),
    *("a hundred and one", "one hundred and two", "one hundred three", "one-hundred-and-four"),
)

TEMPLATES = {
    "name, with title": (
        "Discussed with Dr. {last}.",
        "Mrs {last} has had a cough for a week.",
        "Seen by Prof. {first} {last}, who agrees.",
        "Mr. {first} {last} presents with dyspnea.",
    ),
    "name, after a label": (
        "Patient: {last}, {first}",
        "Name: {first} {last}",
        "Electronically signed by {first} {last}",
        "Referring physician: {first} {last}",
    ),
    "name, bare": (
        "{first} {last} presents with fever.",
        "Findings were explained to {first} {last}.",
        "Daughter {first} {last} called.",
    ),
    "first or last name alone": (
        "{first} has been coughing since yesterday.",
        "Later {last} denied chest pain.",
    ),
    "date": (
        "Admitted on {iso}.",
        "Film of {us} compared.",
        "Surgery on {long}.",
        "Seen again {short}.",
    ),
    "phone": ("Call back at {phone}.", "Tel: {phone}"),
    "email or web address": ("Write to {email}.", "See {url} for images."),
    "number": ("MRN {mrn}.", "Accession number: {accession}", "Policy {policy} applies."),
    "street": ("Lives at {street}.",),
    "city": ("Returned from {city} last week.", "Lives in {city}."),
    "hospital": (
        "Transferred from {city} General Hospital.",
        "Previously at St. {first}'s Hospital.",
    ),
    "age above 89": (
        "A {age}-year-old woman.",
        "Patient is {age} years old.",
        "{age}M with cough.",
        "{age}F after a fall.",
        "A {age} y.o. woman.",
        "A {age} y o man.",
        "Age {age}y",
        "{age}yo F, short of breath.",
        "{age_words} year old man.",
        "{age} yo man.",
        "Woman, aged {age}.",
        "{age}-yr-old lady with CHF.",
        "Age/Sex: {age}/F",
        "{age}yoM s/p fall.",
        "Pt is a {age} WF with dementia.",
        "{age} y/o male, afebrile.",
        "Fully independent at {age} years of age.",
        "She turned {age} in spring.",
        "Patient is {age}.",
        "Just before her {age}th birthday.",
        "Male, {age}, never smoked.",
        "AGE: {age} SEX: F",
        "A {age_words}-year-old woman.",
        "Her mother died at {age}.",
        "Gentleman aged {age_words}.",
        "HPI: {age} year-old gentleman w/ PMH of COPD.",
        "{age} y/o F BIBA from nursing home.",
        "The patient, who is {age}, lives alone.",
        "{age} y.o. M",
        "Her husband ({age}) is her carer.",
        "{age}-y-o lady.",
        "Elderly ({age} yrs) man.",
        "At {age}, she still drives.",
        "CC: {age}F c/o SOB x 3d",
        "Pneumonia in a {age}yr M.",
        "Age {age} | Sex M",
        "{age} AAF with HTN.",
        "Now {age} and frail.",
        "Father alive at {age}, mother died of stroke.",
        "{age_words} years young.",
        "Pt. is {age_words} yo.",
        "{age}F fall ?#NOF, on apixaban",
        "Triage: {age} yo F BIB EMS from SNF for AMS.",
        "{age} YEAR OLD FEMALE WITH COUGH.",
        "Clinical details: {age} yrs, off legs, ?LRTI.",
        "Thank you for seeing this delightful {age} year old lady.",
        "Given age ({age}) and frailty, DNR was discussed.",
        "Not a candidate for TAVI given her age of {age}.",
        "FHx: mother d. {age}, CVA.",
        "FH: father passed at age {age}.",
        "Lives with his wife, who is also {age}.",
        "Sister, {age}, in a care home.",
        "Frail at {age} but cognitively intact.",
        "She'll be {age} next month.",
        "Pt {age}♀, NKDA.",
        "Sex: F  Age: {age}  Wt: 48 kg",
        "Retired farmer, {age}, ex-smoker.",
        "This {age}-yr old NH resident was found on the floor.",
        "{age}yF RLL pneumonia",
        "Age/Gender: {age} Y/Male",
        "pt {age} y.o.m. in NAD",
        "Pleasant lady of {age}, lives w/ daughter.",
        "Son states she is nearly {age}.",
        "Mr. and Mrs. are both {age}.",
        "72M, wife {age} is in hospice.",
        "Indication: fever, {age} y/o.",
        "{age_words} yr old NH resident.",
        "Pt, aged {age_words}, is DNACPR.",
        "She is {age_words} and still gardens.",
    ),
    "name, small after a title": (
        "mr {small} coughs.",
        "Called dr. {small} again.",
        "d/w dr {small} by phone.",
        "spoke to mrs. {small} today.",
        "ms {small} denies fever.",
        "prof. {small} aware.",
        "seen with doctor {small} this am",
        "called mr. {small}'s daughter",
        "pt of dr {small}",
        "thanks dr. {small}",
        "miss {small} seen in ed",
        "cc: dr {small}, pcp",
        "per dr {small} ok to d/c home",
        "pt's pcp is dr. {small}, last seen in may",
        "mrs {small} slept well overnight",
        "mr {small} is a pleasant man w/ copd",
        "ms. {small} c/o cp since last night",
        "nurse {small} notified of k 2.9",
        "paged dr {small} x2, no answer",
        "report called to rn {small} on 4 west",
        "family mtg w/ mr and mrs {small}",
        "under mr {small}, vascular",
        "miss {small} is nkda",
        "professor {small} rv'd pt, continue abx",
        "dr.{small} aware",
        "handover from s/n {small}",
        "np {small} at bedside",
        "dr {small}/gi to scope tomorrow",
        "doctor {small} rang back with the result",
        "ms {small} wants to go home",
    ),
    "name, surname in capitals": (
        "{first} {capitals} presents with fever.",
        "We reviewed {first} {capitals} in clinic.",
        "Re: {capitals} {first}",
        "Dear {first} {capitals},",
        "{first} {capitals} was transferred to us.",
    ),
    "name, in several parts": (
        "{first} {second} {last}-{other} presents with fever.",
        "Seen today: {first} {last}-{other}.",
        "{first}-{second} {last} returned for a film.",
        "Ms {last}-{other} is well.",
        "Son {first} {second} {last} was informed.",
    ),
    "year of birth": (
        "Patient born {born}.",
        "DOB {born}",
        "Male, b. {born}, smoker.",
        "Year of birth: {born}.",
        "She was born in {born} and worked in a mine.",
        "YOB {born}",
        "D.O.B. {born_on}",
        "Birthdate: May {born}",
        "geb. {born}",
        "Born around {born}.",
        "A retired miner ({born}).",
        "Born in the year {born}.",
        "(DOB: {born_on})",
        "DoB - {born}",
        "Pt born May {born}.",
        "D/O/B {born_on}",
        "geboren {born} in Berlin",
        "Retired nurse, born {born}.",
        "b.{born}",
        "Patient identified by name and DOB {born_on}.",
        "Pt (dob {born_on}) arrived by ambulance.",
        "DOB={born_on}",
        "D.O.B: {born}",
        "Yr of birth {born}",
        "Birth yr: {born}",
        "Born in Italy in {born}, came here as a child.",
        "Mother (b. {born}) had breast ca.",
        "DOB verified: {born_on}",
        "Birth date listed as {born_on}.",
        "Male (born {born}), NKDA.",
        "Pat. *{born}, Z.n. Apoplex",
        "Jahrgang {born}, rüstig",
        "f, b {born}",
        "Widow ({born}), lives alone.",
        "pt was born {born}, twin.",
    ),
    "day and month": (
        "Coughs since {day}.",
        "Film on {day}.",
        "Seen {day}.",
        "Admitted {day} with pneumonia.",
        "CXR {day}: no change.",
        "Compared with the film of {day}.",
        "Last dose {day}.",
        "Follow-up on {day} at noon.",
        "Afebrile from {day}.",
        "WBC 12.3 ({day}).",
        "s/p CABG {day}.",
        "Discharged home {day}.",
        "{day} - no fever overnight.",
        "Pt last seen {day} by pcp.",
        "Plan: repeat CT {day}.",
        "{day} CXR: improved.",
        "Symptom onset {day}.",
        "Tested positive for COVID {day}.",
        "ED visit {day}.",
        "Line placed {day}.",
        "No change c/w {day}.",
        "abx started {day}, stopped later.",
        "Stent {day}.",
        "Seen at UCC {day}, given Augmentin.",
        "COMPARISON: Chest radiograph {day}.",
        "Compared to {day}, the effusion is smaller.",
        "BCx {day} NGTD.",
        "UCx ({padded}): E. coli.",
        "Cr 1.8 ({day}), now 1.2.",
        "Fell at home {day}, no LOC.",
        "PICC R arm {day}.",
        "Last BM {day}.",
        "{day} 0730: resting comfortably, lungs clear.",
        "{padded} RN note: sats stable on 2L.",
        "F/U w/ PCP {day} @ 10am.",
        "L THA {day}, now SOB.",
        "To OR {padded} for washout.",
        "EF 55% on echo {day}.",
        "INR 2.3 {day}, warfarin held.",
        "Flu shot {day}.",
        "Cough x 2 wks, worse {day}.",
        "LMP {day}, denies pregnancy.",
        "ABG {day}: 7.38/42.",
        "Vanc/Zosyn {day}, then narrowed.",
        "Addendum {day}: d/w family.",
        "Hosp. for CHF {padded}.",
        "DC'd to SNF {day} and bounced back.",
    ),
}


HELD_OUT = {
    "name, with title": (
        "Reviewed together with Dr {last} this morning.",
        "Ms. {first} {last} is a known smoker.",
        "Professor {last} was informed.",
        "I saw Mr {last} in clinic.",
    ),
    "name, after a label": (
        "Pt: {first} {last}",
        "Radiologist: {last}, {first}",
        "Report verified by {first} {last}",
        "Next of kin: {first} {last}",
    ),
    "name, bare": (
        "We met {first} {last} on the ward.",
        "Films were shown to {first} {last} and colleagues.",
        "{first} {last} returned for follow-up.",
        "Care was handed over to {first} {last}.",
    ),
    "first or last name alone": (
        "Overnight {first} was afebrile.",
        "According to {last}, pain is worse at night.",
    ),
    "date": (
        "Unchanged since {iso}.",
        "Last scan {us}.",
        "Discharged {long} in a good state.",
        "Stent placed {short}.",
    ),
    "phone": ("Mobile {phone}.", "Reachable on {phone} after noon."),
    "email or web address": ("Reports go to {email}.", "Pictures: {url}"),
    "number": ("Hospital no. {mrn}.", "Acc. # {accession}", "Insurance ID: {policy}"),
    "street": ("Address: {street}.", "Moved to {street} in spring."),
    "city": ("Flew in from {city} yesterday.", "Born in {city}."),
    "hospital": (
        "Film from {city} Medical Center.",
        "Admitted to {last} Memorial Hospital before.",
    ),
    "age above 89": (
        "Pt is {age}, hard of hearing, A&O x3.",
        "{age} y.o. retired RN here w/ LLE swelling.",
        "CXR for {age}yr old with ?aspiration",
        "Very frail {age}-year-old in resus.",
        "Patient's age: {age}.",
        "PMHx per daughter; he is {age} and lives w/ her.",
        "{age}♂ found down.",
        "Mum is {age}, can't cope at home.",
        "She will turn {age} this summer.",
        "Grandmother lived until {age}.",
        "84 yo caring for her {age}-yr-old husband.",
        "{age}F. PMH: AF, HTN.",
        "Elderly female, {age}, BIBA post fall.",
        "HPI: this is a {age} y/o WF who fell.",
        "On account of age ({age}), conservative mgmt.",
        "Still mows his lawn at {age}.",
        "Oldest sibling is {age}, A&W.",
        "Demographics: {age}/M/widowed",
        "RIP, died aged {age}.",
        "Age at admission {age}",
        "A {age} year-old, ex-miner.",
        "Pt {age} yrs, wt 51kg",
        "Both parents lived past {age}.",
        "Lady in bed 4, {age}, wandering again.",
        "{age_words}-year-old gentleman, NFR.",
        "Turned {age_words} last week.",
        "Mother is {age_words}, on warfarin.",
    ),
    "name, small after a title": (
        "ok per dr {small}, see orders",
        "seen w/ dr. {small} on rounds",
        "mrs {small} refused bath",
        "mr {small} up to chair x1",
        "ms {small} tearful this pm",
        "t/c to dr {small}, awaiting callback",
        "handed over to nurse {small}",
        "miss {small} for theatre at 2",
        "mr. {small} npo p midnight",
        "dr {small}'s pt",
        "rn {small} witnessed waste",
        "reviewed by mr {small} consultant",
        "referred by doctor {small}, gp",
        "dear dr {small}, thank you",
        "plan d/w prof {small}",
        "resident dr {small} at bedside",
        "ms {small} is 2 days post op",
        "sister {small} in charge",
    ),
    "name, surname in capitals": (
        "Patient {first} {capitals} attended today.",
        "cc {first} {capitals}",
        "{capitals}, {first} - ward 4",
        "Thank you for referring {first} {capitals}.",
    ),
    "name, in several parts": (
        "Referred: {first} {second} {last}",
        "Mr {first} {last} {other} attended.",
        "{last}-{other}, {first}",
        "{first} {last}-{other} was discharged.",
    ),
    "year of birth": (
        "DOB {born_on} per wristband.",
        "Patient DOB: {born}",
        "b. {born} in Poland",
        "Born {born}, never married.",
        "Hx: born at home in {born}.",
        "Date of birth given as {born}.",
        "Year born: {born}",
        "Mr. A (born {born}) was seen.",
        "DOB ({born_on})",
        "dob is {born_on}, matches wristband",
        "Birthdate {born_on}",
        "Native of Malta, b {born}.",
        "He was born in early {born}.",
        "Birth year {born}, retired.",
        "Geb.-Dat. {born_on}",
        "geb. im Mai {born}",
        "D.O.B {born_on} checked",
        "Born c. {born}, exact date unknown.",
    ),
    "day and month": (
        "Last HD {day}, due today.",
        "Pt reports fall {day} in bathroom.",
        "Started on lasix gtt {day}.",
        "CT A/P {day} w/ SBO.",
        "Trach placed {day}, PEG later.",
        "Cx from {day}: MRSA.",
        "Tx'd from OSH {day}.",
        "Febrile overnight {padded}.",
        "Chest tube d/c'd {day}.",
        "Staples out {day}.",
        "Spoke with family {day}; DNR/DNI.",
        "RUQ US ({day}): stones.",
        "Hgb 9.1 on {day}, 7.2 now.",
        "PT eval {day}: min assist.",
        "Next INR check {day}.",
        "Appt w/ cards {padded} 0900.",
        "Interval change since study of {day}.",
        "Prior: CXR dated {day}.",
        "Afebrile since {day}.",
        "Received 2u PRBC {day}.",
        "Note for {day}:",
        "BNP 1200 ({day}).",
        "Wound vac changed {day}, intact.",
        "{day}: pt ambulated 50 ft.",
        "NIHSS 4 ({day}).",
        "Abx day 3 (started {day}).",
        "Dx with flu {day}.",
        "Missed HD {day}.",
    ),
}


def main(columns: list[str]) -> None:
    """Print recall by kind, and everything that was replaced in the notes at hand."""
    person, settings = Person("P", -1_000), DeidentifySettings()
    print("Sentences by which the rules were mended")
    measure_recall(TEMPLATES, LOCALES, lambda fake: str(fake.first_name()))
    print("\nSentences and names that are held out")
    measure_recall(HELD_OUT, OTHER_LOCALES, draw_first_names())
    texts = {"known-truth cohort": list(known_truth(200))}
    for column in columns:
        path, _, name = column.rpartition(":")
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            texts[column] = [row[name] for row in csv.DictReader(file) if row[name]]
    for source, notes in texts.items():
        replaced = Counter[tuple[str, str]]()
        for note in notes:
            _, spans = clean_text(note, person, settings)
            replaced.update((span.kind, note[span.start : span.end]) for span in spans)
        words = sum(len(note.split()) for note in notes)
        print(f"\n{source}: {len(notes)} notes, {words} words, {replaced.total()} replaced")
        for (kind, what), count in sorted(replaced.items()):
            print(f"  {count:4} {kind}: {what}")


def measure_recall(
    templates: Mapping[str, Sequence[str]],
    locales: Sequence[str],
    first_name: Callable[[Faker], str],
) -> None:
    """Print how much of what is planted in sentences is missed, by kind."""
    person, settings = Person("P", -1_000), DeidentifySettings()
    random.seed(SEED)
    Faker.seed(SEED)
    fakers = [Faker(locale) for locale in locales]
    print(f"{'kind':28}{'planted':>8}{'missed':>8}{'recall':>9}")
    for kind, own in templates.items():
        planted, missed = Counter[str](), Counter[str]()
        for round_ in range(ROUNDS):
            template = own[round_ % len(own)]
            fake = random.choice(fakers)
            values = make_values(fake, first_name(fake), first_name(fake))
            cleaned, _ = clean_text(template.format(**values), person, settings)
            for name in (part for part in values if f"{{{part}}}" in template):
                planted[template] += 1
                missed[template] += is_left(values[name], cleaned, by_part=name in NAMES)
        share = 1 - missed.total() / planted.total()
        print(f"{kind:28}{planted.total():8}{missed.total():8}{share:9.3f}")
        for template in own if len(own) > 1 else ():
            if missed[template]:
                of = f"{missed[template]} of {planted[template]}"
                print(f"    {of:>12} missed in {template}")


def is_left(value: str, cleaned: str, by_part: bool) -> bool:
    """Say whether what was planted, or any part of a name, can still be read."""
    if not by_part:
        return value in cleaned
    parts = (part for part in re.split(r"[\s-]+", value) if len(part) > 1)
    return any(re.search(rf"(?<!\w){re.escape(part)}(?!\w)", cleaned) for part in parts)


def draw_first_names() -> Callable[[Faker], str]:
    """Draw from nomquamgender's names in Latin letters, as often as its sources count each."""
    import nomquamgender

    counts = {
        name.capitalize(): counts[1]
        for name, counts in nomquamgender.name_data.items()
        if LATIN.fullmatch(name) and counts[1]
    }
    names, edges = list(counts), list(accumulate(counts.values()))
    return lambda _: random.choices(names, cum_weights=edges)[0]


def make_values(fake: Faker, first_name: str, second_name: str) -> dict[str, str]:
    """Make up whoever has a first name, and a second one."""
    day, last, age = fake.date_object(), fake.last_name(), random.randint(91, 104)
    born = THIS_YEAR - age
    return {
        "first": first_name,
        "second": second_name,
        "last": last,
        "other": fake.last_name(),
        "small": last.lower(),
        "capitals": last.upper(),
        "iso": day.isoformat(),
        "us": f"{day:%m/%d/%Y}",
        "long": f"{day:%B} {day.day}, {day.year}",
        "short": f"{day.day} {day:%b}",
        "phone": fake.phone_number(),
        "email": fake.email(),
        "url": fake.url(),
        "mrn": str(fake.random_number(8, fix_len=True)),
        "accession": fake.bothify("??#####").upper(),
        "policy": str(fake.random_number(9, fix_len=True)),
        "street": fake.street_address().replace("\n", " "),
        "city": fake.city(),
        "age": str(age),
        "age_words": AGES_IN_WORDS[age - 90],
        "born": str(born),
        "born_on": f"{day:%m/%d}/{born % 100:02}",
        "day": f"{day.month}/{day.day}",
        "padded": f"{day:%m/%d}",
    }


def known_truth(count: int) -> list[str]:
    """Read notes of the known-truth cohort, in either of its encodings."""
    notes = (make_study(CohortOptions(seed=0, size=192), i).study.note for i in range(count))
    return [
        note.decode("cp1252" if b"\r\n" in note else "utf-8") for note in notes if note is not None
    ]


if __name__ == "__main__":
    main(sys.argv[1:])
