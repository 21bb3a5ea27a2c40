"""The fixed sentences of the concierge. Where there are several, they take turns."""

from collections.abc import Mapping, Sequence
from typing import Final

from .understanding import Act
from .vocabulary import Domain

HELP: Final = (
    "I am a demo made of fixed rules. I plan trips, and I look for hotels, restaurants, flights "
    "and things to buy, with offers that are made up. What you say I remember, so you can go on "
    "with “make it 3 days” or “no, Udaipur”."
)
SMALL_TALK: Final[Mapping[Act, Sequence[str]]] = {
    Act.GREETING: (
        "Hello! A trip, a hotel, a table, a flight, or something to buy: what may I look for?",
        "Good to see you. Where shall we begin: a trip, a hotel, a restaurant?",
        "Hello again. What can I do for you?",
    ),
    Act.THANKS: (
        "You are welcome.",
        "With pleasure. Anything else?",
        "Not at all. I am here as long as this conversation is.",
    ),
    Act.FAREWELL: (
        "Goodbye! I keep our conversation until it expires, in case you come back.",
        "See you. If you come back in time, we go on where we are.",
    ),
    Act.HELP: (HELP,),
    Act.AGREEMENT: (
        "Good. What comes next: a hotel, a restaurant, a flight?",
        "Fine. Say so if anything should change.",
    ),
    Act.REFUSAL: ("All right. Tell me when there is something.", "Then I leave it at that."),
    Act.UNCLEAR: (
        "That is beyond me, I follow a few fixed rules.",
        "I am afraid I have no rule for that.",
        "I did not understand that.",
    ),
}
ACKNOWLEDGED: Final = ("With pleasure.", "Gladly.", "Let us see.")

# What to say that is understood, by what the conversation is about.
EXAMPLES: Final[Mapping[Domain, str]] = {
    "general": "4 relaxed days in Jaipur, we love food",
    "location": "a trip for a long weekend",
    "hotel": "a boutique hotel under $120",
    "restaurants": "something Italian, not too expensive",
    "flights": "business class to Tokyo",
    "shopping": "running shoes for women under $80",
}

# Questions: the first time, by domain where it matters; and if the answer was not understood.
ASK_TRIP_CITY: Final = "Where would you like to go?"
ASK: Final[Mapping[str, str]] = {
    "duration_days": "For how many days?",
    "category": "What are you looking for?",
}
ASK_CITY: Final[Mapping[Domain, str]] = {
    "hotel": "In which city?",
    "restaurants": "In which city would you like to eat?",
    "flights": "Where would you like to fly?",
    "location": "Where you are I cannot see. Which city is it?",
}
ASK_AGAIN: Final[Mapping[str, str]] = {
    "city": "I did not catch a city. Jaipur, Paris and Tokyo I know best, others by name.",
    "duration_days": "How many days are there? A weekend will do, two weeks are the most.",
    "category": "I did not catch what it is. Shoes, a jacket, headphones?",
}

MADE_UP: Final = (
    "Three demo offers, all made up:",
    "I made these up, as this is a demo:",
    "Demo offers, none of them real:",
)
# How to narrow a search down, by what it does not have yet.
NARROWING: Final[Mapping[Domain, Mapping[str, str]]] = {
    "hotel": {"price": "a price", "category": "a kind (boutique, hostel, resort)"},
    "restaurants": {"category": "a cuisine", "price": "a price"},
    "flights": {"category": "a cabin", "price": "a price"},
    "shopping": {"brand": "a brand", "price": "a price", "gender": "for whom it is"},
}
NARROW: Final = "Tell me {wishes}, and I narrow it down."
CHANGE: Final = (
    "Say what to change, and I look again.",
    "Anything else, or something different?",
)
CHANGE_TRIP: Final = (
    "“Slower”, “also museums”, another city: say so, and I plan it anew.",
    "Shall I change anything? A hotel or a table there I can look for too.",
)
ASK_INTERESTS: Final = "Tell me what you love (food, art, nature), and I plan around it."
PLACE_BY_NAME: Final = "I know {city} by name only, so this is what most cities have."

# Categories that are no adjective to "hotels" or "restaurants".
KINDS: Final = {
    "hostel": "hostels",
    "resort": "resorts",
    "apartment": "apartments",
    "guesthouse": "guesthouses",
    "café": "cafés",
}
PRICES: Final = {
    "budget": "at a small price",
    "mid-range": "in the middle range",
    "luxury": "at the upper end",
}


def in_turn(sentences: Sequence[str], turn: int) -> str:
    """Return the one whose turn it is, the first in turn 0."""
    return sentences[turn % len(sentences)]


def listed(words: Sequence[str], conjunction: str = "and") -> str:
    """Return "a, b and c"."""
    *before, last = words
    return f"{', '.join(before)} {conjunction} {last}" if before else last
