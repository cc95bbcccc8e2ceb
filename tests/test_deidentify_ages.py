"""Ages above 89 and years of birth in text: known answers, look-alikes, a law over all forms."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medfuse.deidentify.pseudonyms import Person
from medfuse.deidentify.settings import DeidentifySettings
from medfuse.deidentify.text import clean_text

FORMS = (
    "{}M with cough",
    "{}F after a fall",
    "A {} y.o. woman",
    "A {} y o man",
    "{} y/o",
    "{}yo F",
    "{}yoM",
    "Age {}y",
    "Age: {}",
    "AGE (years): {}",
    "aged {}",
    "at the age of {}",
    "A {}-year-old man",
    "{} yrs",
    "{} years of age",
    "({}/M)",
    "F/{}",
    "{} F with pain",
    "Pt is a {} WF with dementia",
    "She turned {} in spring",
    "Patient is {}.",
    "Male, {}, never smoked",
    "Her mother died at {}",
    "{}th birthday",
    "{} Jahre alt",
    "{}-y-o lady",
    "{}yM",
    "{}yoWF",
    "{}\u2011year\u2011old",
    "Age ({})",
    "age is now {}",
    "Her husband ({}) is her carer",
    "his wife, {}, came",
    "Mother: {}, well",
    "father d. {} of MI",
    "a lady of {}.",
    "retired teacher, {}, fell",
    "who is also {}.",
    "She's nearly {} and well",
    "He'll be {} next month",
    "They are both {}.",
    "At {}, she still drives",
    "now {} and frail",
    "frail at {} but well",
    "alert, {} but lives alone",
    "{}\u2640 with cough",
    "{} F brought by EMS",
    "{} female",
    "(F, {})",
    "{}f fell at home",
    "Triage: {} m w/ cough",
    "eine {}-jährige Frau",
)


def clean(note: str) -> str:
    return clean_text(note, Person("P1", -1_000), DeidentifySettings())[0]


@settings(deadline=None)
@given(st.sampled_from(FORMS), st.integers(90, 120))
def test_no_age_above_89_survives_in_any_form(form: str, age: int) -> None:
    assert clean(form.format(age)) == form.format(90)


@settings(deadline=None)
@given(st.sampled_from(FORMS), st.integers(0, 89))
def test_every_age_below_90_stays_in_any_form(form: str, age: int) -> None:
    assert clean(form.format(age)) == form.format(age)


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("A ninety-two year old man", "A 90 year old man"),
        ("ninety nine years of age", "90 years of age"),
        ("aged ninety-five", "aged 90"),
        ("A one hundred and two year-old", "A 90 year-old"),
        ("a hundred years old", "90 years old"),
        ("Eine fünfundneunzigjährige Frau", "Eine 90jährige Frau"),
        ("in his late nineties, in her 90s", "in his 90s, in her 90s"),
        ("A centenarian.", "A nonagenarian."),
        ("Mrs Kowalska, 92, fell", "Mrs [NAME], 90, fell"),
        ("Mr Jones (94) fell", "Mr [NAME] (90) fell"),
        ("She is ninety-two and well.", "She is 90 and well."),
        ("Mother died at ninety-four.", "Mother died at 90."),
    ],
)
def test_ages_in_words_are_replaced(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("Born 1931 in May.", "Born [DATE] in May."),
        ("DOB 1931", "DOB [DATE]"),
        ("D.O.B.: 1931", "D.O.B.: [DATE]"),
        ("Male, b. 1931, smoker", "Male, b. [DATE], smoker"),
        ("born '31", "born [DATE]"),
        ("Date of birth: 5 March 1931", "Date of birth: [DATE]"),
        ("born on the 5th of March 1931", "born on the [DATE]"),
        ("geb. 05.03.1931, Geburtsjahr 1931", "geb. [DATE], Geburtsjahr [DATE]"),
        ("DOB 2020-03-05, film 2020-03-05", "DOB [DATE], film 2017-06-09"),
        ("DoB - 1931, D/O/B: 1931, dob=1931", "DoB - [DATE], D/O/B: [DATE], dob=[DATE]"),
        ("Birth: 1931, birth yr 1931", "Birth: [DATE], birth yr [DATE]"),
        ("yr of birth 1931", "yr of birth [DATE]"),
        ("DOB verified: 5 March 1931", "DOB verified: [DATE]"),
        ("born in a town by the sea, 1931", "born in a town by the sea, [DATE]"),
        ("A retired miner (1931), his wife (1933)", "A retired miner ([DATE]), his wife ([DATE])"),
        ("Pat. *1931, Pat. *05.03.1931", "Pat. *[DATE], Pat. *[DATE]"),
        ("Jahrgang 1931, born 1931-05", "Jahrgang [DATE], born [DATE]"),
        ("m, b 1931", "m, b [DATE]"),
        ("DOB 12-Mar-31, dob March 12, 31", "DOB [DATE], dob [DATE]"),
        ("DOB March 12, 1931, born March 1931", "DOB [DATE], born [DATE]"),
    ],
)
def test_dates_and_years_of_birth_are_masked_and_not_moved(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned


@pytest.mark.parametrize(
    "text",
    [
        "92 mg of 92 M/L at 92 mL/min, 92M/L",
        "FiO2 92, SpO2 92%, sats 92, HR 92, 92 bpm",
        "92 F-wave studies, an F wave at 92 ms",
        "Temp 101F, Tmax 102F, fever to 103 F with chills, febrile at 101F.",
        "92 days old, 100 months old, 92-day-old infant, 92 y-axis",
        "ninety percent, ninety-two degrees, one hundred cells, ninety minutes, ninety-day course",
        "age 92 % of predicted, stage 92, image 92, dosage 100, page 101",
        "born at term, born 1950 g, newborn 1950 g, b. 2000 mg",
        "born preterm weighing 1950, at birth: 1950, birth weight 1950, birth: 1950 g",
        "stenting (2010), x*2000, hepatitis B 2010, vitamin b 2000; * 2019 bypass",
        "in the late 90s, sats in the low 90s",
        "a ninety-year-old and a 90-year-old",
        "of 92 M and 80 F, ratio 92/100, 1.92 years",
        "turned 92 degrees, patient was 92 on room air, he is 92%, died at 11:30, a 92 kg man",
        "130 years of records, 200 y",
        "sats at 92, he is well; HR now 92 and still high. Pulse 92 and walks, frail at 92 kg",
        "creatinine now 92, was 110; platelets now 92 and stable. At 92 it fell",
        "patient (92%), patient (92 kg), patients (92), mother 92 bpm, daughter 100 miles away",
        "patient of 92 kg, turned 92 %, wife's BP 130/92, MR imaging (92), image 92.",
        "92 m walked, then 92 f; temp: 101 f",
        "age 100 days, aged 98 weeks, 92 male patients, 92 females, 92 F to touch",
        "he is one hundred percent sure, she was 92 on room air, it is 92 and falls",
    ],
)
def test_what_only_looks_like_an_age_stays(text: str) -> None:
    assert clean(text) == text
