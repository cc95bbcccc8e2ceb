"""A reader's whole way in a browser, in both languages: axe on each screen, and all of it local."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser

from medfuse.data.studies import find_studies
from medfuse.types import Study
from medfuse_serving.api import build_api
from medfuse_serving.explainer import Explainer
from medfuse_serving.language import LANGUAGES, find_language
from medfuse_serving.login.accounts import Accounts, make_account
from medfuse_serving.login.door import Guard, mount_login
from medfuse_serving.page.mount import mount_page
from medfuse_serving.page.practice import Practice
from medfuse_serving.predictor import Predictor
from medfuse_serving.report.verify import check_inputs, check_model, open_report
from medfuse_serving.worklist.records import PageQuery
from medfuse_serving.worklist.routes import mount_worklist
from medfuse_serving.worklist.store import Store
from tests.browser import assert_accessible, open_browser, open_page
from tests.hand_bundle import make_study, make_wav, write_study
from tests.hand_network import HandNetwork
from tests.journey import Traveller, travel
from tests.live import running

pytestmark = pytest.mark.filterwarnings("ignore:The copy keyword is deprecated")

LOUD = np.array([[1.0, 1.0, 10.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
"""Logits by modality with which a span of the recording stands out."""

PASSWORD = "correct horse battery"


@pytest.fixture(scope="module")
def predictor(hand_bundle: Path) -> Predictor:
    return Predictor(hand_bundle)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(str(tmp_path / "w.sqlite")) as store:
        store.add("Alder", make_study())
        store.add("Birch", Study(note=b"FINDINGS: hoarse"))
        yield store


@pytest.fixture
def url(predictor: Predictor, store: Store) -> Iterator[str]:
    explainer = Explainer(predictor, None, HandNetwork(LOUD))
    app = build_api(explainer)
    mount_login(app, Guard(Accounts({"ann": make_account("ann", PASSWORD)})))
    mount_worklist(app, store, predictor.bundle.manifest.prepare.limits)
    with running(mount_page(app, explainer, (), Practice(store, read_first=True))) as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser(whole=True) as browser:
        yield browser


@pytest.mark.parametrize("code", list(LANGUAGES))
def test_a_reader_goes_from_log_in_to_the_next_case(
    code: str, browser: Browser, url: str, store: Store, predictor: Predictor, tmp_path: Path
) -> None:
    language, screens = find_language(code), []
    by_hand = Study(make_study().images, b"FINDINGS: fever", make_wav(hz=330.0))
    (tmp_path / "by hand").mkdir()
    write_study(tmp_path / "by hand" / "one", by_hand)
    (files,) = find_studies(tmp_path / "by hand")
    with open_page(browser, f"{url}/login") as page:

        def see(screen: str) -> None:
            assert_accessible(page, screen, fewest=8)
            assert page.evaluate("document.documentElement.lang") == language.tag
            screens.append(screen)

        finding = f"{language.name('findings')}: brightness"
        traveller = Traveller("ann", PASSWORD, language, finding, files, see)
        report, played = travel(page, url, traveller)
        record = open_report(report).record
    assert len(screens) == 10
    assert played
    check_model(record, predictor.bundle.digest)
    check_inputs(record, make_study())
    assert (record.language, record.study_id) == (code, "Alder")
    assert [own.record.target for own in record.explanations] == ["findings.brightness"]
    assert record.reading is not None
    assert (record.reading.reader, record.reading.decision) == ("ann", "override")
    assert record.reading.reason == "The film is rotated."
    assert record.reading.impression == "Nothing of note."
    rows = store.list_rows(PageQuery(sort="label")).rows
    assert [row.status for row in rows] == ["read", "opened"]
    lines = list(store.list_readings())
    assert {line.reader for line in lines} == {"ann"}
    last = lines[-1]
    assert (last.study, last.impression) == (None, "Seen before the answer.")
    assert last.answer is not None
    given = (*by_hand.images, by_hand.note or b"", by_hand.voice or b"")
    digests = {hashlib.sha256(data).hexdigest() for data in given}
    assert {record.sha256 for record in last.inputs} == digests
