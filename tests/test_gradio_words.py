"""Gradio's own words: it does say them, and the page has them in every language."""

import json
from importlib.resources import files

import pytest

from medfuse_serving.gradio_words import WORDS, script_html
from medfuse_serving.language import LANGUAGES, find_language


@pytest.fixture(scope="module")
def said_by_gradio() -> str:
    folder = files("gradio").joinpath("templates", "frontend", "assets")
    scripts = [file for file in folder.iterdir() if file.name.endswith(".js")]
    return "\n".join(script.read_text(encoding="utf-8") for script in scripts)


@pytest.mark.parametrize("words", WORDS)
def test_gradio_says_it(words: str, said_by_gradio: str) -> None:
    made = {  # put together from parts, as is whatever has a number in it
        "- or -": "`- `,",
        "Uploading {number} file...": "Uploading ",
        "Uploading {number} files...": "Uploading ",
        "File(s) exceed the maximum allowed size of {size}: {names}": (
            "File(s) exceed the maximum allowed size of "
        ),
    }
    assert made.get(words, words) in said_by_gradio


def test_the_page_has_them_in_every_language() -> None:
    script = script_html()
    start, end = '<script type="application/json" id="mf-words">', "</script>"
    assert script.startswith(start)
    assert script.endswith(end)
    inside = script.removeprefix(start).removesuffix(end)
    assert "<" not in inside
    words = json.loads(inside)
    assert set(words) == set(LANGUAGES)
    for code, said in words.items():
        assert set(said) == set(WORDS)
        assert said["common.upload"] == find_language(code).text("Upload another")
        assert "{number}" in said["Uploading {number} files..."]
