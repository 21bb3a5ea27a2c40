"""What to answer: the state and the last sentence in, words out. Pure, and made of rules.

A reply asks for the one thing that is missing, or it answers. Nobody is asked for ever: after
`MAX_QUESTIONS` in a row it takes something for granted, says so, and answers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from . import phrases
from .gazetteer import SIGHTS
from .money import Money
from .offers import offers
from .phrases import in_turn, listed
from .planner import DEFAULT_PACE, Day, plan
from .slots import State, missing
from .topics import Topic
from .understanding import Act, Found
from .vocabulary import Domain

MAX_QUESTIONS: Final = 2
SIGHTS_SHOWN: Final = 4

# Taken where nobody says anything better.
ASSUMED: Final[Mapping[str, Any]] = {"city": "Lisbon", "duration_days": 3, "category": "backpacks"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What to answer.

    Attributes:
        text: the words.
        asks: the slot that this is a clarifying question about; None: it is none.
        is_specific: the request said enough; None: there was no request.
        assumed: slots of the request that were filled in for want of an answer.
        itinerary: of a trip, the plan that the text tells; None: there is none.
    """

    text: str
    asks: str | None = None
    is_specific: bool | None = None
    assumed: Mapping[str, Any] = field(default_factory=dict)
    itinerary: list[Day] | None = None


def compose(state: State, found: Found, asked: Sequence[str], turn: int) -> Reply:
    """Return the answer to a sentence.

    Args:
        state: the state in which the sentence is noted already.
        found: what the sentence says.
        asked: the slots that the last answers asked for, one question after the other.
        turn: how many answers there were, so that they need not all sound the same.
    """
    if found.topic is None:
        return Reply(text=_small_talk(found.act, state, turn))
    lacking = missing(state, found.topic)
    if lacking and not found.indifferent and len(asked) < MAX_QUESTIONS:
        text = _question(found.topic, lacking[0], asked, turn)
        return Reply(text=text, asks=lacking[0], is_specific=False)
    assumed = {slot: ASSUMED[slot] for slot in lacking}
    preface = _preface(assumed, found)
    if found.topic.is_trip:
        itinerary, text = _trip(state["preferences"] | assumed, turn)
    else:
        itinerary, text = None, _answer(found.topic.domain, {**state, **assumed}, turn)
    return Reply(text=preface + text, is_specific=not lacking, assumed=assumed, itinerary=itinerary)


def _small_talk(act: Act, state: State, turn: int) -> str:
    text = in_turn(phrases.SMALL_TALK[act], turn)
    if act is Act.UNCLEAR:
        text += f" Try “{phrases.EXAMPLES[state.get('domain', 'general')]}”."
    return text


def _question(topic: Topic, slot: str, asked: Sequence[str], turn: int) -> str:
    if slot in asked:
        return phrases.ASK_AGAIN[slot]
    if slot != "city":
        question = phrases.ASK[slot]
    elif topic.is_trip:
        question = phrases.ASK_TRIP_CITY
    else:
        question = phrases.ASK_CITY[topic.domain]
    return f"{in_turn(phrases.ACKNOWLEDGED, turn)} {question}"


def _preface(assumed: Mapping[str, Any], found: Found) -> str:
    """Return what has to be said before the answer: what is taken for granted, what is left out."""
    sentences = []
    if assumed:
        names = listed([_named(slot, value) for slot, value in assumed.items()])
        sentences.append(
            f"As you leave it to me: {names}."
            if found.indifferent
            else f"As I know no better, I take {names}; say so if it is something else."
        )
    if found.unsupported:
        sentences.append(f"This demo has no rule for {', or for '.join(found.unsupported)}.")
    return " ".join(sentences) + "\n\n" if sentences else ""


def _named(slot: str, value: Any) -> str:
    return _days(value) if slot == "duration_days" else str(value)


def _days(count: int, adjective: str = "") -> str:
    return " ".join(filter(None, (str(count), adjective, "day" if count == 1 else "days")))


# Trips.


def _trip(preferences: Mapping[str, Any], turn: int) -> tuple[list[Day], str]:
    city, days = preferences["city"], preferences["duration_days"]
    interests = preferences.get("interests", [])
    itinerary = plan(city, days, interests, preferences.get("pace", DEFAULT_PACE))
    paragraphs = [
        f"{_days(days, preferences.get('pace', ''))} in {city}{_wishes(preferences)}:",
        "\n".join(_line(day) for day in itinerary),
    ]
    if city not in SIGHTS:
        paragraphs.append(phrases.PLACE_BY_NAME.format(city=city))
    paragraphs.append(in_turn(phrases.CHANGE_TRIP, turn) if interests else phrases.ASK_INTERESTS)
    return itinerary, "\n\n".join(paragraphs)


def _wishes(preferences: Mapping[str, Any]) -> str:
    wishes = ""
    if interests := preferences.get("interests"):
        wishes += f" for {listed(interests)}"
    if budget := preferences.get("budget"):
        wishes += f", {_up_to(budget)}"
        if amount := Money.find(budget):
            wishes += f" (about {amount.share(1 / preferences['duration_days'])} a day)"
    return wishes


def _line(day: Day) -> str:
    return f"Day {day['day']} · {day['theme']}: {'; '.join(day['stops'])}"


# Everything else.


def _answer(domain: Domain, state: Mapping[str, Any], turn: int) -> str:
    if domain == "location":
        return _sights(state["city"])
    price = f", {_up_to(state['price'])}" if "price" in state else ""
    heading = f"{_sought(domain, state)}{price}. {in_turn(phrases.MADE_UP, turn)}"
    lines = [f"• {offer}" for offer in offers(domain, state)]
    wishes = [wish for slot, wish in phrases.NARROWING[domain].items() if slot not in state]
    closing = (
        phrases.NARROW.format(wishes=listed(wishes, "or"))
        if wishes
        else in_turn(phrases.CHANGE, turn)
    )
    return "\n".join([heading, *lines, "", closing])


def _sights(city: str) -> str:
    if city not in SIGHTS:
        return (
            f"I know {city} by name only; sights I have for {listed(list(SIGHTS))}. A hotel or a "
            f"restaurant in {city} I can make up for you."
        )
    names = "; ".join(sight.name for sight in SIGHTS[city][:SIGHTS_SHOWN])
    return f"In {city}, I would begin with these: {names}. Say for how many days, and I plan them."


def _sought(domain: Domain, state: Mapping[str, Any]) -> str:
    """Return what is looked for, e.g. "Boutique hotels in Paris"."""
    category = state.get("category", "")
    what = (
        phrases.KINDS.get(category)
        or {
            "hotel": f"{category} hotels",
            "restaurants": f"{category} restaurants",
            "flights": f"{category} flights to {state.get('city')}",
            "shopping": f"{state.get('brand', '')} {category}",
        }[domain].strip()
    )
    if gender := state.get("gender"):
        what += f" for {gender}"
    if domain in ("hotel", "restaurants"):
        what += f" in {state['city']}"
    return what[0].upper() + what[1:]


def _up_to(price: str) -> str:
    return phrases.PRICES.get(price) or f"up to {price}"
