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
        "in the late 90s, sats in the low 90s",
        "a ninety-year-old and a 90-year-old",
        "of 92 M and 80 F, ratio 92/100, 1.92 years",
        "turned 92 degrees, patient was 92 on room air, he is 92%, died at 11:30, a 92 kg man",
        "130 years of records, 200 y",
    ],
)
def test_what_only_looks_like_an_age_stays(text: str) -> None:
    assert clean(text) == text
