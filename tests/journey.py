"""A reader's way through the page, in either language: used by its test and by its pictures."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Page, expect

from medfuse.data.studies import StudyFiles
from medfuse_serving.language import Language

START_MS = 60_000
EXPLAIN_MS = 300_000


@dataclass(frozen=True, slots=True)
class Traveller:
    """Who goes, and how.

    Attributes:
        name: Of the account.
        password: Of the account.
        language: That is read.
        finding: To be explained, as the page calls it; None: the one that the page offers.
        files: Of a study that is given by hand, of three parts.
        seen: Told each screen's name once it is there.
    """

    name: str
    password: str
    language: Language
    finding: str | None
    files: StudyFiles
    seen: Callable[[str], None]


def link(page: Page, language: Language) -> bool:
    """Open the table of evidence, show each modality's first piece, and play the first that sounds.

    Returns:
        Whether any did.
    """
    say = language.text
    switch = page.get_by_label(say("Show what spoke for and against over the evidence"))
    expect(switch).not_to_be_checked()
    page.get_by_text(say("The evidence as a table")).click()
    table = page.locator(".mf-pieces")
    for row in table.locator("tbody").all():
        show = row.locator("[data-show]").first
        if not show.count():
            continue
        show.click()
        expect(switch).to_be_checked()
        name = str(show.get_attribute("data-show"))
        expect(table.locator(f"[data-evidence='{name}'].mf-marked")).to_be_visible()
    spans = table.locator("[data-play]")
    sounds = spans.count() > 0
    if sounds:
        playing = """() => [...document.querySelectorAll("audio")].some(a => !a.paused)"""
        spans.first.click()
        page.wait_for_function(playing)
        expect(spans.first).to_have_attribute("aria-pressed", "true")
        page.wait_for_function(f"!({playing})()")  # at the span's end, by itself
        expect(spans.first).to_have_attribute("aria-pressed", "false")
    return sounds


def give(page: Page, language: Language, files: StudyFiles) -> None:
    """Clear the page, give a study's files by hand, each in its place, and have it answered."""
    say = language.text
    page.get_by_role("button", name=say("Clear all")).click()
    expect(page.locator("#image")).to_contain_text(say("No image given."))
    places = page.locator("input[type=file]")
    images, note, recording = (places.nth(i) for i in (0, 2, 4))
    images.set_input_files(files.images)
    expect(page.locator("#image .mf-what")).to_contain_text(say("pixels"))
    note.set_input_files(files.notes[0])
    expect(page.get_by_label(say("Note"), exact=True)).not_to_have_value("")
    recording.set_input_files(files.voices[0])
    expect(page.locator("#voice audio")).to_be_visible()
    page.get_by_role("button", name=say("Predict"), exact=True).click()
    page.get_by_label(say("Your impression in words")).fill("Seen before the answer.")
    page.get_by_role("button", name=say("Keep my impression and show the answer")).click()
    expect(page.locator("#answer .mf-bars").first).to_be_visible()


def travel(page: Page, url: str, traveller: Traveller) -> tuple[Path, bool]:
    """Log in, read a study of the worklist to its report, go on to the next, give one, and out.

    Args:
        page: Of a browser, anywhere.
        url: Of a server with accounts, a worklist of at least two studies, and read-first.
        traveller: Who goes.

    Returns:
        The report, as it was downloaded, and whether a span of the recording was played.
    """
    language, seen = traveller.language, traveller.seen
    say = language.text
    page.goto(f"{url}/login?language={language.code}")
    page.get_by_label(say("Name")).fill(traveller.name)
    seen("log-in")
    page.get_by_label(say("Password")).fill(traveller.password)
    page.get_by_role("button", name=say("Log in")).click()
    # The first page of a browser fetches all of Gradio.
    expect(page.locator("mf-worklist .mf-row").first).to_be_visible(timeout=START_MS)
    ask = page.get_by_role("button", name=say("Predict"), exact=True)
    expect(ask).to_be_visible()
    expect(page.locator("mf-reader")).to_contain_text(traveller.name)
    seen("worklist")

    page.keyboard.press("Alt+n")
    expect(page.locator("#image .mf-what")).to_contain_text(say("pixels"))
    level = page.locator("mf-viewer [data-set=center]").first
    before = level.input_value()
    page.locator("mf-viewer .mf-stage").first.focus()
    page.keyboard.press("ArrowDown")
    expect(level).not_to_have_value(before)
    page.keyboard.press("r")
    expect(level).to_have_value(before)
    seen("study")

    ask.click()
    impression = page.get_by_label(say("Your impression in words"))
    expect(impression).to_be_visible()
    expect(page.locator("#answer .mf-bars")).to_have_count(0)
    impression.fill("Nothing of note.")
    seen("impression")
    page.get_by_role("button", name=say("Keep my impression and show the answer")).click()
    expect(page.locator("#answer .mf-bars").first).to_be_visible()
    seen("answer")

    if traveller.finding is not None:
        page.get_by_label(say("Finding to explain")).click()
        page.get_by_role("option", name=traveller.finding).click()
    page.get_by_role("button", name=say("Explain this answer")).click()
    expect(page.locator("#explanation .mf-badge")).to_be_visible(timeout=EXPLAIN_MS)
    seen("explanation")
    sounds = False
    if page.locator(".mf-pieces").count():  # none of an explanation that failed its checks
        sounds = link(page, language)
        seen("linked evidence")

    page.get_by_label(say("Reason (needed to edit or override)")).fill("The film is rotated.")
    page.get_by_role("button", name=say("Override"), exact=True).click()
    expect(page.locator("#decision-place")).to_contain_text(say("Kept: the answer was overridden."))
    seen("decision")

    page.get_by_role("button", name=say("Make a PDF report (Alt+R)")).click()
    with page.expect_download() as download:
        page.get_by_role("link", name=say("Download the report (PDF)")).click()

    page.keyboard.press("Alt+n")
    expect(page.locator("#answer .mf-bars")).to_have_count(0)
    expect(page.locator("#explanation .mf-badge")).to_have_count(0)
    expect(page.get_by_role("link", name=say("Download the report (PDF)"))).to_have_count(0)
    seen("next case")
    give(page, language, traveller.files)
    seen("given by hand")
    page.get_by_role("button", name=say("Log out")).click()
    expect(page).to_have_url(f"{url}/login")
    return Path(download.value.path()), sounds
