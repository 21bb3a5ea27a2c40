"""What a sentence says. Rules only, and pure: text in, words with a meaning out.

A sentence names a domain by a word of it ("flights", "sushi"), or goes on with the one at hand. The
words in it that the vocabulary knows become slots; so does, where a name was to be expected, one
that it does not know.
"""

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from . import names
from .days import MAX_DAYS
from .gazetteer import CITIES
from .lexicon import Lexicon
from .money import Money
from .topics import Context, Topic, days_in, topic_of
from .unsupported import unsupported_in
from .vocabulary import BRANDS, CATEGORIES, GENDERS, INTERESTS, PACES, PRICES

# A slot's value: a name, a number of days, or a list of interests.
Value = str | int | list[str]


class Act(enum.Enum):
    """What somebody does by saying something."""

    REQUEST = enum.auto()
    GREETING = enum.auto()
    THANKS = enum.auto()
    FAREWELL = enum.auto()
    HELP = enum.auto()
    AGREEMENT = enum.auto()
    REFUSAL = enum.auto()
    UNCLEAR = enum.auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a sentence says.

    Attributes:
        topic: of a request, what it is about: what the sentence names, or else what was at hand.
        slots: slot to what it is to be. `duration_days` is in days, up to `MAX_DAYS`.
        unwanted: what is not to be: names in whichever slot, or the names of slots.
        adds: interests come on top of the known ones, rather than instead of them.
        indifferent: the choice is ours.
        unsupported: what was understood but has no slot, as phrases.
    """

    act: Act
    topic: Topic | None = None
    slots: Mapping[str, Value] = field(default_factory=dict)
    unwanted: frozenset[str] = frozenset()
    adds: bool = False
    indifferent: bool = False
    unsupported: tuple[str, ...] = ()


def understand(text: str, context: Context) -> Found:
    """Return what `text` says to somebody who has `context` in mind."""
    text = " ".join(text.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").split())
    named = topic_of(text, context)
    topic = named or context.topic
    indifferent = context.asked is not None and _INDIFFERENT.search(text) is not None
    slots = _slots(text, topic, context, expects_name=not indifferent)
    if named is None and "city" in slots and topic in (None, Topic("shopping")):
        topic = Topic("location")
    unwanted = _unwanted(text, topic)
    act = _small_talk(text)
    no_answer = context.asked is not None and act is Act.UNCLEAR
    if topic is None or not (named or slots or unwanted or indifferent or no_answer):
        return Found(act=act)
    return Found(
        act=Act.REQUEST,
        topic=topic,
        slots=slots,
        unwanted=frozenset(unwanted),
        adds=_ADDING.search(text) is not None,
        indifferent=indifferent,
        unsupported=tuple(unsupported_in(text, topic.domain)),
    )


_ADDING: Final = re.compile(r"\b(?:also|more|too|as well|plus|add|and we)\b", re.IGNORECASE)
_ANY: Final = re.compile(
    r"\b(?:any|no|whatever|whichever) (brand|city|price|budget|gender|category)\b", re.IGNORECASE
)
_INDIFFERENT: Final = re.compile(
    r"\b(?:(?:don'?t|do not) (?:know|care|mind)|not sure|dunno|any(?:thing|where|one)?|no idea|"
    r"surprise me|whatever|whichever|you (?:choose|pick|decide)|(?:doesn't|does not) matter|"
    r"no preferences?|up to you)\b",
    re.IGNORECASE,
)


def _slots(
    text: str, topic: Topic | None, context: Context, *, expects_name: bool
) -> dict[str, Value]:
    """Return what `text` has for the slots, as something about that topic."""
    days = days_in(text, context)
    found: dict[str, Value | None] = {
        "city": names.place(text),
        "brand": _first(BRANDS, text),
        "category": _first(_categories(topic), text),
        "gender": _first(GENDERS, text),
        "price": _price(text),
        "duration_days": min(days, MAX_DAYS) if days else None,
        "pace": _first(PACES, text),
        "interests": INTERESTS.wanted(text) or None,
    }
    expected = context.asked or ("brand" if topic == Topic("shopping") else "city")
    may_be_name = expects_name and expected in ("city", "category", "brand")
    if may_be_name and found[expected] is None:
        found[expected] = _name_for(expected, text, asked=context.asked is not None)
    return {slot: value for slot, value in found.items() if value is not None}


def _first(lexicon: Lexicon | None, text: str) -> str | None:
    return next(iter(lexicon.wanted(text)), None) if lexicon else None


def _categories(topic: Topic | None) -> Lexicon | None:
    return CATEGORIES.get(topic.domain) if topic else None


def _price(text: str) -> str | None:
    amount = Money.find(text)
    return str(amount) if amount else _first(PRICES, text)


def _name_for(slot: str, text: str, *, asked: bool) -> str | None:
    name = names.alone(text, asked=asked)
    if name and slot == "category":
        return name.lower()
    return name.title() if name and name.islower() else name


def _unwanted(text: str, topic: Topic | None) -> set[str]:
    lexicons = (CITIES, BRANDS, GENDERS, INTERESTS, _categories(topic))
    return {
        *(match[1].lower() for match in _ANY.finditer(text)),
        *(name for lexicon in lexicons if lexicon for name in lexicon.refused(text)),
    }


# What somebody says when there is nothing to look for in it.
_SMALL_TALK: Final = [
    (act, re.compile(rf"(?<!\w)(?:{words})(?!\w)", re.IGNORECASE))
    for act, words in (
        (Act.THANKS, r"thanks?|thank you|thx|cheers|much appreciated"),
        (Act.GREETING, r"hi|hello|hey|hiya|good (?:morning|afternoon|evening|day)|namaste"),
        (Act.FAREWELL, r"bye|goodbye|good night|see (?:you|ya)|ciao|that(?:'s| is) all"),
        (
            Act.HELP,
            r"help|what (?:can|do) you do|who are you|what are you|are you an? \w+|"
            r"how (?:do you|does this) work",
        ),
        (Act.AGREEMENT, r"yes|yeah|yep|ok|okay|sure|great|good|perfect|nice|cool|lovely|wow"),
        (Act.REFUSAL, r"no|nope|nah|not really|nothing|never ?mind"),
    )
]


def _small_talk(text: str) -> Act:
    return next((act for act, words in _SMALL_TALK if words.search(text)), Act.UNCLEAR)
