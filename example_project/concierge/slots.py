"""What a conversation remembers: how a request is noted in its state, recalled and forgotten.

domain          what it is about, and city: a place as the visitor called it
category        what is to be bought, of a brand, for a gender; the cuisine, kind of hotel, or cabin
price           at most: "$80", or "cheap", "luxury"
intentSpecific  bool: the request at hand says enough for an answer
preferences     of the trip: city, duration_days, interests (a list), pace, budget (as price)
itinerary       of the trip: a list of days
title           of the conversation: how the first request began
"""

from collections.abc import Mapping, MutableMapping, Sequence, Set
from typing import Any, Final

from .understanding import SLOTS

State = MutableMapping[str, Any]

KEYS: Final = (
    *("domain", "city", "brand", "category", "gender", "price", "intentSpecific", "preferences"),
    *(
        "itinerary",
        "title",
        "clarifying_questions_count",
        "lastQuery",
        "lastAnswer",
        "lastImageUrl",
    ),
)
# What says nothing any more when the subject changes. A city does: "and a hotel there".
_OF_ONE_DOMAIN: Final = ("brand", "category", "gender", "price")


def topic_of(state: State) -> str | None:
    """Return what was talked about last, a key of `SLOTS`."""
    domain = state.get("domain")
    if domain == "location":
        return "trip" if "preferences" in state else "sights"
    return domain if domain in SLOTS else None


def note(state: State, topic: str, values: Mapping[str, Any], unwanted: Set[str]) -> list[str]:
    """Write what was understood about `topic` into `state`; return the slots without which there
    is no answer yet."""
    domain = "location" if topic in ("trip", "sights") else topic
    if state.get("domain") != domain:
        _pop(state, *_OF_ONE_DOMAIN)
        state["domain"] = domain
    target = state
    if topic == "trip":
        target = state.setdefault("preferences", {"city": state["city"]} if "city" in state else {})
        _pop(state, "itinerary")  # until it is planned anew
    for slot in SLOTS[topic]:
        value = values.get(slot, target.get(slot))
        if slot == "interests":  # which add up
            value = [*target.get(slot, []), *values.get(slot, [])]
            value = [each for each in dict.fromkeys(value) if each not in unwanted]
        if value and (slot == "interests" or value not in unwanted):
            target[slot] = value
        else:
            _pop(target, slot)
    if topic == "trip":
        _pop(state, "city")
        state.update({"city": target["city"]} if "city" in target else {})
    needed = SLOTS[topic][: 2 if topic == "trip" else 1]
    return [slot for slot in needed if slot not in target]


def recall(state: State) -> dict[str, Any]:
    """Return what is remembered, that of the topic at hand first; a price is a budget."""
    trip = state.get("preferences", {})
    search = {slot: state[slot] for slot in ("city", *_OF_ONE_DOMAIN) if slot in state}
    search |= {"budget": search.pop("price")} if "price" in search else {}
    known = {**search, **trip} if topic_of(state) == "trip" else {**trip, **search}
    return known | ({"itinerary": state["itinerary"]} if "itinerary" in state else {})


def forget(state: State, names: Sequence[str] | None) -> list[str]:
    """Forget what `recall` calls so, None: all there is; return what of it was known."""
    gone = [name for name in recall(state) if names is None or name in names]
    _pop(state, *(KEYS if names is None else ()))
    _pop(state, *gone, *(["price"] if "budget" in gone else []))
    _pop(state.get("preferences", {}), *gone)
    if "itinerary" in gone:
        _pop(state, "preferences")
    elif set(gone).intersection(SLOTS["trip"]) and state.pop("itinerary", None):
        gone.append("itinerary")  # which was made of them
    return gone


def _pop(state: State, *slots: str) -> None:
    for slot in slots:
        state.pop(slot, None)
