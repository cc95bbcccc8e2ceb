"""Gradio's own words in, the same in every language of the page out, for `web/words.js`."""

import json
from collections.abc import Mapping
from string import Formatter

from medfuse_serving.language import LANGUAGES, Language, find_language, message

WORDS: Mapping[str, str] = {
    "Drop File Here": message("Drop File Here"),
    "- or -": message("- or -"),
    "Click to Upload": message("Click to Upload"),
    "Click to upload or drop files": message("Click to upload or drop files"),
    "File upload": message("File upload"),
    "Uploading {number} file...": message("Uploading {number} file(s)..."),
    "Uploading {number} files...": message("Uploading {number} file(s)..."),
    "common.upload": message("Upload another"),
    "Clear": message("Clear"),
    "Close": message("Close"),
    "Remove": message("Remove"),
    "Loading": message("Loading"),
    "Record": message("Record"),
    "Stop": message("Stop"),
    "pause": message("Pause"),
    "Resume": message("Resume"),
    "Waiting": message("Waiting"),
    "Select input device": message("Select input device"),
    "No microphone found": message("No microphone found"),
    "Error": message("Error"),
    "Waiting for file(s) to finish uploading, please retry.": message(
        "Files are still being uploaded; try again."
    ),
    "Connection to the server was lost. Attempting reconnection...": message(
        "The connection to the server was lost: nothing more is sent from this page. What you "
        "wrote stays on it; keep a copy, and load the page anew."
    ),
    "File(s) exceed the maximum allowed size of {size}: {names}": message(
        "Not taken: at most {size} is taken of one file. {names}"
    ),
}
"""What the page has the reader hear or see of Gradio's, as it says it in English, and what to say
in its place, with values in braces; ``{number}`` is a number. Its ``common.*`` are keys that its
own catalogue lacks."""


def script_html() -> str:
    """Lay the words of every language into a page."""
    words = {code: _say_in(code) for code in LANGUAGES}
    text = json.dumps(words, ensure_ascii=False).replace("<", "\\u003c")
    return f'<script type="application/json" id="mf-words">{text}</script>'


def _say_in(code: str) -> dict[str, str]:
    language = find_language(code)
    return {english: _say_open(language, said) for english, said in WORDS.items()}


def _say_open(language: Language, said: str) -> str:
    """Say a message with its values left open."""
    names = (name for _, name, _, _ in Formatter().parse(said) if name)
    return language.text(said, **{name: f"{{{name}}}" for name in names})
