"""The HTTP door, by a client on the app and by one over loopback."""

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient

from medfuse import errors
from medfuse.errors import MedfuseError
from medfuse.types import Study
from medfuse_serving.answer import Answer, to_answer, to_json
from medfuse_serving.api import STATUS, build_api, status_of
from medfuse_serving.predictor import Predictor
from tests.hand_bundle import NOTE, SETTINGS, make_bundle, make_dicom, make_study, make_wav
from tests.live import running

UPLOAD_BYTES = 3 * 2**20
STUDY = make_study()
FILES = {"images": ("i.dcm", STUDY.images[0]), "voice": ("v.wav", STUDY.voice or b"")}

Files = list[tuple[str, tuple[str | None, bytes | str]]]


@pytest.fixture(scope="module")
def predictor(hand_bundle: Path) -> Predictor:
    return Predictor(hand_bundle)


@pytest.fixture(scope="module")
def client(predictor: Predictor) -> Iterator[TestClient]:
    with TestClient(build_api(predictor, UPLOAD_BYTES)) as client:
        yield client


def test_a_study_is_answered_as_the_predictor_answers_it(
    client: TestClient, predictor: Predictor
) -> None:
    response = client.post("/v1/predict", files=FILES, data={"note": NOTE.decode()})
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.text == to_json(to_answer(predictor.predict([STUDY])[0]))


def test_a_note_may_be_a_text_or_a_file(client: TestClient) -> None:
    as_text = client.post("/v1/predict", files={"note": (None, NOTE.decode())})
    as_file = client.post("/v1/predict", files={"note": ("n.txt", NOTE)})
    assert as_text.status_code == 200
    assert as_text.json() == as_file.json()
    assert as_text.json()["used"] == ["note"]


def test_parts_left_empty_by_a_form_are_absent(client: TestClient) -> None:
    # As a browser sends a form whose file inputs and text box nobody touched (HTML 4.10.21.8).
    empty = b"--x\r\nContent-Disposition: form-data; name="
    body = (
        empty
        + b'"images"; filename=""\r\nContent-Type: application/octet-stream\r\n\r\n\r\n'
        + empty
        + b'"voice"; filename=""\r\nContent-Type: application/octet-stream\r\n\r\n\r\n'
        + empty
        + b'"note"\r\n\r\ncough\r\n--x--\r\n'
    )
    kind = {"content-type": "multipart/form-data; boundary=x"}
    response = client.post("/v1/predict", content=body, headers=kind)
    assert response.json()["used"] == ["note"]
    assert client.post("/v1/predict", files={"note": (None, "")}).status_code == 422


def test_several_images_are_one_study(client: TestClient) -> None:
    dark, bright = (make_dicom(np.full((8, 8), v, dtype=np.uint16)) for v in (0, 4095))
    files: Files = [("images", ("a", dark)), ("images", ("b", bright))]
    logits = client.post("/v1/predict", files=files).json()["tasks"][0]["logits"]
    assert logits["findings.brightness"] == pytest.approx(0.5, abs=1e-3)


BAD: dict[str, tuple[Files, int, str]] = {
    "nothing": ([("note", (None, ""))], 422, "InputError"),
    "not DICOM": ([("images", ("i.dcm", b"Doe^Jane"))], 422, "DicomError"),
    "an empty file": ([("images", ("i.dcm", b""))], 422, "DicomError"),
    "not a note": ([("note", ("n.pdf", b"%PDF-1.7"))], 422, "NoteError"),
    "not a recording": ([("voice", ("v.wav", b"RIFFDoe^Jane"))], 422, "VoiceError"),
    "too short": ([("voice", ("v.wav", make_wav(0.1)))], 422, "VoiceError"),
    "two voices": ([("voice", ("v", make_wav())), ("voice", ("w", make_wav()))], 422, "InputError"),
    "an unknown field": ([("Doe^Jane", (None, "x"))], 422, "InputError"),
    "text for an image": ([("images", (None, "Doe^Jane"))], 422, "InputError"),
    "two patients": (
        [
            ("images", ("a", make_dicom(np.zeros((8, 8), np.uint16), patient_id="Doe^Jane"))),
            ("images", ("b", make_dicom(np.zeros((8, 8), np.uint16), patient_id="Doe^Joan"))),
        ],
        422,
        "InputError",
    ),
    "a note too long": (
        [("note", ("n.txt", b"a " * SETTINGS.limits.note_bytes))],
        413,
        "LimitError",
    ),
    "a file too large": (
        [("images", ("i", bytes(SETTINGS.limits.file_bytes + 1)))],
        413,
        "LimitError",
    ),
    "a request too large": ([("images", ("i", bytes(UPLOAD_BYTES)))], 413, "LimitError"),
}


@pytest.mark.parametrize(("files", "status", "error"), BAD.values(), ids=BAD.keys())
def test_bad_input_has_its_status_and_a_message_without_content(
    client: TestClient, files: Files, status: int, error: str
) -> None:
    response = client.post("/v1/predict", files=files)
    assert (response.status_code, response.json()["error"]) == (status, error)
    assert response.json()["message"]
    assert "Doe" not in response.text


def test_a_body_that_is_no_form_is_refused(client: TestClient) -> None:
    response = client.post("/v1/predict", json={"note": "cough"})
    assert response.status_code == 422
    assert "multipart" in response.json()["message"]


def test_a_broken_form_is_refused(client: TestClient) -> None:
    response = client.post(
        "/v1/predict",
        content=b"--x\r\nnothing",
        headers={"content-type": "multipart/form-data"},
    )
    assert response.status_code == 400
    assert response.json()["error"] == "BadRequest"


def test_a_body_of_undeclared_length_is_counted_as_it_arrives(predictor: Predictor) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        yield b'--x\r\nContent-Disposition: form-data; name="images"; filename="i"\r\n\r\n'
        while sent < 50 * UPLOAD_BYTES:
            sent += 2**16
            yield bytes(2**16)

    with running(build_api(predictor, UPLOAD_BYTES)) as url:
        kind = {"content-type": "multipart/form-data; boundary=x"}
        try:
            response = httpx.post(f"{url}/v1/predict", content=endless(), headers=kind)
        except httpx.WriteError:  # the server hung up while we were still sending
            pass
        else:
            assert response.status_code == 413
            assert response.json()["error"] == "LimitError"
    assert sent < 20 * UPLOAD_BYTES


def test_every_error_has_a_status() -> None:
    kinds = {
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, MedfuseError)
    }
    statuses = {kind.__name__: int(status_of(kind("x"))) for kind in kinds}
    assert statuses["MedfuseError"] == statuses["TrainingError"] == 500
    assert statuses["DicomError"] == statuses["NoteError"] == statuses["VoiceError"] == 422
    assert statuses["LimitError"] == 413
    assert statuses["BundleError"] == 503
    assert set(STATUS) <= kinds


def test_an_unforeseen_error_reaches_neither_the_client_nor_the_log(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    quoted = "Doe^Jane"

    def fail(*_: object) -> None:
        raise RuntimeError(quoted)

    with TestClient(build_api(predictor)) as client, caplog.at_level(logging.DEBUG):
        monkeypatch.setattr(Predictor, "predict", fail)
        response = client.post("/v1/predict", files=FILES)
    assert response.status_code == 500
    assert response.json()["error"] == "InternalError"
    assert quoted not in response.text + caplog.text
    assert "RuntimeError" in caplog.text


def test_healthy_is_not_yet_ready(tmp_path: Path) -> None:
    predictor = Predictor(make_bundle(tmp_path / "bundle", shift=0.01))
    with TestClient(build_api(predictor)) as client:
        assert client.get("/healthz").json() == {"status": "ok"}
        response = client.get("/readyz")
    assert response.status_code == 503
    assert response.json()["error"] == "BundleError"


def test_ready_means_that_the_golden_study_is_answered(
    client: TestClient, predictor: Predictor
) -> None:
    response = client.get("/readyz")
    assert response.status_code == 200
    said = response.json()
    assert said["status"] == "ready"
    assert said["model_digest"] == predictor.bundle.digest
    assert said["golden_difference"] < 1e-6


def test_requests_at_once_are_answered_as_one_after_another(tiny_bundle: Path) -> None:
    predictor = Predictor(tiny_bundle)
    golden = predictor.bundle.path / "golden"
    images = [("images", (p.name, p.read_bytes())) for p in sorted(golden.glob("*.dcm"))]
    note = [("note", ("n", (golden / "note.txt").read_bytes()))]
    requests: list[Files] = [[*images], [*note], [*images, *note]] * 3
    with running(build_api(predictor)) as url:

        def ask(files: Files) -> str:
            response = httpx.post(f"{url}/v1/predict", files=files, timeout=60)
            assert response.status_code == 200, response.text
            return response.text

        serial = [ask(files) for files in requests]
        with ThreadPoolExecutor(4) as pool:
            parallel = list(pool.map(ask, requests))
    assert parallel == serial
    assert len(set(serial)) == 3


def test_health_is_answered_while_a_prediction_runs(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    predict = Predictor.predict

    def wait(self: Predictor, studies: list[Study]) -> object:
        begun.set()
        assert go_on.wait(20)
        return predict(self, studies)

    monkeypatch.setattr(Predictor, "predict", wait)
    with running(build_api(predictor)) as url, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(httpx.post, f"{url}/v1/predict", files=FILES, timeout=30)
        assert begun.wait(20)
        assert httpx.get(f"{url}/healthz").status_code == 200
        assert not waiting.done()
        go_on.set()
        assert waiting.result().status_code == 200


def test_the_log_has_no_patient_data(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="medfuse_serving"):
        client.post("/v1/predict", files={"note": ("Doe_Jane.txt", b"Jane Doe coughs")})
    assert "predict 200" in caplog.text
    assert "Doe" not in caplog.text


def test_the_documentation_comes_from_this_machine(client: TestClient) -> None:
    html = client.get("/docs").text
    assert "://" not in html.replace("http://testserver", "")
    assert client.get("/docs-assets/swagger-ui-bundle.js").status_code == 200
    assert client.get("/docs-assets/swagger-ui.css").status_code == 200
    assert "default-src 'self'" in client.get("/docs").headers["content-security-policy"]


def test_openapi_describes_the_form_and_the_answer(client: TestClient) -> None:
    openapi = client.get("/openapi.json").json()
    route = openapi["paths"]["/v1/predict"]["post"]
    form = route["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert set(form["properties"]) == {"images", "note", "voice"}
    assert {"200", "413", "422", "503"} <= set(route["responses"])
    answer = openapi["components"]["schemas"]["Answer"]["properties"]
    assert set(answer) == set(Answer.model_json_schema(by_alias=True)["properties"])
    assert "schema" in answer
