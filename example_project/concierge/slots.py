"""The state of a conversation: which slots there are, and how what was understood is noted in them.

domain            what the conversation is about
city              where: a city, or a place as somebody called it
brand, gender     of what is to be bought
category          what is to be bought; the cuisine, the kind of hotel, the cabin
price             at most: "$80", or "budget", "mid-range", "luxury"
intentSpecific    bool: the request at hand says enough for an answer
lastQuery, lastAnswer, lastImageUrl
preferences       of the trip: city, duration_days, interests (a list), pace, budget (as price)
itinerary         of the trip: a list of days, see the planner
clarifying_questions_count
"""

from collections.abc import Mapping, MutableMapping
from typing import Any, Final

from .topics import Context, Topic
from .understanding import Found
from .vocabulary import Domain

State = MutableMapping[str, Any]

# Every key, in the order in which it makes sense to read them.
KEYS: Final = (
    *("domain", "city", "brand", "category", "gender", "price", "intentSpecific"),
    *("preferences", "itinerary", "clarifying_questions_count"),
    *("lastQuery", "lastAnswer", "lastImageUrl"),
)

# What a domain asks for. The first of them it cannot do without.
_USED: Final[dict[Domain, tuple[str, ...]]] = {
    "shopping": ("category", "brand", "gender", "price"),
    "hotel": ("city", "category", "price"),
    "restaurants": ("city", "category", "price"),
    "flights": ("city", "category", "price"),
    "location": ("city",),
    "general": (),
}
_REQUIRED_FOR_A_TRIP: Final = ("city", "duration_days")
# What says nothing any more when the subject changes. A city does: "and a hotel there".
_OF_ONE_DOMAIN: Final = ("brand", "category", "gender", "price")
# What a trip calls otherwise.
_TRIP_NAMES: Final = {"price": "budget"}


def context_of(state: State, asked: str | None) -> Context:
    """Return what the next sentence is heard against, if the last answer `asked` for that slot."""
    return Context(domain=state.get("domain"), planning="preferences" in state, asked=asked)


def note(state: State, topic: Topic, found: Found) -> None:
    """Write into `state` what was understood of a request about `topic`."""
    if state.get("domain") != topic.domain:
        for slot in _OF_ONE_DOMAIN:
            state.pop(slot, None)
        state["domain"] = topic.domain
    if topic.is_trip:
        _note_trip(state, found)
        return
    for slot in _USED[topic.domain]:
        if slot in found.slots:
            state[slot] = found.slots[slot]
        elif slot in found.unwanted or state.get(slot) in found.unwanted:
            state.pop(slot, None)


def missing(state: State, topic: Topic) -> list[str]:
    """Return the slots without which there is no answer yet."""
    if topic.is_trip:
        return [slot for slot in _REQUIRED_FOR_A_TRIP if slot not in state["preferences"]]
    return [slot for slot in _USED[topic.domain][:1] if slot not in state]


def assume(state: State, topic: Topic, values: Mapping[str, Any]) -> None:
    """Write into `state` what was taken for granted for want of an answer."""
    target = state["preferences"] if topic.is_trip else state
    target.update(values)
    if "city" in values:
        state["city"] = values["city"]


def _note_trip(state: State, found: Found) -> None:
    preferences = state.setdefault("preferences", {})
    if "city" in state:
        preferences.setdefault("city", state["city"])
    unwanted = {_TRIP_NAMES.get(name, name) for name in found.unwanted}
    for slot in ("city", "duration_days", "pace", "price"):
        name = _TRIP_NAMES.get(slot, slot)
        if slot in found.slots:
            preferences[name] = found.slots[slot]
        elif name in unwanted or preferences.get(name) in unwanted:
            preferences.pop(name, None)
    _note_interests(preferences, found)
    if "city" in preferences:
        state["city"] = preferences["city"]
    else:
        state.pop("city", None)


def _note_interests(preferences: dict[str, Any], found: Found) -> None:
    wanted: Any = found.slots.get("interests", [])
    known = preferences.get("interests", [])
    merged = known + wanted if found.adds or not wanted else wanted
    kept = [interest for interest in dict.fromkeys(merged) if interest not in found.unwanted]
    if kept:
        preferences["interests"] = kept
    else:
        preferences.pop("interests", None)
