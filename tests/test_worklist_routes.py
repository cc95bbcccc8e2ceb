"""The worklist's routes and commands, by a client on the app and by a reader of the output."""

import json
import logging
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from fastapi.testclient import TestClient
from typer.testing import CliRunner, Result

from medfuse.errors import InputError, StoreError
from medfuse.types import Study
from medfuse_serving.api import build_api
from medfuse_serving.explainer import Explainer
from medfuse_serving.predictor import Predictor
from medfuse_serving.worklist.command import worklist
from medfuse_serving.worklist.records import PageQuery, ReadingLine, ReadingStep, StudyRow
from medfuse_serving.worklist.routes import QUERY_BYTES, mount_worklist
from medfuse_serving.worklist.store import Store
from tests.hand_bundle import NOTE, SETTINGS, make_study
from tests.test_worklist_store import NOW, make_step

STUDY = make_study()
FILES = [
    ("images", ("Doe.dcm", STUDY.images[0])),
    ("note", ("Doe.txt", NOTE)),
    ("voice", ("Doe.wav", STUDY.voice or b"")),
]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(str(tmp_path / "w.sqlite")) as store:
        yield store


@pytest.fixture
def client(store: Store, hand_bundle: Path) -> Iterator[TestClient]:
    app = build_api(Explainer(Predictor(hand_bundle)), 2**21)
    mount_worklist(app, store, SETTINGS.limits)
    with TestClient(app) as client:
        yield client


def test_a_study_arrives_and_is_listed(client: TestClient, store: Store) -> None:
    response = client.post("/v1/studies", files=FILES, data={"label": " S-1 "})
    assert response.status_code == 201
    row, study = store.get(response.json()["id"])
    assert study == STUDY
    assert row.label == "S-1"
    found = client.post("/worklist/rows", json={"text": "s-"}).json()
    assert found == {"total": 1, "rows": [json.loads(row.model_dump_json())]}
    assert client.post("/worklist/next", json={}).json()["row"]["id"] == row.id


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({}, "'label' is given 0 times"),
        ({"label": ["a", "b"]}, "'label' is given 2 times"),
        ({"label": "x" * 65}, "65 characters"),
        ({"label": "a", "patient": "Doe"}, "1 unknown form field"),
    ],
)
def test_a_study_that_cannot_be_listed_is_refused(
    client: TestClient, store: Store, data: dict[str, str], said: str
) -> None:
    response = client.post("/v1/studies", files=FILES, data=data)
    assert response.status_code == 422
    assert said in response.json()["message"]
    assert "Doe" not in response.text
    assert store.list_rows(PageQuery()).total == 0


def test_a_study_without_a_part_or_in_no_form_is_refused(client: TestClient) -> None:
    empty = client.post("/v1/studies", data={"label": "a"}, files={"note": (None, "")})
    assert (empty.status_code, empty.json()["error"]) == (422, "InputError")
    assert client.post("/v1/studies", json={"label": "a"}).status_code == 422
    long = [("note", ("n", bytes(SETTINGS.limits.note_bytes + 1)))]
    assert client.post("/v1/studies", data={"label": "a"}, files=long).status_code == 413


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b'{"text": "Doe", "sort": "id"}', b'{"text": "' + b"D" * QUERY_BYTES + b'"}'],
)
def test_what_is_no_query_is_refused_without_its_text(client: TestClient, body: bytes) -> None:
    for path in ("/worklist/rows", "/worklist/next"):
        response = client.post(path, content=body)
        assert response.status_code == 422
        assert "not a query of the worklist" in response.json()["message"]
        assert "D" * 3 not in response.text
        assert "Doe" not in response.text


def test_no_address_gives_a_study_or_takes_a_query(client: TestClient, store: Store) -> None:
    added = store.add("S-1", Study(note=b"a secret"))
    for path in (f"/v1/studies/{added}", f"/worklist/{added}", "/worklist/rows?text=S"):
        response = client.get(path)
        assert response.status_code in {404, 405}
        assert "secret" not in response.text
    assert client.post("/worklist/rows", json={}).headers["cache-control"] == "no-store"


def test_nothing_of_a_study_or_a_query_is_logged(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        client.post("/v1/studies", files=FILES, data={"label": "DOE-JANE"})
        client.post("/worklist/rows", json={"text": "DOE-JANE"})
        client.post("/worklist/next", json={"text": "DOE-JANE", "after": "DOE"})
    assert "study 201 in" in caplog.text
    assert "doe" not in caplog.text.lower()


def test_a_database_that_fails_is_a_fault_of_the_deployment(
    client: TestClient, store: Store
) -> None:
    with store._writing.begin() as connection:
        connection.exec_driver_sql("DROP TABLE medfuse_studies")
    response = client.post("/worklist/rows", json={"text": "DOE"})
    assert (response.status_code, response.json()["error"]) == (503, "StoreError")
    assert "DOE" not in response.text
    assert "SELECT" not in response.text


def test_without_a_worklist_there_are_no_routes_of_it(hand_bundle: Path) -> None:
    with TestClient(build_api(Explainer(Predictor(hand_bundle)))) as client:
        for path in ("/v1/studies", "/worklist/rows", "/worklist/next"):
            assert client.post(path).status_code == 404


# Commands -----------------------------------------------------------------------------------------

APP = typer.Typer(pretty_exceptions_enable=False)
APP.add_typer(worklist, name="worklist")


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(APP, ["worklist", *map(str, arguments)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two studies, one of which holds a file that is none of a study's."""
    for name in ("first", "second"):
        (tmp_path / "studies" / name).mkdir(parents=True)
        (tmp_path / "studies" / name / "note.txt").write_bytes(NOTE)
    (tmp_path / "studies" / "first" / "image.dcm").write_bytes(STUDY.images[0])
    return tmp_path / "studies"


def list_rows(place: Path) -> tuple[StudyRow, ...]:
    with Store(str(place)) as store:
        return store.list_rows(PageQuery(sort="label")).rows


def test_a_folder_s_studies_are_added_once(tmp_path: Path, folder: Path) -> None:
    place = tmp_path / "w.sqlite"
    assert run("add", place, folder, "--first", 1).stdout == (
        "1 studies added, 0 were there already\n"
    )
    assert run("add", place, folder).stdout == "1 studies added, 1 were there already\n"
    (folder / "third").mkdir()
    (folder / "third" / "note.txt").write_bytes(b"fever")
    assert run("add", place, folder).stdout == "1 studies added, 2 were there already\n"
    first, second, third = list_rows(place)
    assert [row.label for row in (first, second, third)] == ["first", "second", "third"]
    with Store(str(place)) as store:
        assert store.get(first.id)[1] == Study(STUDY.images, NOTE)
        assert store.get(third.id)[1] == Study(note=b"fever")


def test_a_study_that_cannot_be_read_does_not_stop_the_rest(tmp_path: Path, folder: Path) -> None:
    (folder / "first" / "letter.pdf").write_bytes(b"%PDF")
    result = run("add", tmp_path / "w.sqlite", folder)
    assert result.exit_code == 1
    assert "1 of 2 studies could not be added" in result.stderr
    assert "first: the study has 1 file(s)" in result.stderr
    assert [row.label for row in list_rows(tmp_path / "w.sqlite")] == ["second"]


def test_studies_are_listed_and_removed_by_their_ids(tmp_path: Path, folder: Path) -> None:
    place = tmp_path / "w.sqlite"
    run("add", place, folder)
    head, *lines = run("list", place).stdout.splitlines()
    assert head.split()[0] == "id"
    rows = list_rows(place)
    assert [line.split()[0] for line in lines] == [row.id for row in rows]
    assert lines[0].endswith("waiting  image, note         first")
    assert run("remove", place, rows[0].id).stdout == "1 studies removed\n"
    assert [row.label for row in list_rows(place)] == ["second"]
    with pytest.raises(InputError, match="no such study"):
        run("remove", place, rows[0].id)


def test_readings_are_exported_step_by_step(tmp_path: Path, folder: Path) -> None:
    place, out = tmp_path / "w.sqlite", tmp_path / "readings.jsonl"
    run("add", place, folder)
    first = list_rows(place)[0]
    steps = [
        make_step(first.id, impression="Clear.", impression_at=NOW),
        make_step(first.id, decision="override", reason="Motion.", decided_at=NOW),
    ]
    with Store(str(place)) as store:
        for step in steps:
            store.keep(step)
    assert "2 steps of readings" in run("export-readings", place, out).stdout
    lines = [ReadingLine.model_validate_json(line) for line in out.read_text().splitlines()]
    assert [(line.number, line.label) for line in lines] == [(1, "first"), (2, "first")]
    exported = [ReadingStep(**line.model_dump(exclude={"number", "label"})) for line in lines]
    assert exported == steps
    with pytest.raises(StoreError, match="File exists"):  # nothing is ever written over
        run("export-readings", place, out)


def test_a_worklist_that_cannot_be_opened_is_told(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(StoreError, match="expected a folder"):
        run("add", tmp_path / "none" / "w.sqlite", folder)


# The page in docs ---------------------------------------------------------------------------------

DOCS = (Path(__file__).parent.parent / "docs" / "worklist.md").read_text(encoding="utf-8")


def test_the_command_of_the_docs_runs(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.rename(tmp_path / "incoming")
    monkeypatch.chdir(tmp_path)
    (line,) = re.findall(r"^medfuse worklist (add .*)$", DOCS, re.MULTILINE)
    assert "2 studies added" in run(*shlex.split(line)).stdout


def test_the_request_of_the_docs_is_answered(client: TestClient, store: Store) -> None:
    (line,) = re.findall(r"^curl .*$", DOCS, re.MULTILINE)
    fields = dict(part.split("=", 1) for part in re.findall(r"-F (\S+)", line))
    given = {"images": FILES[0], "note": FILES[1], "voice": FILES[2]}
    files = [given[name] for name in fields if name != "label"]
    path = shlex.split(line)[-1].removeprefix("http://127.0.0.1:7860")
    response = client.post(path, files=files, data={"label": fields["label"]})
    assert store.get(response.json()["id"])[0].label == "S000001"


def test_every_field_of_a_line_is_told_of() -> None:
    table = DOCS.partition("## The record")[2].partition("## Patient data")[0]
    rows = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    told = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert told == set(ReadingLine.model_fields)
