"""What a sentence has that the concierge understands but has no slot for: it is fair to say so."""

import re
from collections.abc import Callable, Iterator
from typing import Final

from .days import MAX_DAYS, find_days
from .gazetteer import CITIES
from .vocabulary import COLOURS, Domain

_WHEN: Final = re.compile(
    r"\b(?:tonight|today|tomorrow|next (?:week|month|year|\w+day)|(?:on|this) \w+day|"
    r"(?:in|on|from|until) (?:january|february|march|april|may|june|july|august|september|october|"
    r"november|december)|\d{1,2}(?:st|nd|rd|th)|at \d{1,2}(?::\d\d)? ?(?:am|pm)?)\b",
    re.IGNORECASE,
)
_PARTY: Final = re.compile(
    r"\b(?:(?:tables?|rooms?) for (?:\d+|two|three|four|five|six)|"
    r"(?:\d+|two|three|four|five|six) (?:people|persons|adults|guests|travell?ers))\b",
    re.IGNORECASE,
)
_SIZE: Final = re.compile(r"\bsize \w+\b", re.IGNORECASE)
_ORIGIN: Final = re.compile(r"\bfrom (?:the )?[A-Z]\w+")
_SECOND: Final = re.compile(r"(?:,|&|\band)\s*$")


def _has_two_cities(text: str) -> bool:
    later_cities = [hit for hit in CITIES.find(text) if not hit.refused][1:]
    return any(_SECOND.search(text, endpos=hit.start) for hit in later_cities)


_SOMEWHERE: Final[tuple[Domain, ...]] = ("hotel", "restaurants", "flights", "location")
_TESTS: Final[list[tuple[str, tuple[Domain, ...], Callable[[str], object]]]] = [
    ("colours", ("shopping",), COLOURS.wanted),
    ("sizes", ("shopping",), _SIZE.search),
    ("where to buy it", ("shopping",), CITIES.wanted),
    ("where you leave from", ("flights",), _ORIGIN.search),
    ("dates and times", _SOMEWHERE, _WHEN.search),
    ("the number of people", _SOMEWHERE, _PARTY.search),
    ("a second city", _SOMEWHERE, _has_two_cities),
    ("the length of a stay", ("hotel", "flights"), find_days),
    (
        f"more than {MAX_DAYS} days",
        ("location",),
        lambda text: (find_days(text) or 0) > MAX_DAYS,
    ),
]


def unsupported_in(text: str, domain: Domain) -> Iterator[str]:
    """Yield what a request in that domain has no slot for, as phrases."""
    for phrase, domains, test in _TESTS:
        if domain in domains and test(text):
            yield phrase
