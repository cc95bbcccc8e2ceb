"""The HTTP door, by a client on the app and by one over loopback."""

import io
import logging
import re
import shlex
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from medfuse import errors
from medfuse.attribution.record import ExplanationRecord
from medfuse.errors import MedfuseError
from medfuse.types import Modality, Study
from medfuse_serving.answer import Answer, to_answer, to_json
from medfuse_serving.api import STATUS, build_api, status_of
from medfuse_serving.explainer import Explained, Explainer
from medfuse_serving.forms import ExplainOptions
from medfuse_serving.predictor import Predictor
from tests.hand_bundle import NOTE, SETTINGS, make_bundle, make_dicom, make_study, make_wav
from tests.hand_network import MIXED, PIECE, HandNetwork
from tests.live import running

UPLOAD_BYTES = 3 * 2**20
STUDY = make_study()
FILES = {"images": ("i.dcm", STUDY.images[0]), "voice": ("v.wav", STUDY.voice or b"")}

Files = list[tuple[str, tuple[str | None, bytes | str]]]


@pytest.fixture(scope="module")
def predictor(hand_bundle: Path) -> Predictor:
    return Predictor(hand_bundle)


@pytest.fixture(scope="module")
def explainer(predictor: Predictor) -> Explainer:
    return Explainer(predictor, None, HandNetwork(MIXED))


@pytest.fixture(scope="module")
def client(explainer: Explainer) -> Iterator[TestClient]:
    with TestClient(build_api(explainer, UPLOAD_BYTES)) as client:
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

    with running(build_api(Explainer(predictor), UPLOAD_BYTES)) as url:
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
    assert statuses["SettingsError"] == 422
    assert statuses["LimitError"] == 413
    assert statuses["BundleError"] == 503
    assert set(STATUS) <= kinds


def test_an_unforeseen_error_reaches_neither_the_client_nor_the_log(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    quoted = "Doe^Jane"

    def fail(*_: object) -> None:
        raise RuntimeError(quoted)

    with TestClient(build_api(Explainer(predictor))) as client, caplog.at_level(logging.DEBUG):
        monkeypatch.setattr(Predictor, "predict", fail)
        response = client.post("/v1/predict", files=FILES)
    assert response.status_code == 500
    assert response.json()["error"] == "InternalError"
    assert quoted not in response.text + caplog.text
    assert "RuntimeError" in caplog.text


def test_healthy_is_not_yet_ready(tmp_path: Path) -> None:
    predictor = Predictor(make_bundle(tmp_path / "bundle", shift=0.01))
    with TestClient(build_api(Explainer(predictor))) as client:
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
    with running(build_api(Explainer(predictor))) as url:

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
    with running(build_api(Explainer(predictor))) as url, ThreadPoolExecutor(1) as pool:
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
    policy = client.get("/docs").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "'unsafe-inline'" not in policy.partition("script-src")[2].partition(";")[0]


def test_openapi_describes_the_form_and_the_answer(client: TestClient) -> None:
    openapi = client.get("/openapi.json").json()
    route = openapi["paths"]["/v1/predict"]["post"]
    form = route["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert set(form["properties"]) == {"images", "note", "voice"}
    assert {"200", "413", "422", "503"} <= set(route["responses"])
    answer = openapi["components"]["schemas"]["Answer"]["properties"]
    assert set(answer) == set(Answer.model_json_schema(by_alias=True)["properties"])
    assert "schema" in answer


# Explanations ---------------------------------------------------------------------------------

BRIGHTNESS = "findings.brightness"
OPTIONS = {"note": NOTE.decode(), "target": BRIGHTNESS}


def test_an_explanation_says_what_moved_the_answer(
    client: TestClient, predictor: Predictor
) -> None:
    response = client.post("/v1/explain", files=FILES, data=OPTIONS)
    assert response.status_code == 200, response.text
    record = ExplanationRecord.model_validate_json(response.text)
    assert record.schema_name == "medfuse.explanation/1"
    assert record.model_digest == predictor.bundle.digest
    # Of the ramp's mean, seven word pieces' tenths, and a fifth of the sound against it.
    shares = record.shares.shares
    assert shares[Modality.IMAGE] == pytest.approx(0.375, abs=1e-3)
    assert shares[Modality.NOTE] == pytest.approx(7 * PIECE)
    assert shares[Modality.VOICE] > 0  # a quiet log-mel is below 0
    assert record.output == pytest.approx(sum(shares.values()))
    assert record.badge.passed
    assert not record.withheld
    # Every word is read and each is worth the same; the special pieces stay in the baseline.
    assert record.words is not None
    assert [word.text for word in record.words] == ["FINDINGS", ":", "cough", "and", "fever"]
    assert [word.value for word in record.words] == pytest.approx([PIECE] * 5)
    assert record.frames is not None
    frame = record.frames[0]
    assert (frame.rows, frame.columns, frame.top, frame.height) == (48, 64, 4, 24)
    assert record.arrays["image_native_0"].shape == (48, 64)
    assert record.band == {}
    assert not response.headers["content-type"].startswith("multipart")


def test_the_archive_is_read_by_any_zip_reader_and_by_numpy(explainer: Explainer) -> None:
    with running(build_api(explainer)) as url:
        told = httpx.post(f"{url}/v1/explain", files=FILES, data=OPTIONS, timeout=60)
        response = httpx.post(
            f"{url}/v1/explain", files=FILES, data={**OPTIONS, "format": "zip"}, timeout=60
        )
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/zip"
    assert int(response.headers["content-length"]) == len(response.content)
    assert "explanation.zip" in response.headers["content-disposition"]
    with ZipFile(io.BytesIO(response.content)) as archive:
        assert archive.testzip() is None
        assert archive.read("explanation.json").decode() == told.text
        with Image.open(io.BytesIO(archive.read("image_0_overlay.png"))) as picture:
            assert (picture.format, picture.mode, picture.size) == ("PNG", "RGBA", (64, 48))
    record = ExplanationRecord.model_validate_json(told.text)
    with np.load(io.BytesIO(response.content), allow_pickle=False) as arrays:
        # Each pixel of the square gives its own share of the mean.
        ramp = np.linspace(0, 1, 64)
        np.testing.assert_allclose(arrays["image_native_0"][20], ramp / 32**2, atol=2e-5)
        for name, array in record.arrays.items():
            assert arrays[name].shape == array.shape


def test_the_band_and_the_method_are_chosen(client: TestClient) -> None:
    data = {**OPTIONS, "band": "true", "method": "occlusion", "baseline": "blurred"}
    record = client.post("/v1/explain", files=FILES, data=data).json()
    assert (record["method"], record["baseline"]) == ("occlusion", "blurred")
    names = [shares["baseline"] for shares in record["shares_by_baseline"]]
    assert names == ["blank", "padding", "blurred"]
    assert record["band"]["image"]["lowest"] <= record["shares"]["shares"]["image"]


def test_a_weighting_of_targets_can_be_asked_for(client: TestClient) -> None:
    target = f"{BRIGHTNESS}=2,findings.wordiness=-2"
    note = {"note": ("n.txt", NOTE)}
    record = client.post("/v1/explain", files=note, data={"target": target}).json()
    assert record["target"] == target
    assert record["shares"]["shares"] == {"note": pytest.approx(0.0, abs=1e-6)}


def test_maps_that_could_mislead_are_withheld_with_the_reason(predictor: Predictor) -> None:
    wrong = Explainer(predictor, None, HandNetwork(MIXED, slope=2.0))
    with TestClient(build_api(wrong)) as client:
        response = client.post("/v1/explain", files=FILES, data=OPTIONS)
        archive = client.post("/v1/explain", files=FILES, data={**OPTIONS, "format": "zip"})
    assert response.status_code == archive.status_code == 200
    record = response.json()
    assert record["withheld"] is True
    assert "accounts for the output but for" in record["reasons"][0]
    assert record["arrays"] == record["sums"] == record["scale"] == {}
    assert record["words"] is record["frames"] is record["voice"] is None
    assert record["shares"]["shares"]["image"] == pytest.approx(0.375, abs=1e-3)
    with ZipFile(io.BytesIO(archive.content)) as opened:
        assert opened.namelist() == ["explanation.json"]


BAD_OPTIONS: dict[str, tuple[Files, str, str]] = {
    "no target": ([], "SettingsError", "target"),
    "an unknown target": ([("target", (None, "findings.beauty"))], "SettingsError", "brightness"),
    "an unknown method": (
        [("target", (None, BRIGHTNESS)), ("method", (None, "magic"))],
        "SettingsError",
        "grad_cam",
    ),
    "an unknown format": (
        [("target", (None, BRIGHTNESS)), ("format", (None, "xml"))],
        "SettingsError",
        "zip",
    ),
    "a target as a file": ([("target", ("t.txt", b"x"))], "InputError", "expected text"),
    "two targets": (
        [("target", (None, BRIGHTNESS)), ("target", (None, "findings.wordiness"))],
        "InputError",
        "twice",
    ),
    "an unknown field": (
        [("target", (None, BRIGHTNESS)), ("Doe^Jane", (None, "x"))],
        "InputError",
        "target, method, baseline, band, format",
    ),
    "nothing to explain": ([("target", (None, BRIGHTNESS))], "InputError", ""),
    "a method for images": (
        [("target", (None, BRIGHTNESS)), ("method", (None, "grad_cam")), ("note", (None, "cough"))],
        "SettingsError",
        "image",
    ),
    "a baseline that is not there": (
        [("target", (None, BRIGHTNESS)), ("baseline", (None, "mean")), ("note", (None, "cough"))],
        "SettingsError",
        "mean",
    ),
}


@pytest.mark.parametrize(("files", "error", "said"), BAD_OPTIONS.values(), ids=BAD_OPTIONS.keys())
def test_a_bad_question_is_refused_with_what_was_expected(
    client: TestClient, files: Files, error: str, said: str
) -> None:
    response = client.post("/v1/explain", files=files or {"note": (None, "cough")})
    assert (response.status_code, response.json()["error"]) == (422, error)
    assert said in response.json()["message"]
    assert "Doe" not in response.text


def test_a_bundle_that_cannot_explain_says_so(predictor: Predictor) -> None:
    with TestClient(build_api(Explainer(predictor))) as client:
        response = client.post("/v1/explain", files=FILES, data=OPTIONS)
        assert client.post("/v1/predict", files=FILES).status_code == 200
    assert response.status_code == 503
    assert "explain.onnx" in response.json()["message"]


def test_an_explanation_that_fails_unforeseen_tells_nothing(
    explainer: Explainer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    quoted = "Doe^Jane"

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError(quoted)

    monkeypatch.setattr(Explainer, "explain", fail)
    with TestClient(build_api(explainer)) as client, caplog.at_level(logging.DEBUG):
        response = client.post("/v1/explain", files=FILES, data=OPTIONS)
    assert (response.status_code, response.json()["error"]) == (500, "InternalError")
    assert quoted not in response.text + caplog.text


def test_an_explanation_ends_when_its_client_hangs_up(
    explainer: Explainer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    begun, ended = threading.Event(), threading.Event()

    def work(*_: object, progress: Callable[[int, int], None], **__: object) -> None:
        begun.set()
        try:
            for done in range(400):
                time.sleep(0.05)
                progress(done, 400)
        finally:
            ended.set()

    monkeypatch.setattr(Explainer, "explain", work)
    with caplog.at_level(logging.INFO), running(build_api(explainer)) as url:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{url}/v1/explain", files=FILES, data=OPTIONS, timeout=3.0)
        assert begun.is_set()
        assert ended.wait(10)
    assert "explain 499" in caplog.text


def test_predictions_do_not_wait_for_explanations(
    explainer: Explainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    explain = Explainer.explain
    at_once: list[int] = []

    def wait(self: Explainer, *values: object, **named: object) -> Explained:
        at_once.append(1)
        begun.set()
        assert go_on.wait(20)
        return explain(self, *values, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Explainer, "explain", wait)
    with running(build_api(explainer)) as url, ThreadPoolExecutor(2) as pool:
        asked = [
            pool.submit(httpx.post, f"{url}/v1/explain", files=FILES, data=OPTIONS, timeout=60)
            for _ in range(2)
        ]
        assert begun.wait(20)
        assert httpx.post(f"{url}/v1/predict", files=FILES, timeout=60).status_code == 200
        assert len(at_once) == 1  # the other explanation has not begun
        go_on.set()
        assert [one.result().status_code for one in asked] == [200, 200]


def test_openapi_describes_the_explanation(client: TestClient) -> None:
    openapi = client.get("/openapi.json").json()
    route = openapi["paths"]["/v1/explain"]["post"]
    form = route["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert set(form["properties"]) == {"images", "note", "voice", *ExplainOptions.model_fields}
    assert form["required"] == ["target"]
    assert set(route["responses"]["200"]["content"]) == {"application/json", "application/zip"}
    assert {"400", "413", "422", "503"} <= set(route["responses"])
    record = openapi["components"]["schemas"]["ExplanationRecord"]["properties"]
    assert set(record) == set(ExplanationRecord.model_json_schema(by_alias=True)["properties"])


def test_the_documentation_s_examples_run(
    explainer: Explainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (Path(__file__).parent.parent / "docs" / "serve.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    (line,) = re.findall(r"^curl .*/v1/explain$", text, re.MULTILINE)
    for name, data in (("pa.dcm", STUDY.images[0]), ("note.txt", NOTE), ("voice.wav", STUDY.voice)):
        (tmp_path / name).write_bytes(data or b"")
    monkeypatch.chdir(tmp_path)
    with running(build_api(explainer)) as url:

        def place(example: str) -> str:
            example = example.replace("findings.nodule", BRIGHTNESS)
            return example.replace("http://127.0.0.1:7860", url)

        found: dict[str, Any] = {}
        exec(compile(place(code), "serve.md", "exec"), found)
        command = shlex.split(place(line))
        if shutil.which("curl"):
            subprocess.run([*command, "--silent"], check=True)
            assert (tmp_path / "explanation.zip").is_file()
    assert found["record"]["target"] == BRIGHTNESS
    assert found["strongest"][1] > 60  # the ramp is brightest at its right edge, 63
