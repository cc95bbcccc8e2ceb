"""The worklist's store: what is put in comes out, in any order, after a restart, from anywhere."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, text

from medfuse.errors import InputError, StoreError
from medfuse.types import MODALITIES, Modality, Study
from medfuse_serving.answer import to_answer
from medfuse_serving.predictor import Predictor
from medfuse_serving.report.inputs import list_inputs
from medfuse_serving.worklist.records import (
    NextQuery,
    PageQuery,
    Query,
    ReadingStep,
    Sort,
    Status,
    StudyRow,
)
from medfuse_serving.worklist.store import Store, list_statement
from medfuse_serving.worklist.tables import STATUSES, from_bits, studies, to_bits
from tests.hand_bundle import make_study
from tests.postgres import running_postgres

NOW = datetime(2026, 5, 4, 3, 2, 1, 5, tzinfo=UTC)
SUBSETS = (
    Study(images=(b"i",)),
    Study(note=b"n"),
    Study(voice=b"v"),
    Study(images=(b"i", b"j"), note=b"", voice=b"v"),
)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with running_postgres() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where an empty worklist can be made."""
    if request.param == "sqlite":
        return str(tmp_path / "worklist.sqlite")
    url = str(request.getfixturevalue("server"))
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    engine.dispose()
    return url


def make_step(study: str | None = None, **changes: object) -> ReadingStep:
    values: dict[str, object] = {"reading": "r1", "study": study, "opened_at": NOW} | changes
    return ReadingStep.model_validate(values)


def list_all(store: Store, **query: object) -> list[StudyRow]:
    found = store.list_rows(PageQuery.model_validate({"limit": 200} | query))
    assert found.total == len(found.rows)
    return list(found.rows)


def test_a_study_comes_back_byte_for_byte_after_a_restart(place: str) -> None:
    study = Study(images=(bytes(range(256)), b""), note=b"", voice=b"\0v")
    before = datetime.now(UTC)
    with Store(place) as store:
        added = store.add("  S-1 ", study)
        alone = store.add("S-2", Study(note=b"n"))
        store.open(alone, "Reader 7")
    with Store(place) as store:
        row, found = store.get(added)
        assert found == study
        assert (row.label, row.modalities, row.status) == ("S-1", MODALITIES, Status.WAITING)
        assert before <= row.arrived <= datetime.now(UTC)
        assert row.arrived.utcoffset() == timedelta(0)
        assert store.get(alone)[0].reader == "Reader 7"
        assert [row.status for row in list_all(store, sort="label")] == ["waiting", "opened"]


def test_a_status_goes_one_way(place: str) -> None:
    with Store(place) as store:
        added = store.add("S-1", Study(note=b"n"))
        assert store.open(added, "A").status == "opened"
        assert store.open(added, "B").reader == "A"  # it was opened already
        store.keep(make_step(added, reader="B", impression_at=NOW))
        assert store.get(added)[0].status == "opened"
        store.keep(make_step(added, reader="B", decided_at=NOW, decision="accept"))
        assert store.open(added, "C").status == "read"
        assert store.get(added)[0].reader == "B"


def test_a_removed_study_is_gone_and_what_was_read_of_it_is_not(place: str) -> None:
    with Store(place) as store:
        one, other = (store.add(label, Study(note=b"n")) for label in ("S-1", "S-2"))
        store.keep(make_step(one, impression="Clear."))
        assert [line.label for line in store.list_readings()] == ["S-1"]
        store.remove(one)
        for use in (store.get, store.remove, lambda i: store.open(i, "")):
            with pytest.raises(InputError, match="no such study"):
                use(one)
        assert [row.id for row in list_all(store)] == [other]
        (line,) = store.list_readings()
        assert (line.study, line.label, line.impression) == (one, None, "Clear.")


def test_a_removed_study_leaves_no_byte_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "w.sqlite"
    with Store(str(path)) as store:
        store.remove(store.add("S-1", Study(note=b"a secret that nobody may find")))
    assert b"a secret" not in path.read_bytes()


def test_the_file_is_its_owner_s_alone(tmp_path: Path) -> None:
    with Store(str(tmp_path / "w.sqlite")) as store:
        store.add("S-1", Study(note=b"n"))
        made = list(tmp_path.iterdir())
        assert len(made) == 3  # with what SQLite has not yet written into it
        assert {path.stat().st_mode & 0o777 for path in made} == {0o600}


def test_a_reading_is_kept_step_by_step_and_whole(place: str, hand_bundle: Path) -> None:
    (prediction,) = Predictor(hand_bundle).predict([make_study()])
    answer = to_answer(prediction)
    first = make_step(
        None,
        reader="Reader 7",
        impression_at=NOW,
        findings={"findings.brightness": "present", "loudness": "12.5"},
        impression="Bright: 'quoted', 100 %; \N{SNOWMAN}",
        inputs=list_inputs(make_study()),
    )
    last = first.model_copy(
        update={
            "answered_at": NOW + timedelta(seconds=1),
            "decided_at": NOW + timedelta(seconds=2),
            "decision": "edit",
            "reason": "Not so bright.",
            "wording": "Bright.",
            "model_digest": answer.model_digest,
            "answer": answer,
        }
    )
    with Store(place) as store:
        store.keep(first)
        store.keep(last)
    with Store(place) as store:
        lines = list(store.list_readings())
    assert [line.number for line in lines] == [1, 2]
    kept = [
        ReadingStep.model_validate(dict(line) | {"number": 0}, extra="ignore") for line in lines
    ]
    assert kept == [first, last]


@pytest.mark.parametrize("statement", ["UPDATE medfuse_readings SET reason = 'x'", "DELETE FROM "])
def test_no_statement_changes_a_reading(place: str, statement: str) -> None:
    statement = statement if "UPDATE" in statement else f"{statement} medfuse_readings"
    with Store(place) as store:
        store.keep(make_step())
        with (
            pytest.raises(Exception, match="never changed or deleted"),
            store._writing.begin() as connection,
        ):
            connection.exec_driver_sql(statement)
        assert len(list(store.list_readings())) == 1


@pytest.mark.parametrize(
    "label", ["", "  ", "x" * 65, "a\nb", "a\0b", "\N{RIGHT-TO-LEFT OVERRIDE}x"]
)
def test_a_label_that_cannot_be_shown_is_refused_without_its_text(place: str, label: str) -> None:
    with Store(place) as store, pytest.raises(InputError, match="label") as caught:
        store.add(label, Study(note=b"n"))
    assert "xxx" not in str(caught.value)


def test_a_study_without_a_part_is_refused(place: str) -> None:
    with Store(place) as store, pytest.raises(InputError, match="no image, no note and no voice"):
        store.add("S-1", Study())


def test_the_same_study_is_known_by_its_label_and_bytes(place: str) -> None:
    with Store(place) as store:
        store.add("S-1", SUBSETS[3])
        assert store.has(" S-1", SUBSETS[3])
        assert not store.has("S-2", SUBSETS[3])
        assert not store.has("S-1", Study(images=(b"j", b"i"), note=b"", voice=b"v"))
        assert not store.has("S-1", Study(images=(b"i", b"j"), voice=b"v"))


# Order and filter ---------------------------------------------------------------------------------

LABELS = st.text(
    st.sampled_from("aAbBzZ09 -_%/\\'\"\u00df\u0130\u03a3\u75c5\u2603"), min_size=1, max_size=6
).filter(str.strip)
READERS = st.sampled_from(["", "a", "B", "b"])
STUDIES = st.lists(
    st.tuples(LABELS, st.sampled_from(SUBSETS), st.sampled_from(STATUSES), READERS), max_size=12
)
QUERIES = st.builds(
    Query,
    text=st.one_of(st.just(""), LABELS, st.sampled_from(["%", "_", "/", "ss", "A", "\\"])),
    modality=st.one_of(st.none(), st.sampled_from(MODALITIES)),
    status=st.one_of(st.none(), st.sampled_from(STATUSES)),
    sort=st.sampled_from(get_args(Sort)),
    descending=st.booleans(),
)

KEYS: dict[str, Callable[[StudyRow], object]] = {
    "label": lambda row: row.label.casefold(),
    "arrived": lambda row: row.arrived,
    "modalities": lambda row: sum(
        weight for m, weight in zip(MODALITIES, (1, 2, 4), strict=True) if m in row.modalities
    ),
    "status": lambda row: ["waiting", "opened", "read"].index(row.status),
    "reader": lambda row: row.reader,
}


def choose(rows: list[StudyRow], query: Query) -> list[StudyRow]:
    """Filter and sort as the store must, in plain Python."""
    wanted = [
        row
        for row in rows
        if query.text.casefold() in row.label.casefold()
        and query.modality in {None, *row.modalities}
        and query.status in {None, row.status}
    ]
    return sorted(wanted, key=lambda row: (KEYS[query.sort](row), row.id), reverse=query.descending)


def fill(store: Store, content: list[tuple[str, Study, Status, str]]) -> list[StudyRow]:
    for row in list_all(store):
        store.remove(row.id)
    for label, study, status, reader in content:
        added = store.add(label, study)
        if status is not Status.WAITING:
            store.open(added, reader)
        if status is Status.READ:
            store.keep(make_step(added, reader=reader, decided_at=NOW, decision="accept"))
    return list_all(store)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(content=STUDIES, query=QUERIES, offset=st.integers(0, 6), limit=st.integers(1, 6))
def test_rows_are_those_that_python_would_choose(
    place: str,
    content: list[tuple[str, Study, Status, str]],
    query: Query,
    offset: int,
    limit: int,
) -> None:
    with Store(place) as store:
        expected = choose(fill(store, content), query)
        page = PageQuery(**dict(query), offset=offset, limit=limit)
        found = store.list_rows(page)
    assert found.total == len(expected)
    assert list(found.rows) == expected[offset : offset + limit]


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(content=STUDIES, query=QUERIES, here=st.integers(-1, 11))
def test_the_next_study_is_the_next_that_waits_in_the_order(
    place: str, content: list[tuple[str, Study, Status, str]], query: Query, here: int
) -> None:
    with Store(place) as store:
        rows = fill(store, content)
        every = choose(
            rows, query.model_copy(update={"text": "", "modality": None, "status": None})
        )
        after = every[here].id if 0 <= here < len(every) else None
        found = store.find_next(NextQuery(**dict(query), after=after))
    waiting = choose(rows, query.model_copy(update={"status": Status.WAITING}))
    beyond = {row.id for row in every[here + 1 :]} if after is not None else set()
    expected = next((row for row in waiting if row.id in beyond), next(iter(waiting), None))
    assert found.row == expected
    shown = choose(rows, query)
    assert found.total == len(shown)
    if expected in shown:
        assert shown[found.index] == expected


def test_modalities_are_bits() -> None:
    assert to_bits((Modality.IMAGE, Modality.VOICE)) == 5
    assert [from_bits(bits) for bits in (0, 2, 7)] == [(), (Modality.NOTE,), MODALITIES]


@pytest.fixture(scope="module")
def long_list(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """10,000 studies."""
    with Store(str(tmp_path_factory.mktemp("long") / "w.sqlite")) as store:
        rows = [
            {
                "id": f"{number:032x}",
                "label": f"S{number:06d}",
                "label_key": f"s{number:06d}",
                "arrived": NOW + timedelta(seconds=number % 977),
                "modalities": 1 + number % 7,
                "status": STATUSES[number % 3],
                "reader": f"R{number % 5}",
                "changed": NOW,
                "digest": "",
            }
            for number in range(10_000)
        ]
        with store._writing.begin() as connection:
            connection.execute(studies.insert(), rows)
        yield store


@pytest.mark.parametrize("sort", get_args(Sort))
@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("status", [None, Status.WAITING])
def test_ten_thousand_rows_are_neither_sorted_nor_copied_for_a_page(
    long_list: Store, sort: Sort, descending: bool, status: Status | None
) -> None:
    query = PageQuery(sort=sort, descending=descending, status=status, text="S00", limit=50)
    with long_list._engine.connect() as connection:
        statement = list_statement(query).compile(connection)
        explained = f"EXPLAIN QUERY PLAN {statement}"
        assert "S00" not in explained.upper()  # it is bound
        values = statement.construct_params()
        plan = connection.exec_driver_sql(
            explained, tuple(values[name] for name in statement.positiontup or ())
        )
        said = " ".join(row.detail for row in plan)
    assert "USING INDEX medfuse_studies_by_" in said
    assert "TEMP B-TREE" not in said
    assert long_list.list_rows(query).rows


# Several at once, and what is not a worklist ------------------------------------------------------

ADDING = """
import sys
from datetime import UTC, datetime
from medfuse.types import Study
from medfuse_serving.worklist.records import ReadingStep
from medfuse_serving.worklist.store import Store

sys.stdin.readline()  # until all are ready
with Store(sys.argv[1]) as store:
    for number in range(15):
        added = store.add(f"{sys.argv[2]}-{number}", Study(note=b"n" * 5000))
        store.open(added, sys.argv[2])
        now = datetime.now(UTC)
        store.keep(ReadingStep(reading=added, study=added, reader=sys.argv[2], opened_at=now,
                               decided_at=now, decision="accept"))
"""


def test_processes_write_at_once_and_lose_nothing(place: str) -> None:
    names = ["a", "b", "c"]
    command = [sys.executable, "-c", ADDING, place]
    running = [subprocess.Popen([*command, n], stdin=subprocess.PIPE, text=True) for n in names]
    for process in running:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.close()
    assert [process.wait(timeout=120) for process in running] == [0, 0, 0]
    with Store(place) as store:
        rows = list_all(store, sort="label")
        assert len({row.id for row in rows}) == 45
        assert {(row.label[0], row.reader, row.status) for row in rows} == {
            (name, name, Status.READ) for name in names
        }
        assert len(list(store.list_readings())) == 45


def test_what_is_no_worklist_is_told_in_one_line(tmp_path: Path) -> None:
    damaged, other, newer, lacking = (tmp_path / name for name in "abcd")
    damaged.write_bytes(b"Doe^Jane" * 1000)
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE patients (name TEXT)")
    connection.close()
    for path, statement in (
        (newer, "UPDATE medfuse_schema SET version = 2"),
        (lacking, "DROP TABLE medfuse_parts"),
    ):
        Store(str(path)).close()
        with sqlite3.connect(path) as connection:
            connection.execute(statement)
        connection.close()
    password = "postgresql://jane:secret-word@127.0.0.1:1/medfuse"
    pytest.importorskip("psycopg", reason="PostgreSQL's driver is the extra postgres")
    for place, expected in (
        (str(damaged), "cannot be used"),
        (str(other), "holds something else"),
        (str(newer), "schema version 2; this medfuse reads 1"),
        (str(lacking), "lacks 1 of its tables"),
        (str(tmp_path / "none" / "w.sqlite"), "expected a folder"),
        (str(tmp_path), "Is a directory"),
        ("mysql://jane:secret-word@host/d", "expected a file's path, or postgresql://"),
        ("postgresql://jane:secret-word@host:port/d", "expected a file's path, or postgresql://"),
        (password, "cannot be used"),
    ):
        with pytest.raises(StoreError, match=expected) as caught:
            Store(place)
        said = str(caught.value)
        assert "\n" not in said
        assert not any(word in said for word in ("Doe", "jane", "secret", "patients"))


def test_a_part_that_was_altered_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.sqlite"
    with Store(str(path)) as store:
        added = store.add("S-1", Study(note=b"no fever"))
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE medfuse_parts SET data = 'fever'")
            connection.execute("UPDATE medfuse_parts SET data = CAST(data AS BLOB)")
        connection.close()
        with pytest.raises(StoreError, match="not as it was put"):
            store.get(added)


def test_a_file_that_may_not_be_written_is_told(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        folder = Path("/proc")  # where not even root may make a file
    else:
        folder = tmp_path / "mine"
        folder.mkdir(0o500)
    with pytest.raises(StoreError, match="cannot be opened"):
        Store(str(folder / "w.sqlite"))


def test_a_query_has_its_limits() -> None:
    for wrong in ({"text": "x" * 101}, {"text": "a\0"}, {"sort": "id"}, {"limit": 201}, {"x": 1}):
        with pytest.raises(ValueError, match="validation error"):
            PageQuery.model_validate(wrong)
    with pytest.raises(ValueError, match="validation error"):
        NextQuery.model_validate({"after": "x" * 65})
