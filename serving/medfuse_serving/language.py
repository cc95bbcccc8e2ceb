"""English messages in; the same in the reader's language out, from message catalogues."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from string import Formatter

from babel.messages.pofile import read_po

from medfuse.errors import SettingsError

LANGUAGES: Mapping[str, str] = {"en": "en", "zh": "zh-Hans"}
"""The tag (BCP 47) of each language that there is, by the code that a reader asks for it with."""

OWN_NAMES: Mapping[str, str] = {"en": "English", "zh": "简体中文"}
"""What each calls itself."""

SOURCE = "en"
"""The language that messages are written in, which needs no catalogue."""


@dataclass(frozen=True, slots=True)
class Language:
    """What a reader reads.

    Attributes:
        code: A key of `LANGUAGES`.
        translations: By English message; whatever is not in it stays English.
    """

    code: str = SOURCE
    translations: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def tag(self) -> str:
        """The language's tag, for a file's metadata."""
        return LANGUAGES[self.code]

    def text(self, message: str, /, **values: object) -> str:
        """Say a message of the catalogue.

        Args:
            message: In English, with a value's name in braces where the value is to stand; a
                literal, so that the catalogue's check finds it.
            values: By name.
        """
        return self.translations.get(message, message).format(**values)

    def name(self, name: str) -> str:
        """Say what a model calls a task, a finding or a class, as it is where it is not known."""
        words = name.replace("_", " ")
        return self.translations.get(words.lower(), words)

    def sentence(self, sentence: str) -> str:
        """Say an English sentence that was made elsewhere, as it is where its form is not known.

        Such sentences come with a study's remarks, an explanation's checks and errors, their
        figures already in them; `sentences` and `refusals` in this package have their forms.
        """
        from medfuse_serving.refusals import REFUSALS
        from medfuse_serving.sentences import SENTENCES

        if self.code == SOURCE:
            return sentence
        if sentence in self.translations:
            return self.translations[sentence]
        for form in SENTENCES + REFUSALS:
            if form in self.translations and (found := _match(form).fullmatch(sentence)):
                values = found.groupdict()
                named = {k: self.name(v) for k, v in values.items() if k in NAMES}
                told = {k: self.sentence(v) for k, v in values.items() if k in TOLD}
                return self.translations[form].format(**values | named | told)
        return sentence


ENGLISH = Language()

NAMES = frozenset({"modality", "method"})
"""The values of a sentence that are names, and are said in the reader's language too."""

TOLD = frozenset({"advice", "error", "kind", "parts", "reason"})
"""Those that are sentences or parts of one."""


def message(text: str) -> str:
    """Mark a message that is said later, so that the catalogue's check finds it."""
    return text


@cache
def find_language(code: str) -> Language:
    """Read the catalogue of a language.

    Raises:
        SettingsError: There is none.
    """
    if code not in LANGUAGES:
        raise SettingsError(f"language {code!r} is unknown; expected one of {', '.join(LANGUAGES)}")
    if code == SOURCE:
        return ENGLISH
    place = files("medfuse_serving").joinpath("locale", code, "LC_MESSAGES", "medfuse.po")
    with place.open("rb") as file:
        catalogue = read_po(file, locale=code)
    translations = {
        str(entry.id): str(entry.string) for entry in catalogue if entry.id and entry.string
    }
    return Language(code, translations)


@cache
def _match(form: str) -> re.Pattern[str]:
    """Make a sentence's form into a pattern that finds its values."""
    parts = [
        re.escape(text) + (f"(?P<{name}>.+?)" if name else "")
        for text, name, _, _ in Formatter().parse(form)
    ]
    return re.compile("".join(parts), re.DOTALL)
