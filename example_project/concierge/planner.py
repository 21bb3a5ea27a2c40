"""An itinerary from preferences, by rules: what suits the interests comes first, and the pace says
how much fits into a day."""

from collections.abc import Iterator, Sequence
from itertools import chain, islice, repeat, zip_longest
from typing import Final, TypedDict

from .gazetteer import SIGHTS, Sight

STOPS_A_DAY: Final = {"relaxed": 2, "moderate": 3, "packed": 4}
DEFAULT_PACE: Final = "moderate"


class Day(TypedDict):
    """One day of an itinerary: its number from 1, what it is about, and where to go in turn."""

    day: int
    theme: str
    stops: list[str]


# What most cities have.
_ANYWHERE: Final = tuple(
    Sight(name, frozenset(tags.split()))
    for name, tags in (
        ("the old town on foot", "history architecture"),
        ("lunch where the market people eat", "food markets"),
        ("the largest museum", "museums art history"),
        ("the best viewpoint at sunset", "views"),
        ("the fort, or what is left of the walls", "forts history"),
        ("the largest park", "nature"),
        ("a cooking class", "food"),
        ("the oldest temple or church", "temples architecture"),
        ("a palace, if there is one", "palaces history"),
        ("a gallery quarter", "art"),
        ("live music in a small place", "music nightlife"),
        ("a walk out of town", "hiking nature"),
        ("the nearest beach or lake", "beaches nature"),
    )
)
_FREE_TIME: Final = "time of your own"
_NO_THEME: Final = "highlights"


def plan(city: str, days: int, interests: Sequence[str], pace: str) -> list[Day]:
    """Return what to do in `city` on so many days.

    Args:
        city: its name; of one that is not in the gazetteer, only what most cities have is known.
        days: how many.
        interests: what to favour, as the vocabulary names them.
        pace: a key of `STOPS_A_DAY`.
    """
    size = STOPS_A_DAY[pace]
    sights = chain(_in_order(city, interests), repeat(Sight(_FREE_TIME, frozenset())))
    return [_day(number, list(islice(sights, size)), interests) for number in range(1, days + 1)]


def _day(number: int, sights: list[Sight], interests: Sequence[str]) -> Day:
    themes = [interest for interest in interests if any(interest in s.tags for s in sights)]
    # Free time is said once a day, however much of it there is.
    stops = list(dict.fromkeys(sight.name for sight in sights))
    if stops == [_FREE_TIME]:
        return Day(day=number, theme="rest", stops=stops)
    return Day(day=number, theme=" and ".join(themes[:2]) or _NO_THEME, stops=stops)


def _in_order(city: str, interests: Sequence[str]) -> Iterator[Sight]:
    """Yield each sight once, what the city is known for before what most cities have."""
    return iter(
        dict.fromkeys(
            chain(
                *(_favouring(interests, SIGHTS.get(city, ())), SIGHTS.get(city, ())),
                *(_favouring(interests, _ANYWHERE), _ANYWHERE),
            )
        )
    )


def _favouring(interests: Sequence[str], sights: Sequence[Sight]) -> Iterator[Sight]:
    """Yield one sight for each interest in turn, until there are no more."""
    by_interest = [[sight for sight in sights if i in sight.tags] for i in interests]
    return filter(None, chain.from_iterable(zip_longest(*by_interest)))
