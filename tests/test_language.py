"""The catalogues hold all that is said, with the same values; what other parts say is found."""

import ast
import string
from collections.abc import Iterator
from pathlib import Path

import pytest
from babel.messages.pofile import read_po

import medfuse_serving
from medfuse.bundle import NOTICE
from medfuse.errors import SettingsError
from medfuse.overlay import MAP_LEGEND, NOTE_LEGEND
from medfuse.trust.record import TrustSettings
from medfuse_serving.answer import (
    GENERATED,
    JudgementAnswer,
    PromiseAnswer,
    describe_judgement,
    describe_promises,
)
from medfuse_serving.language import ENGLISH, LANGUAGES, Language, find_language
from medfuse_serving.refusals import REFUSALS
from medfuse_serving.sentences import CHECKS, REMARKS, SENTENCES

ROOT = Path(__file__).parent.parent
SERVING = Path(medfuse_serving.__path__[0])
OTHERS = [code for code in LANGUAGES if code != "en"]
CONSTANTS = {NOTICE, GENERATED, MAP_LEGEND, NOTE_LEGEND}
"""Messages that are constants of other parts."""


def list_messages(folder: Path) -> Iterator[str]:
    """Every literal that is marked as a message, or said in a reader's language."""
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and node.args):
                continue
            marks = isinstance(node.func, ast.Name) and node.func.id == "message"
            says = (
                isinstance(node.func, ast.Attribute)
                and node.func.attr == "text"
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id == "language"
            )
            first = node.args[0]
            if (marks or says) and isinstance(first, ast.Constant):
                yield str(first.value)


def catalogue(code: str) -> dict[str, str]:
    with (SERVING / "locale" / code / "LC_MESSAGES" / "medfuse.po").open("rb") as file:
        entries = [entry for entry in read_po(file, locale=code) if entry.id]
    assert not any(entry.fuzzy for entry in entries)
    return {str(entry.id): str(entry.string) for entry in entries}


def fields(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


@pytest.mark.parametrize("code", OTHERS)
def test_every_message_is_translated_and_no_other(code: str) -> None:
    said = set(list_messages(SERVING)) | CONSTANTS
    assert len(said) > 80
    found = catalogue(code)
    assert said - set(found) == set()
    assert set(found) - said == set()
    assert [message for message, translation in found.items() if not translation.strip()] == []


@pytest.mark.parametrize("code", OTHERS)
def test_a_translation_has_its_message_s_values(code: str) -> None:
    for message, translation in catalogue(code).items():
        missing = fields(message) ^ fields(translation)
        # "Nothing of the note is left after ..." is one fixed sentence in Chinese.
        assert missing <= {"what"}, message


@pytest.mark.parametrize("code", OTHERS)
def test_a_translation_is_no_english(code: str) -> None:
    alike = {m for m, t in catalogue(code).items() if m == t}
    assert alike <= {"Grad-CAM"}


def test_an_unknown_language_is_refused_with_those_there_are() -> None:
    with pytest.raises(SettingsError, match=r"'fr' is unknown; expected one of en, zh"):
        find_language("fr")


def test_messages_are_said_in_the_reader_s_language() -> None:
    chinese = find_language("zh")
    assert ENGLISH.text("from {modalities} alone", modalities="note") == "from note alone"
    assert chinese.text("from {modalities} alone", modalities="病历") == "仅依据病历"
    assert (ENGLISH.tag, chinese.tag) == ("en", "zh-Hans")
    assert (ENGLISH.name("heart_failure"), chinese.name("heart_failure")) == (
        "heart failure",
        "心力衰竭",
    )
    # Braces of a model's own name are no values.
    assert chinese.name("a_{strange}_name") == "a {strange} name"


def test_a_sentence_made_elsewhere_keeps_its_figures() -> None:
    chinese = find_language("zh")
    assert chinese.sentence("8 of 40 frames were read, evenly spread.") == (
        "在 40 帧中均匀选取并读取了 8 帧。"
    )
    english = (
        "Under noise that moves the probability by 0.012 at most, the image keeps 0.31 of its map "
        "(1 is all; at least 0.50 is good)."
    )
    assert chinese.sentence(english) == (
        "在使概率变化不超过 0.012 的噪声下，图像的归因图保持 0.31"
        "（1 为完全一致，至少 0.50 为合格）。"
    )
    assert ENGLISH.sentence(english) == english
    assert chinese.sentence("A sentence of no known form.") == "A sentence of no known form."


def forms(path: str) -> set[str]:
    """Every text in a file, its values as empty braces."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)
        elif isinstance(node, ast.JoinedStr):
            found.add("".join(_form(part) for part in node.values))
    return found


def _form(node: ast.expr) -> str:
    return str(node.value) if isinstance(node, ast.Constant) else "{}"


def blank(form: str) -> str:
    return "".join(
        text + ("" if name is None else "{}") for text, name, _, _ in string.Formatter().parse(form)
    )


def said_by(path: str) -> set[str]:
    """What a file assigns to ``message`` or to ``figures``, or has in its table of messages."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Name):
            continue
        name, value = node.targets[0].id, node.value
        values = value.values if isinstance(value, ast.Dict) and name == "_MESSAGES" else [value]
        if name in {"message", "figures", "_MESSAGES"}:
            found |= {
                _form(v) if isinstance(v, ast.Constant) else "".join(map(_form, v.values))
                for v in values
                if isinstance(v, ast.Constant | ast.JoinedStr)
            }
    return found


def test_every_remark_and_check_has_its_form() -> None:
    known = {blank(form) for form in SENTENCES}
    figures = blank(CHECKS[4])
    for path in ("image", "note", "voice"):
        said = said_by(f"medfuse/data/{path}.py")
        assert said
        assert said <= known, path
    for said_form in said_by("medfuse/attribution/badge.py"):
        assert said_form.replace("). {}", f"). {figures}") in known


def test_no_form_is_of_a_sentence_that_is_no_longer_said() -> None:
    paths = [f"medfuse/data/{name}.py" for name in ("image", "note", "voice")]
    said = {form for path in (*paths, "medfuse/attribution/badge.py") for form in forms(path)}
    figures = blank(CHECKS[4])
    for form in REMARKS + CHECKS:
        assert blank(form).replace(f"). {figures}", "). {}") in said, form


REFUSING = (
    *sorted((ROOT / "medfuse/data").glob("*.py")),
    ROOT / "medfuse/dictation/transcribe.py",
    *sorted((SERVING / "page").glob("*.py")),
    *(SERVING / f"{name}.py" for name in ("reading", "reading_panel")),
    *(SERVING / "worklist" / f"{name}.py" for name in ("records", "store")),
)
"""The files whose errors can come to the page."""

TYPES = {"InputError", "DicomError", "NoteError", "VoiceError", "LimitError"}


def refused_by(path: Path) -> Iterator[str]:
    """What a file's errors of input say, their values as empty braces."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    named = {
        node.targets[0].id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args):
            continue
        text = node.args[0]
        if isinstance(text, ast.Name) and text.id in named:
            text = named[text.id]
        if node.func.id in TYPES and not isinstance(text, ast.Call | ast.Attribute):
            yield join(text)  # a marked message, here or elsewhere, is in the catalogue by itself
        elif node.func.id == "refuse_faults":
            yield join(text) + " ({})"


def join(text: ast.expr) -> str:
    if isinstance(text, ast.BinOp):
        return join(text.left) + join(text.right)
    return "".join(map(_form, text.values)) if isinstance(text, ast.JoinedStr) else _form(text)


REASONS = "the study has no image, no note and no voice to read"
ELSEWHERE = ("{}: ", "{} ({})")
"""How errors of a folder of studies begin, and `refuse_faults` its own: these have no form."""


@pytest.mark.parametrize("code", OTHERS)
def test_every_refusal_that_comes_to_the_page_is_translated(code: str) -> None:
    language = find_language(code)
    refused = {said for path in REFUSING for said in refused_by(path)}
    assert len(refused) > 100
    for said in refused:
        if said.startswith(ELSEWHERE):
            continue
        sentence = said.replace(f"{REASONS}{{}}", REASONS).replace("{}", "7")
        assert language.sentence(sentence) != sentence, said


def test_no_form_is_of_a_refusal_that_is_no_longer_said() -> None:
    refused = {said for path in REFUSING for said in refused_by(path)}
    parts = {text for path in REFUSING for text in forms(str(path))}
    for form in REFUSALS:
        assert blank(form) in refused | parts | {REASONS, f"{REASONS}; {{}}"}, form


def test_a_refusal_is_said_in_the_reader_s_language_with_its_reason() -> None:
    chinese = find_language("zh")
    assert chinese.sentence("the note is a PDF file; expected plain text") == (
        "病历是PDF 文件；应为纯文本"
    )
    assert chinese.sentence(f"{REASONS}; The recording is silent: never louder than -60 dBFS.") == (
        "该检查没有可读取的图像、病历或录音；录音无声：响度始终不超过 -60 dBFS。"
    )
    assert chinese.sentence(
        "the recording's DICOM object cannot be read: its waveform is damaged (KeyError)"
    ) == ("无法读取录音的 DICOM 对象：其波形已损坏（KeyError）")


def test_what_an_answer_promises_is_said_in_both_languages() -> None:
    promises = PromiseAnswer.model_validate(TrustSettings().model_dump())
    judgement = JudgementAnswer(
        question="findings.nodule",
        possible=("present",),
        interval=None,
        likeliest="present",
        sure=False,
        positive=True,
    )
    chinese = find_language("zh")
    assert describe_judgement(judgement, promises) == (
        "present · not sure · above the screening threshold (90% sensitivity)"
    )
    assert describe_judgement(judgement, promises, chinese) == (
        "有 · 把握不足 · 高于筛查阈值（灵敏度 90%）"
    )
    both = judgement.model_copy(update={"possible": ("absent", "present"), "positive": None})
    assert describe_judgement(both, promises, chinese) == "无法判断 · 把握不足"
    assert "90%" in describe_promises(promises, chinese)
    # What is above a threshold for screening is no verdict, least of all beside "can't tell".
    for language, verdict in ((ENGLISH, "positive"), (chinese, "阳性")):
        unsure = both.model_copy(update={"positive": True})
        assert verdict not in describe_judgement(unsure, promises, language)
        assert verdict not in describe_promises(promises, language)


def test_a_language_without_a_message_says_it_in_english() -> None:
    assert Language("zh", {}).text("sure") == "sure"
