"""What a sentence is about.

Words that leave no doubt count before words that have other uses as well; among equals, the first
in the sentence does: "a trip with good hotels" is a trip.
"""

import re
from dataclasses import dataclass
from typing import Final, NamedTuple

from .days import find_days
from .lexicon import Lexicon
from .vocabulary import BRANDS, CATEGORIES, INTERESTS, PACES, Domain


class Topic(NamedTuple):
    """A domain; `is_trip`: of "location", the part that plans a trip."""

    domain: Domain
    is_trip: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a sentence is heard against.

    Attributes:
        domain: what the conversation is about; None: nothing yet.
        planning: a trip has been begun.
        asked: the slot that the last answer asked for.
    """

    domain: Domain | None = None
    planning: bool = False
    asked: str | None = None

    @property
    def topic(self) -> Topic | None:
        """What was talked about last; None: nothing that a sentence could go on with."""
        if self.domain in (None, "general"):
            return None
        return Topic(self.domain, self.planning and self.domain == "location")


Words = re.Pattern[str] | Lexicon


def _pattern(expression: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w)(?:{expression})(?!\w)", re.IGNORECASE)


TRIP: Final = Topic("location", is_trip=True)

_CLEAR: Final[list[tuple[Topic, Words]]] = [
    (
        TRIP,
        _pattern(
            r"trips?|itinerar(?:y|ies)|vacation|holidays?|travel(?:l?ing)?|visit(?:ing)?|getaway|"
            r"weekend|honeymoon|tour|(?:the|my|our) plan"
        ),
    ),
    (Topic("flights"), _pattern(r"flights?|fly|flying|airlines?|plane|airport")),
    (
        Topic("hotel"),
        _pattern(
            r"hotels?|hostels?|resorts?|guest ?houses?|b&b|accommodation|lodging|rooms?|"
            r"(?:place|somewhere|where) to (?:stay|sleep)"
        ),
    ),
    (
        Topic("restaurants"),
        _pattern(r"restaurants?|dinner|lunch|brunch|breakfast|supper|eat|table for|caf[eé]s?"),
    ),
    (Topic("shopping"), _pattern(r"buy|buying|shop|shops|shopping|purchase|gifts?|presents?")),
    (Topic("shopping"), CATEGORIES["shopping"]),
]
_LIKELY: Final[list[tuple[Topic, Words]]] = [
    (Topic("restaurants"), CATEGORIES["restaurants"]),
    (Topic("shopping"), BRANDS),
    (
        Topic("location"),
        _pattern(
            r"where (?:am i|are we)|near(?:by|est)?|around (?:here|me)|close to|sights?|"
            r"attractions?|things to (?:do|see)|(?:to|can i|can we) see|tell me about"
        ),
    ),
]
_LIKING: Final = _pattern(
    r"(?:we|i|kids|they)(?: (?:really|also|all|both|do))? (?:love|like|enjoy|adore|prefer)|into|"
    r"fond of|interested in|interests?"
)
_ABOUT_DAYS: Final = _pattern(r"make (?:it|that)|days|enough")


def topic_of(text: str, context: Context) -> Topic | None:
    """Return what `text` is about; None if it does not say."""
    likes = _LIKING.search(text) is not None and bool(INTERESTS.wanted(text))
    if likes and context.planning:
        return TRIP
    if topic := _first(_CLEAR, text) or _first(_LIKELY, text):
        return topic
    return TRIP if _goes_on_with_trip(text, likes, context) else None


def days_in(text: str, context: Context) -> int | None:
    """Return the number of days in `text`; where they are to be expected, a mere number will do."""
    expected = context.asked == "duration_days" or (
        context.topic == TRIP and _ABOUT_DAYS.search(text) is not None
    )
    return find_days(text, asked=expected)


def _goes_on_with_trip(text: str, likes: bool, context: Context) -> bool:
    if context.topic == TRIP and (PACES.wanted(text) or INTERESTS.wanted(text)):
        return True
    # While somebody looks for a hotel, three nights are no trip.
    is_open = context.planning or context.domain in (None, "general", "location")
    return is_open and (likes or days_in(text, context) is not None)


def _first(table: list[tuple[Topic, Words]], text: str) -> Topic | None:
    starts = [(_start(words, text), topic) for topic, words in table]
    found = [(start, topic) for start, topic in starts if start is not None]
    return min(found, key=lambda item: item[0])[1] if found else None


def _start(words: Words, text: str) -> int | None:
    if isinstance(words, Lexicon):
        return words.position(text)
    match = words.search(text)
    return match.start() if match else None
