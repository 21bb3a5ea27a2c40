"""What a conversation keeps in mind, as people read it: in groups, and in words."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final, TypedDict

_REQUEST: Final = "What you are looking for"
_TRIP: Final = "Your trip"
_ITINERARY: Final = "Day by day"
_TALK: Final = "Our talk"
_OTHER: Final = "Else"
# Where each part of the state is shown, and as what, in the order in which it makes sense to read.
_PLACES: Final = {
    "domain": (_REQUEST, "Subject"),
    "city": (_REQUEST, "Where"),
    "brand": (_REQUEST, "Brand"),
    "category": (_REQUEST, "Kind"),
    "gender": (_REQUEST, "For"),
    "price": (_REQUEST, "Price"),
    "intentSpecific": (_REQUEST, "Specific"),
    "preferences.city": (_TRIP, "Where"),
    "preferences.duration_days": (_TRIP, "Days"),
    "preferences.pace": (_TRIP, "Pace"),
    "preferences.interests": (_TRIP, "Interests"),
    "preferences.budget": (_TRIP, "Budget"),
    "title": (_TALK, "Title"),
    "clarifying_questions_count": (_TALK, "Questions I asked"),
    "lastQuery": (_TALK, "You said last"),
    "lastAnswer": (_TALK, "I said last"),
}
_SUBJECTS: Final = {
    "hotel": "hotels",
    "location": "trips and sights",
    "general": "this and that",
}
_ORDER: Final = (_REQUEST, _TRIP, _ITINERARY, _TALK, _OTHER)
_HIDDEN: Final = {"lastImageUrl"}  # says nothing to people; it is in the raw state


class Line(TypedDict):
    """One thing, by its name."""

    name: str
    value: str


class Group(TypedDict):
    """What belongs together."""

    title: str
    lines: list[Line]


def notes_of(state: Mapping[str, Any]) -> list[Group]:
    """Return what there is, without empty groups."""
    groups: dict[str, list[Line]] = {title: [] for title in _ORDER}
    paths = dict(_paths(state))
    for path in sorted(paths, key=lambda path: [*_PLACES, path].index(path)):
        title, lines = _shown(path, paths[path])
        groups[title] += lines
    return [Group(title=title, lines=lines) for title, lines in groups.items() if lines]


def raw(state: Mapping[str, Any]) -> str:
    """Return all of it as it is stored: JSON, indented."""
    return json.dumps(dict(state), indent=2, ensure_ascii=False)


def _paths(state: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in state.items():
        if key in _HIDDEN or value in ("", [], {}, None):
            continue
        if isinstance(value, dict):
            yield from ((f"{key}.{name}", item) for name, item in value.items())
        else:
            yield key, value


def _shown(path: str, value: Any) -> tuple[str, list[Line]]:
    if path == "itinerary" and isinstance(value, list):
        return _ITINERARY, [_day(number, day) for number, day in enumerate(value, 1)]
    if path == "domain":
        value = _SUBJECTS.get(value, value)
    title, name = _PLACES.get(path, (_OTHER, _words(path.replace(".", " "))))
    return title, [Line(name=name, value=_text(value))]


def _day(number: int, day: Any) -> Line:
    if not isinstance(day, dict):
        return Line(name=f"Day {number}", value=_text(day))
    said = [_text(value) for key, value in day.items() if key != "day"]
    return Line(name=f"Day {day.get('day', number)}", value=": ".join(said))


def _words(key: str) -> str:
    return key.replace("_", " ").capitalize()


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{_words(key)}: {_text(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    return value if isinstance(value, str) else json.dumps(value)
