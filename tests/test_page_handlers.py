"""The page's handlers, each called as Gradio would, without a browser."""

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import gradio
import numpy as np
import pytest

from medfuse.errors import InputError
from medfuse.types import Study
from medfuse_serving.answer import to_answer
from medfuse_serving.explainer import Explainer
from medfuse_serving.language import ENGLISH, find_language
from medfuse_serving.missing import Reaches
from medfuse_serving.page.answering import (
    decide,
    find_reaches,
    keep_impression,
    predict,
    show_decision,
)
from medfuse_serving.page.desk import Desk, edit_note, lay_images, lay_out
from medfuse_serving.page.explaining import explain
from medfuse_serving.page.giving import (
    add_dictation,
    add_images,
    add_prior,
    add_voice,
    open_note,
    retype,
    retype_note,
)
from medfuse_serving.page.parts import lay_parts
from medfuse_serving.page.practice import Practice
from medfuse_serving.page.removing import find_unwanted, remove_unread, remove_voice
from medfuse_serving.page.reporting import write_report
from medfuse_serving.page.room import Room, answering, changing
from medfuse_serving.page.session import Session
from medfuse_serving.page.turning import catch_up, turn
from medfuse_serving.predictor import Predictor
from medfuse_serving.shelves import Shelves
from medfuse_serving.worklist.records import ReadingStep
from tests.dicom_files import make_file
from tests.hand_bundle import NOTE, SETTINGS, make_dicom, make_wav
from tests.hand_network import MIXED, HandNetwork

NOT_YET, FORGOTTEN = "did not yet show the study", "no longer has the study"
REACHES = Reaches()


@pytest.fixture(scope="module")
def predictor(hand_bundle: Path) -> Predictor:
    return Predictor(hand_bundle)


def lay_room(predictor: Predictor) -> tuple[Room, Desk]:
    """Lay a page out with a note on its desk, without a browser."""
    explainer = Explainer(predictor, None, HandNetwork(MIXED))
    with gradio.Blocks():
        parts = lay_parts(explainer, (), Practice())
    room = Room(explainer, (), Shelves(), Practice(), parts)
    return room, lay_out(ENGLISH, Study(note=NOTE), SETTINGS, room.shelves)


def desk_of(room: Room, shown: dict[object, object]) -> Desk:
    desk = shown[room.parts.states.desk]
    assert isinstance(desk, Desk)
    return desk


def test_a_note_that_was_left_comes_with_what_it_is_of(predictor: Predictor) -> None:
    room, desk = lay_room(predictor)
    noted = room.parts.given.noted
    assert retype_note(room, "Fever.", "another.study's.laid", desk) == {noted: ""}
    desk = replace(desk, form="own", noted="this", shown="now")
    for note in ("Fever.", desk.note_text):  # changed and changed back
        # A part of the study may be on its way.
        told = retype_note(room, note, "own.this.before", desk)[noted]
        text, laid, shown = json.loads(str(told))
        assert (text, laid) == (note, desk.laid)
        assert note.split()[-1] in shown


def test_only_an_image_that_the_page_shows_is_removed(predictor: Predictor) -> None:
    room, _ = lay_room(predictor)
    clip, film = (make_file(np.zeros(shape, np.uint16)) for shape in ((3, 9, 9), (9, 9)))
    desk = lay_images(Desk(shown="so"), (clip, film, clip), SETTINGS, room.shelves)
    assert desk.frames is not None
    token = desk.frames.shelf.token
    found = [find_unwanted(json.dumps([token, frame]), desk, desk.frames) for frame in range(7)]
    assert found == [0, 0, 0, 1, 2, 2, 2]
    for other in (["another", 0], [token, 7], [token, -1], [token], "", None):
        with pytest.raises(InputError, match=NOT_YET):
            find_unwanted(json.dumps(other), desk, desk.frames)
    with pytest.raises(InputError, match=NOT_YET):
        find_unwanted(json.dumps([token, 0]), desk, None)


def test_nothing_is_asked_of_a_study_that_the_page_does_not_show(predictor: Predictor) -> None:
    room, desk = lay_room(predictor)
    (prediction,) = predictor.predict([desk.study])
    own = replace(desk, form="own", shown="so", answer=to_answer(prediction))
    forgotten, text = Desk(), desk.note_text
    asks: tuple[Callable[[Session, str], object], ...] = (
        lambda k, v: keep_impression(room, "{}", text, v, k.desk, None, "", "", "seen", ""),
        lambda k, v: list(explain(room, text, v, k, "a.b", "gradients", None, False)),
        lambda k, v: decide(room, "accept", "", text, v, k.desk, None, "", "", ""),
        lambda k, v: list(find_reaches(room, k, text, v)),
        lambda k, v: write_report(room, text, v, k, None),
        lambda k, v: remove_voice(room, k.desk, text, v),
        lambda k, v: remove_unread(room, k.desk, text, v),
    )
    for kept, laid, told in (
        (own, "another..", NOT_YET),
        (own, "..", NOT_YET),
        (forgotten, own.laid, FORGOTTEN),
        (forgotten, "..so", FORGOTTEN),
    ):
        for ask in asks:
            with pytest.raises(InputError, match=told):
                ask(Session(kept), laid)
    with pytest.raises(InputError, match=FORGOTTEN):
        predict(room, text, own.laid, forgotten, None, "", "", "")


def test_a_study_that_the_page_does_not_show_is_shown_before_it_is_answered(
    predictor: Predictor,
) -> None:
    room, desk = lay_room(predictor)
    own = replace(desk, form="own", noted="so", shown="so")
    shown = predict(room, "FINDINGS: typed", "own.so.", own, None, "", "", "")(own)
    assert room.parts.given.note not in shown
    shown = predict(room, "FINDINGS: another", "own..", own, None, "", "", "")(own)
    assert desk_of(room, shown) == own
    assert "press Predict again" in str(shown[room.parts.answer])
    assert shown[room.parts.given.laid] == own.laid
    assert shown[room.parts.given.note] == own.note_text


def test_no_part_is_given_to_another_study(predictor: Predictor, tmp_path: Path) -> None:
    room, desk = lay_room(predictor)
    own, text = replace(desk, form="own", shown="so"), "FINDINGS: of another"
    path = tmp_path / "upload"
    gives: tuple[Callable[[Desk, str], object], ...] = (
        lambda k, v: add_images(room, [str(path)], k, text, v),
        lambda k, v: open_note(room, "0", str(path), Session(k), v),
        lambda k, v: list(add_dictation(room, "0", str(path), Session(k), v)),
        lambda k, v: add_voice(room, str(path), k, text, v),
        lambda k, v: add_prior(room, [str(path)], k, v),
    )
    # A study put together by hand has no form; one that was forgotten is not begun anew by its
    # next part.
    for kept, laid, told in (
        (own, "another..", "chosen for another study"),
        (Desk(), own.laid, FORGOTTEN),
        (Desk(), "..so", FORGOTTEN),
    ):
        for give in gives:
            path.write_bytes(b"a part")
            with pytest.raises(InputError, match=told):
                give(kept, laid)
            assert not path.exists()


def test_parts_may_be_given_before_those_before_them_are_shown(
    predictor: Predictor, tmp_path: Path
) -> None:
    room, _ = lay_room(predictor)

    def give(name: str, data: bytes) -> str:
        (tmp_path / name).write_bytes(data)
        return str(tmp_path / name)

    first, typed = Desk(), "FINDINGS: typed"
    image = make_dicom(np.full((9, 9), 1, np.uint16))
    shown = add_images(room, [give("image", image)], first, typed, first.laid)
    assert room.parts.given.note not in shown  # what stands there may have been typed since
    second = desk_of(room, shown)
    third = desk_of(room, add_voice(room, give("voice", make_wav()), second, typed, first.laid))
    assert third.study == Study(images=(image,), note=typed.encode(), voice=make_wav())
    session = Session(third)
    shown = open_note(room, "0", give("note", NOTE), session, first.laid)
    assert shown[room.parts.given.note] == NOTE.decode()
    fourth = session.desk
    # What stood in the text box before that note came is no part of it.
    for before in (first, second, third):
        assert edit_note(fourth, typed, before.laid) is fourth
    assert edit_note(fourth, typed, fourth.laid).study.note == typed.encode()
    # And nothing is answered before it is all shown.
    for before in (first, second, third):
        ask = predict(room, typed, before.laid, fourth, None, "", "", "")
        assert desk_of(room, ask(fourth)).answer is None


def test_parts_that_are_given_at_once_are_all_kept(predictor: Predictor, tmp_path: Path) -> None:
    """Gradio gives both handlers what the state was before either."""
    room, _ = lay_room(predictor)
    session, begun, go_on = Session(), threading.Event(), threading.Event()

    def take_late(room: Room, *values: Any) -> dict[object, object]:
        begun.set()
        assert go_on.wait(10)
        return add_images(room, *values)

    def give(name: str, data: bytes) -> str:
        (tmp_path / name).write_bytes(data)
        return str(tmp_path / name)

    image, laid = make_dicom(np.full((9, 9), 1, np.uint16)), Desk().laid
    images, voice = [give("image", image)], give("voice", make_wav())
    with ThreadPoolExecutor() as pool:
        first = pool.submit(changing(room, take_late), images, session, "typed", laid)
        assert begun.wait(10)
        second = pool.submit(changing(room, add_voice), voice, session, "typed", laid)
        time.sleep(0.1)
        go_on.set()
        for done in (first, second):
            assert done.result(10)[room.parts.states.desk] is session
    assert session.desk.study == Study(images=(image,), note=b"typed", voice=make_wav())


def test_what_takes_long_is_put_on_the_newest_desk_unless_the_study_changed(
    predictor: Predictor,
) -> None:
    room, desk = lay_room(predictor)
    place, chinese = room.parts.states.desk, find_language("zh")

    def answer(session: Session, meanwhile: Callable[[], object]) -> dict[object, object]:
        def ask(room: Room, given: Desk) -> Callable[[Desk], dict[object, object]]:
            meanwhile()
            return lambda newest: {place: replace(newest, problem="answered")}

        return answering(room, ask)(session)

    session = Session(desk)
    shown = answer(session, lambda: turn(room, "zh", desk.note_text, "..", session, None, REACHES))
    assert shown == {place: session}
    assert session.desk.problem == "answered"
    assert session.desk.language == chinese
    session = Session(desk)
    assert answer(session, lambda: retype(session, "1")) == {place: gradio.skip()}
    assert session.desk.problem == ""
    session = Session(desk)
    voice = changing(room, remove_voice)
    answer(session, lambda: voice(session, desk.note_text, desk.laid))
    assert session.desk.problem == ""
    # A part that is refused changes nothing.
    session = Session(desk)

    def be_refused() -> None:
        with pytest.raises(InputError):
            voice(session, desk.note_text, "another..")

    answer(session, be_refused)
    assert session.desk.problem == "answered"

    # What went wrong with a study that is not there any more is not said beside the next.
    def fail(room: Room, given: Desk) -> Callable[[Desk], dict[object, object]]:
        retype(session, "2")
        raise InputError("no")

    assert answering(room, fail)(session) == {place: gradio.skip()}


def test_a_change_is_late_if_an_answer_was_asked_for_after_it() -> None:
    session = Session(count=5, heard=2)
    retype(session, "2")
    assert session.count == 5
    retype(session, "3")
    assert session.count == 6


def test_a_note_that_is_typed_while_its_file_is_on_the_way_is_kept(
    predictor: Predictor, tmp_path: Path
) -> None:
    room, desk = lay_room(predictor)
    path = tmp_path / "note"
    session = Session(desk)
    retype(session, "3")
    path.write_bytes(b"FINDINGS: another")
    with pytest.raises(InputError, match="give it again"):
        open_note(room, "2", str(path), session, desk.laid)
    assert session.desk is desk
    assert not path.exists()
    path.write_bytes(b"FINDINGS: another")
    open_note(room, "3", str(path), session, desk.laid)
    assert session.desk.note_text == "FINDINGS: another"


def test_what_was_turned_over_by_an_earlier_state_is_shown_again(predictor: Predictor) -> None:
    room, desk = lay_room(predictor)
    desk = replace(desk, form="own", noted="this", shown="now")
    parts = room.parts

    def catch(desk: Desk, laid: str) -> dict[object, object]:
        session = Session(desk)
        shown = catch_up(room, desk.note_text, laid, session, None, REACHES)
        assert shown[parts.states.desk] is session
        assert session.desk == desk
        return shown

    assert parts.answer not in catch(desk, desk.laid)
    assert parts.evidence.image not in catch(Desk(), "own.this.before")
    older = "own.that.before"
    for laid in (older, desk.laid.replace("en", "zh"), desk.mark + ".1.en"):
        shown = catch(desk, laid)
        assert shown[parts.given.laid] == desk.laid
        assert parts.evidence.image in shown
        assert parts.evidence.note in shown
        assert (parts.header in shown) == (laid != older)


def test_an_answer_waits_a_moment_for_a_part_and_is_then_told_to_wait(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of the first part, when the server has no study yet."""
    monkeypatch.setattr("medfuse_serving.page.room.WAIT_S", 0.05)
    room, _ = lay_room(predictor)
    session, held, go_on = Session(), threading.Event(), threading.Event()

    def take_up() -> None:
        with session.lock:
            held.set()
            assert go_on.wait(10)

    with ThreadPoolExecutor() as pool:
        taking = pool.submit(take_up)
        assert held.wait(10)
        asks = answering(room, lambda *_: pytest.fail("nothing is answered"))
        with pytest.raises(InputError, match=NOT_YET):
            asks(session)
        go_on.set()
        taking.result(10)


def test_what_fails_unforeseen_and_too_late_is_logged(
    predictor: Predictor, caplog: pytest.LogCaptureFixture
) -> None:
    room, desk = lay_room(predictor)
    session = Session(desk)

    def fail(room: Room, given: Desk) -> Callable[[Desk], dict[object, object]]:
        retype(session, "1")
        raise ZeroDivisionError(given.note_text)  # its line is logged, its text is not

    answering(room, fail)(session)
    assert "ZeroDivisionError" in caplog.text
    assert desk.note_text.split()[-1] not in caplog.text


def test_what_was_decided_on_another_answer_is_not_shown(predictor: Predictor) -> None:
    room, desk = lay_room(predictor)
    now = datetime.now(UTC)
    step = ReadingStep(
        reading="this", opened_at=now, answered_at=now, decided_at=now, decision="accept"
    )
    assert "Kept" in show_decision(room, replace(desk, reading="this"), step)
    assert show_decision(room, replace(desk, reading="another"), step) == ""
