"""De-identified text: known answers for each kind, and what must stay."""

from collections.abc import Sequence
from datetime import date, timedelta

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from medfuse.deidentify.pseudonyms import Person
from medfuse.deidentify.settings import DeidentifySettings
from medfuse.deidentify.text import clean_text, write_span
from medfuse.deidentify.transcript import Phrase, clean_transcript
from medfuse.synthetic.options import CohortOptions
from medfuse.synthetic.study import make_study
from tests.canaries import CANARIES, DOCTOR, FIRST, LAST, NOTE

SETTINGS = DeidentifySettings()
PERSON = Person("P1", -1_000)


def clean(note: str, person: Person = PERSON, **options: object) -> str:
    return clean_text(note, person, DeidentifySettings.model_validate(options))[0]


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("Seen by Dr. Jane Fitzwilliam today.", "Seen by Dr. [NAME] today."),
        ("Mr Smith and Mrs. O'Brien came.", "Mr [NAME] and Mrs. [NAME] came."),
        ("DR. SMITH WAS CALLED", "DR. [NAME] WAS CALLED"),
        ("Discussed with Priya Raghunathan by phone.", "Discussed with [NAME] by phone."),
        ("Name: VAN DER BERG, ANNA", "Name: [NAME]"),
        ("Signed: John Smith, MD", "Signed: [NAME], MD"),
        ("Helen Abernathy, RN, called.", "[NAME], RN, called."),
        ("Mark Johnson coughs.", "[NAME] coughs."),
        ("Smith, John was seen.", "[NAME] was seen."),
        ("J. R. Okonkwo was told.", "[NAME] was told."),
        ("Agnieszka coughs, says Dr. Świątek.", "[NAME] coughs, says Dr. [NAME]."),
        ("Later Jürgen, later Zbigniew Okrasa.", "Later [NAME], later [NAME]."),
        ("Besuch von Gunther, not Günther.", "Besuch von [NAME], not [NAME]."),
        ("Later Deborah denied pain.", "Later [NAME] denied pain."),
        ("Frau Müller hustet.", "Frau [NAME] hustet."),
        ("John SMITH coughs.", "[NAME] coughs."),
        ("SMITH John; Mark JOHNSON; Dr. John SMITH", "[NAME]; [NAME]; Dr. [NAME]"),
        ("Deborah KRZYWICKA, then Jordan CT", "[NAME], then [NAME] CT"),
        ("Mary Jane Watson-Parker coughs.", "[NAME] coughs."),
        ("Mary Jane Watson and Anna-Maria Schmidt", "[NAME] and [NAME]"),
        ("Dear John Kowalczyk, Thank you", "Dear [NAME], Thank you"),
        ("John VAN DER BERG, then DONKERSLOOT John", "[NAME], then [NAME]"),
        ("Mary Jane Kowalczykowski coughs.", "[NAME] coughs."),
        ("Jean-Pierre coughs.", "[NAME] coughs."),
        ("mr smith coughs, told dr. jones", "mr [NAME] coughs, told dr. [NAME]"),
        ("d/w Dr. smith-jones and mrs. o'brien", "d/w Dr. [NAME] and mrs. [NAME]"),
        ("Mr. Smith COPD exacerbation", "Mr. [NAME] COPD exacerbation"),
        ("mr john smith walked", "mr [NAME] walked"),
        ("dr qwertzu agrees", "dr [NAME] agrees"),
        ("miss jones is here, spoke to miss jones", "miss [NAME] is here, spoke to miss [NAME]"),
        ("Miss qwertzu is well, nurse qwertzu came", "Miss [NAME] is well, nurse [NAME] came"),
        ("rn garcia at bedside, s/n okafor aware", "rn [NAME] at bedside, s/n [NAME] aware"),
        ("sr smith informed, np o'brien here", "sr [NAME] informed, np [NAME] here"),
        ("mr qwertzu coughs; ms qwertzu's son", "mr [NAME] coughs; ms [NAME]'s son"),
        ("per doctor qwertzu, professor zzyx said", "per doctor [NAME], professor [NAME] said"),
        ("dr.jones aware, mr and mrs smith", "dr.[NAME] aware, mr and mrs [NAME]"),
        ("dr van der berg, mr de la cruz", "dr [NAME], mr [NAME]"),
        ("dr bell, dr day, mr bell coughs", "dr [NAME], dr [NAME], mr [NAME] coughs"),
        ("Mr. smith's cough, Dr. Smith's office", "Mr. [NAME]'s cough, Dr. [NAME]'s office"),
    ],
)
def test_names_are_replaced(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("Film of 2020-03-05.", "Film of 2017-06-09."),
        ("On 5 March 2020 and March 5, 2020.", "On 9 June 2017 and June 9, 2017."),
        ("on 5th of Mar 2020", "on 9 of Jun 2017"),
        ("am 05.03.2020", "am 09.06.2017"),
        ("25/12/2019 is not ambiguous", "30/03/2017 is not ambiguous"),
        ("12/25/2019 neither", "03/30/2017 neither"),
        ("03/04/2020 is", "[DATE] is"),
        ("Seen on Jan 5. In May 7.5 mm.", "Seen on [DATE]. In May 7.5 mm."),
        ("Seen Jan 5 and in 2019, again March 2020.", "Seen [DATE] and in [DATE], again [DATE]."),
        ("20200305", "20170609"),
        (
            "2020-03-05/2020-03-06, 05.03.2020-06.03.2020",
            "2017-06-09/2017-06-10, 09.06.2017-10.06.2017",
        ),
        ("30.02.2020", "[DATE]"),
    ],
)
def test_dates_move_by_the_patients_shift_or_are_masked(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned


def test_day_and_month_move_where_their_order_is_said() -> None:
    assert clean("03/04/2020", day_first=True) == "08/07/2017"
    assert clean("03/04/2020", day_first=False) == "06/08/2017"
    assert clean("2020-03-05", dates="remove") == "[DATE]"


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("A 93-year-old man, 90 years old, 89 y/o.", "A 90-year-old man, 90 years old, 89 y/o."),
        ("aged 101", "aged 90"),
        ("MRN: 12345678", "MRN: [ID]"),
        ("accession number AB1234", "accession number [ID]"),
        ("SSN 078-05-1120", "SSN [ID]"),
        ("call 617-555-0199 or +49 89 1234567", "call [PHONE] or [PHONE]"),
        ("ext. 4411", "ext. [PHONE]"),
        ("mail a.b@c.org, see https://x.org/?p=1", "mail [EMAIL], see [URL]"),
        ("UID 1.2.840.113619.2.55.3.1", "UID [ID]"),
        ("file X1234567 of 83649127", "file [ID] of [ID]"),
    ],
)
def test_ages_and_numbers_are_replaced(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("at Mount Sinai Hospital", "at [PLACE]"),
        ("transferred from St. Mary's Hospital.", "transferred from [PLACE]."),
        ("from University Hospital of Wales", "from [PLACE]"),
        ("lives at 12 Elm Street with 2 cats", "lives at [PLACE] with 2 cats"),
        ("returned from Bergamo", "returned from [PLACE]"),
        ("Wuhan pneumonia", "[PLACE] pneumonia"),
        ("Boston, MA 02115", "[PLACE], [PLACE]"),
        ("SW1A 1AA", "[PLACE]"),
        ("Address: Via Roma 12, Torino", "Address: [PLACE]"),
        ("Returned from Ottery last week.", "Returned from [PLACE] last week."),
    ],
)
def test_places_are_replaced(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned


@pytest.mark.parametrize(
    "text",
    [
        "PA and lateral views. Right Lower Lobe opacity, may represent pneumonia.",
        "BP 120/80, T 38.5 C, SpO2 92 %, WBC 15,000, platelets 250000, 3/4 strength, L4/5, T8.",
        "Nodule of 5 x 7 mm, series 2 image 14. May 5 mm nodules be benign?",
        "Chest X-Ray Portable. Swan Ganz catheter. Kerley B lines. Foley, Hickman and Dobhoff.",
        "Admitted to the hospital. The University Hospital. In the clinic.",
        "ms, a 45-year-old woman with MS; COPD; CHF; on 2 L O2. March fracture.",
        "Lives with his wife, takes 3 pills. Living with HIV for 10 years. Born preterm.",
        "Came Monday; visited Cardiology; lives at home; moved to Intensive Care with 2 L O2.",
        "Addison disease, Murphy's sign, Morgan hernia, Barrett esophagus. Colon Cancer.",
        "Infant. Valid study. Less air. Oral contrast. Unknown. Little change. Nail bed. Media.",
        "mr imaging, mr spine, mild mr and tr, ms flare, 200 ms delay, a dr said, doctor knows.",
        "did not miss smith; may miss jones; patients miss meals; to miss work; near miss smith.",
        "nurse drew labs, rn held metoprolol, nurse call light, np swab, np student, sr rhythm.",
        "mr elastography shows, mr lumbar spine, mr jet is eccentric, mr fraction is 30",
        "ms changes on mri; ms specialist; ms contin; ms drip; doctor prescribed",
        "mr urographic is, ms treating to, nurse probably is, nurse alone is, sn held in.",
        "Heart RATE; Vein GRAFT; Mark CHF; May STEMI. Swan-Ganz, Jackson-Pratt.",
        "Epstein-Barr virus. Stevens-Johnson. Lippen-Kiefer-Gaumenspalte.",
        "Wolff-Parkinson-White syndrome, Non-Hodgkin lymphoma, Henoch-Schonlein purpura.",
        "Ghon complex; Cheyne Stokes; Parkinson disease; Crohn disease; Hodgkin lymphoma.",
    ],
)
def test_clinical_words_stay(text: str) -> None:
    assert clean(text) == text


def test_known_names_go_in_any_case_and_by_part() -> None:
    person = Person("P1", -1, names=("Quimby^Aloysius^^Mr",), identifiers=("AB-77",))
    text = "quimby, ALOYSIUS, Quimby-Jones; AB-77 and AB-778"
    assert clean(text, person) == "[NAME], [NAME], [NAME]-[NAME]; [ID] and AB-778"


def test_a_known_name_that_is_a_word_goes_only_with_its_capital() -> None:
    person = Person("P1", -1, names=("Small^Rose",))
    assert clean("Small has a small nodule, rose", person) == "[NAME] has a small nodule, rose"


def test_no_canary_is_left_in_a_note() -> None:
    person = Person("P1", -1_000, names=(f"{LAST}^{FIRST}",))
    cleaned = clean(NOTE, person)
    assert [name for name, canary in CANARIES.items() if canary.lower() in cleaned.lower()] == []
    assert "productive cough and fever of 38.5 C" in cleaned
    assert "denies calf swelling" in cleaned
    assert DOCTOR in clean(NOTE, person, text=False)


def test_the_known_truth_cohorts_notes_stay_as_they_are() -> None:
    """But for the year and the city that some of them mention, nothing in 60 notes is replaced."""
    wrong = set()
    for index in range(60):
        note = make_study(CohortOptions(seed=0, size=192), index).study.note or b""
        text = note.decode("utf-8") if b"\r\n" not in note else note.decode("cp1252")
        _, spans = clean_text(text, PERSON, SETTINGS)
        wrong |= {text[span.start : span.end] for span in spans}
    assert wrong == {"1998", "Lisbon"}


@given(st.dates(date(1950, 1, 1), date(2090, 1, 1)), st.integers(-4_000, -1))
def test_intervals_between_dates_stay(day: date, shift: int) -> None:
    person = Person("P1", shift)
    moved = date.fromisoformat(clean(day.isoformat(), person))
    assert day - moved == timedelta(-shift)


@settings(deadline=None)
@given(st.text())
@example("Dr. " + "A" * 5_000)
@example("Seen by " + "John " * 2_000)
@example("1" * 5_000)
@example("a.b@" + "c." * 3_000)
def test_any_text_is_cleaned_in_order_and_without_overlap(text: str) -> None:
    cleaned, spans = clean_text(text, PERSON, SETTINGS)
    ends = [0, *(span.end for span in spans)]
    assert all(span.start >= end for span, end in zip(spans, ends, strict=False))
    kept = sum(len(span.by) for span in spans) + len(text) - sum(s.end - s.start for s in spans)
    assert len(cleaned) == kept


@settings(deadline=None)
@given(st.lists(st.sampled_from(["Dr.", "John", "Smith", "coughs", "on", "2020-03-05", "MRN"])))
def test_a_transcripts_phrases_join_to_the_cleaned_text(words: Sequence[str]) -> None:
    phrases = [Phrase(word, float(i), i + 1.0) for i, word in enumerate(words)]
    cleaned, silences, spans = clean_transcript(phrases, PERSON, SETTINGS)
    text = " ".join(words)
    assert "".join("".join(p.text for p in cleaned).split()) == "".join(
        write_span(text, 0, len(text), spans).split()
    )
    assert [(p.start_s, p.end_s) for p in cleaned] == [(p.start_s, p.end_s) for p in phrases]
    changed = [
        (o.start_s, o.end_s) for o, n in zip(phrases, cleaned, strict=True) if o.text != n.text
    ]
    assert set(changed) <= set(silences)


def test_a_name_over_two_phrases_is_masked_once_and_silenced_twice() -> None:
    phrases = [
        Phrase("told Dr.", 0.0, 1.0),
        Phrase("John", 1.0, 1.5),
        Phrase("Smith now", 1.5, 3.0),
    ]
    cleaned, silences, _ = clean_transcript(phrases, PERSON, SETTINGS)
    assert [phrase.text for phrase in cleaned] == ["told Dr.", "[NAME]", " now"]
    assert silences == ((1.0, 1.5), (1.5, 3.0))
