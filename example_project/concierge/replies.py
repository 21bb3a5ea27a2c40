"""What to answer: the state and what a sentence says in, words out.

After `MAX_QUESTIONS` in a row a reply takes something for granted, says so, and answers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from .slots import State, forget, note, recall
from .understanding import SLOTS, Found
from .vocabulary import ANYWHERE, SIGHTS, Sight, table

MAX_QUESTIONS: Final = 2
_ASSUMED: Final = {"city": "Paris", "duration_days": 3, "category": "backpacks"}
_CRISIS: Final = (
    "I am so sorry that it is this hard. I am only a demo, but you do not have to go through it "
    "alone: findahelpline.com lists people who listen, free and at any hour, in every country. If "
    "anybody is in danger now, please call your local emergency number, such as 112 or 911."
)
_PHRASES: Final = table(  # several of one name take turns
    """
    foreign: I am sorry, I only know English. Try “a hotel in Paris”.
    wordless: I see no words in that. Try “a hotel in Paris”.
    thanks: You are welcome. Anything else?
    greeting: Hello! A trip, a hotel, a table, a flight, or something to buy: what may I look for?
    farewell: Goodbye! I keep our conversation until it expires, in case you come back.
    help: I am a demo of fixed rules: I plan trips and look for hotels, tables, flights and goods.
    offended: I am sorry, I know a few fixed rules only. Shall we try “a hotel in Paris”?
    agreement: Good. What comes next: a hotel, a restaurant, a flight?
    refusal: All right. Tell me when there is something.
    unclear: That is beyond me, I follow a few fixed rules. Try “4 relaxed days in Jaipur”.
    unclear: I did not understand that. Try “what do you remember?” or “forget everything”.
    ask city: In which city?
    ask city: I did not catch a city. Paris, Jaipur, Tokyo?
    ask duration_days: For how many days?
    ask duration_days: How many days are there? A weekend will do.
    ask category: What are you looking for?
    ask category: I did not catch what it is. Shoes, headphones?
    """
)
_STOPS_A_DAY: Final = {"relaxed": 2, "packed": 4}
# What is offered, what the middle one costs in dollars, and for what.
_OFFERS: Final = {
    "hotel": ("hotels in {city}", 110, " a night"),
    "restaurants": ("restaurants in {city}", 30, " a head"),
    "flights": ("flights to {city}", 320, " one way"),
    "shopping": ("{category}", 60, ""),
}
_LEVELS: Final = {"cheap": 0.5, "luxury": 3.0}


@dataclass(frozen=True, slots=True)
class Reply:
    text: str
    asks: str | None = None  # the slot that this is a clarifying question about
    is_specific: bool | None = None  # a request said enough; None: it was none


def answer(state: State, found: Found, asked: Sequence[str], turn: int) -> Reply:
    """Return the answer to a sentence, and note in `state` what it says. `asked` are the slots that
    the last answers asked for; `turn` counts the answers, so that they need not all sound alike."""
    if found.topic is None:
        return Reply(_talk(state, found, turn))
    lacking = note(state, found.topic, found.slots, found.unwanted)
    preface = f"{_cannot(found)} I leave it out. " if found.beyond else ""
    if lacking and not found.indifferent and len(asked) < MAX_QUESTIONS:
        preface += _phrase(f"ask {lacking[0]}", asked.count(lacking[0]))
        return Reply(preface, lacking[0], is_specific=False)
    if lacking:
        assumed = {slot: _ASSUMED[slot] for slot in lacking}
        note(state, found.topic, assumed, set())
        reason = "As you leave it to me" if found.indifferent else "As I know no better"
        preface += f"{reason}, I take {_told(assumed)}. "
    tell = {"trip": _trip, "sights": _sights}.get(found.topic, _offers)
    return Reply(f"{preface.strip()}\n\n{tell(state)}".strip(), is_specific=not lacking)


def _talk(state: State, found: Found, turn: int) -> str:
    """Return the answer to what is no request."""
    if found.act == "distress":
        return _CRISIS
    if found.act in ("forget", "forget all"):
        gone = forget(state, found.names if found.act == "forget" else None)
        nothing = "I had not noted that." if found.act == "forget" else "My notes are empty."
        return f"Done. I have forgotten your {_listed(gone)}." if gone else nothing
    if found.act == "recall":
        known = recall(state)
        wanted = {slot: value for slot, value in known.items() if slot in found.names}
        missing = "" if wanted or not found.names else "That I have not noted. "
        return f"{missing}My notes say: {_told(wanted or known) or 'nothing yet'}."
    return f"{_cannot(found)} {_PHRASES['help'][0]}" if found.beyond else _phrase(found.act, turn)


def _cannot(found: Found) -> str:
    return f"I cannot help with {_listed(found.beyond, 'or')}."


def _phrase(name: str, turn: int) -> str:
    return _PHRASES[name][turn % len(_PHRASES[name])]


def _listed(words: Sequence[str], conjunction: str = "and") -> str:
    words = [{"duration_days": "days", "price": "budget"}.get(word, word) for word in words]
    return f" {conjunction} ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def _told(known: dict[str, Any]) -> str:
    """Return slots as text, such as "city Jaipur; days 4"."""
    special = {"interests": _listed, "itinerary": lambda days: f"\n{_itinerary(days)}"}
    return "; ".join(f"{_listed([slot])} {special.get(slot, str)(known[slot])}" for slot in known)


def _trip(state: State) -> str:
    trip = state["preferences"]
    city, days, interests = trip["city"], trip["duration_days"], trip.get("interests", [])
    sights = [
        sight
        for place in (SIGHTS.get(city, []), ANYWHERE)
        for sight in sorted(place, key=lambda sight: -len(sight[1].intersection(interests)))
    ]
    stops = _STOPS_A_DAY.get(trip.get("pace"), 3)
    plan = [_day(day + 1, sights[day * stops :][:stops], interests) for day in range(days)]
    state["itinerary"] = plan
    words = [str(days), trip.get("pace"), "days" if days > 1 else "day", "in", city]
    heading = " ".join(filter(None, words)) + (f" for {_listed(interests)}" if interests else "")
    by_name = "" if city in SIGHTS else f"I know {city} by name only, so this fits most cities. "
    closing = f"{by_name}Say what to change, and I plan it anew."
    return f"{heading}{_limit(trip.get('budget'))}:\n{_itinerary(plan)}\n\n{closing}"


def _day(number: int, sights: Sequence[Sight], interests: Sequence[str]) -> dict[str, Any]:
    themes = [each for each in interests if any(each in tags for _, tags in sights)]
    stops = [name for name, _ in sights] or ["time of your own"]
    return {"day": number, "theme": _listed(themes[:2]) or "highlights", "stops": stops}


def _itinerary(days: Sequence[dict[str, Any]]) -> str:
    return "\n".join(f"Day {d['day']} · {d['theme']}: {'; '.join(d['stops'])}" for d in days)


def _sights(state: State) -> str:
    names = "; ".join(name for name, _ in SIGHTS.get(state["city"], ANYWHERE)[:4])
    return f"In {state['city']}, begin with these: {names}. For how many days shall I plan?"


def _offers(state: State) -> str:
    domain, price = state["domain"], state.get("price")
    what, usual, unit = _OFFERS[domain]
    what = what.format_map(state)
    more = [
        state[slot] for slot in ("category", "brand", "gender") if state.get(slot, what) != what
    ]
    heading = what[0].upper() + what[1:] + (f" ({', '.join(more)})" if more else "") + _limit(price)
    costs = zip(("One", "Two", "Three"), prices(price, usual), strict=True)
    lines = [f"• Demo {name}, {cost}{unit}" for name, cost in costs]
    wishes = [slot for slot in SLOTS[domain] if slot not in state]
    closing = f"Tell me the {_listed(wishes, 'or')}" if wishes else "Say what to change"
    heading += ". All made up, as this is a demo:"
    return "\n".join([heading, *lines, "", f"{closing}, and I look again."])


def _limit(price: str | None) -> str:
    return f", {f'at {price} prices' if price in _LEVELS else f'up to {price}'}" if price else ""


def prices(limit: str | None, usual: float) -> list[str]:
    """Return what three offers cost: at most `limit`, or about `usual` dollars."""
    symbol, top, shares = "$", usual * _LEVELS.get(limit or "", 1.0), (0.7, 1.0, 1.4)
    if limit and limit not in _LEVELS:
        symbol, top, shares = limit[0], float(limit[1:].replace(",", "")), (0.6, 0.75, 0.95)
    return [f"{symbol}{top * share:,.{0 if top * share > 10 else 2}f}" for share in shares]
