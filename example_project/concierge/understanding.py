"""What a sentence says. Rules only, and pure: text in, what was understood out.

A request is about the topic that it names, or about the one at hand, and fills the slots of that.
"""

import re
from dataclasses import dataclass, field
from typing import Any, Final

from . import vocabulary as known

MAX_DAYS: Final = 14  # the longest trip that is planned
# The slots of each topic. Without the first of them, of a trip without two, there is no answer.
SLOTS: Final = {
    "trip": ("city", "duration_days", "pace", "budget", "interests"),
    "sights": ("city",),
    "hotel": ("city", "category", "price"),
    "restaurants": ("city", "category", "price"),
    "flights": ("city", "category", "price"),
    "shopping": ("category", "brand", "gender", "price"),
}


@dataclass(frozen=True, slots=True)
class Found:
    """What a sentence says."""

    act: str  # "request", "beyond", "wordless", "unclear", or as the tables call it
    topic: str | None = None  # of a request, a key of SLOTS
    slots: dict[str, Any] = field(default_factory=dict)  # what is to be
    unwanted: set[str] = field(default_factory=set)  # what is not to be
    indifferent: bool = False  # the choice is ours
    beyond: list[str] = field(default_factory=list)  # what this demo cannot help with
    names: list[str] = field(default_factory=list)  # what to forget or to recall


def _any_of(words: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w$€£₹])(?:{words})(?!\w)", re.IGNORECASE | re.ASCII)


def _rules(text: str) -> dict[str, re.Pattern[str]]:
    return {name: _any_of("|".join(words)) for name, words in known.table(text).items()}


def _fitting(rules: dict[str, re.Pattern[str]], text: str) -> list[str]:
    return [name for name, pattern in rules.items() if pattern.search(text)]


_COUNT: Final = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_FEW: Final = {"a couple of": 2, "a few": 3, "an": 1, "a": 1}
_NUMBER: Final = rf"\d{{1,3}}|{'|'.join(_COUNT)}"

# Distress rather once too often than once too little: the answer is kind, and says where help is.
_FIRST: Final = _rules(
    rf"""
    distress: sui?cid\w*|unalive|self[- ]?harm\w*|overdos\w+|(?:too many|all my) pills|wanna kms
    distress: (?:kill|hurt|harm|cut|hang)(?:t?ing)? (?:my|him|her|them) ?sel(?:f|ves)|quiero morir
    distress: (?:want|wanna|going|rather|ready)(?: to)?(?: just)? die(?! for| of| laughing)|so alone
    distress: wish i (?:was|were|wasn'?t|had)(?: never| not)?(?: been)? (?:dead|alive|born)
    distress: better off (?:dead|without me)|(?:no ?one|nobody) (?:would |will )?(?:miss|cares?)
    distress: (?:end|tak)(?:e|ing)? (?:my(?: own)? life|it all)|to end it(?=\W*$)|so sad|selbstmord
    distress: (?:don'?t|do not) want to (?:live|be alive|exist|wake up|be here)(?! in\b| at\b)
    distress: no (?:reason|point) to live|not worth living|domestic violence|hate my ?(?:self|life)
    distress: can(?:'?t|not) (?:go on|cope|take it|do this(?= a))(?: any ?more| like this)?(?=\W*$)
    distress: (?:i'?m|am|feel\w*)(?: so| very)? (?:hopeless|worthless|depressed|lonely|in danger)
    distress: (?:hit|beat|hurt|threaten|choke|kill)s? me|abus(?:e\w?|ing|ive)|rape[ds]?|molest\w*
    foreign: hola|quiero|quisiera|gracias|por favor|bonjour|bonsoir|voudrais|je|merci|vorrei|grazie
    foreign: hallo|guten|ich|danke|bitte|und|nicht|quero|obrigado|[\u0370-\u1dff\u2e80-\ud7ff]+
    forget all: (?:start|begin) (?:over|again|anew|afresh|from scratch)
    forget all: (?<!n't |not )(?:forget|delete|clear) (?:everything|all|me|what i|it all)
    forget all: (?<!n't |not )(?:forget|delete|clear) (?:my|our|the|your) (?:data|notes|chat)
    forget: (?<!n't |not )(?:forget|delete|clear) (?:my|our|the {known.NAMES.any})
    recall: (?:what|who)(?:'?s| \w+)? (?:my(?! name)|our|the budget)|show(?: me)? my|remind me
    recall: you(?: still)? remember|what (?:do|did|have) you (?:know|remember|note)(?! about (?!me))
    recall: (?:what|which|where|how (?:many|much|long))\b.* (?:did|have|had) (?:i|we) \w+
    recall: (?:where|what|how long) (?:am i|are we) (?:going|looking for|planning|staying)
    """
)
_SMALL_TALK: Final = _rules(
    r"""
    thanks: thanks?|thank you|thx|cheers|much appreciated
    greeting: hi|hello|hey|hiya|good (?:morning|afternoon|evening|day)|how are you|namaste
    farewell: bye|goodbye|good night|see (?:you|ya)|ciao|that(?:'s| is)(?: it| all)
    help: help|what (?:can|do) you do|(?:who|what) are you|are you \w+|how (?:do you|does this) work
    offended: stupid|idiot|useless|dumb|shut up|you suck|wtf
    agreement: yes|yeah|yep|ok|okay|sure|great|good|perfect|nice|cool|lovely|wow
    refusal: no|nope|nah|not really|nothing|never ?mind|(?:forget|stop)(?: about)? (?:it|this)
    """
)
# The one that is said first counts: "a trip with good hotels" is a trip.
_TOPICS: Final = _rules(
    rf"""
    trip: trips?|itinerar(?:y|ies)|vacations?|holidays?|travel(?:l?ing)?|visit(?:ing)?|weekend
    trip: getaway|honeymoon|tour|(?:the|my|our) plan
    flights: flights?|fly|flying|airlines?|plane|airport
    hotel: hotels?|hostels?|resorts?|guest ?houses?|b&b|accommodation|rooms?|(?:to|we|i) stay
    restaurants: restaurants?|dinner|lunch|brunch|breakfast|eat|tables?
    restaurants: {known.CATEGORIES["restaurants"].any}
    shopping: buy|buying|shop|shops|shopping|purchase|gifts?|presents?|{known.BRANDS.any}
    shopping: {known.CATEGORIES["shopping"].any}
    sights: what(?:'s| is) (?:near|close)|sights?|attractions?|things to (?:do|see)|where am i
    """
)
# What has no rule, though it is understood: it is fair to say so, and to hear no more in it.
_BEYOND: Final = _rules(
    rf"""
    bookings or payments: (?:(?:to|please|you|^)\s?)book|book (?:it|me|this|that)|reserv\w+|pay for
    the weather or the news: weather|forecast|rain(?:ing)?|sunny|temperature|news|what time is it
    names: (?:my|your) name(?: is|'s)?(?: \w+)?|call me \w+
    trains, taxis or cars: trains?|bus(?:es)?|taxis?|cabs?|rides?|(?:rental )?cars?|uber
    films or music: (?:watch (?:a |some )?)?(?:movies?|films?)|cinema|songs?
    banking or insurance: (?:savings |checking )?account|transfer|balance|insurance|visas?
    jokes, translations or calls: jokes?|poems?|translat\w+|(?:talk|speak) to .*|phone number
    colours or sizes: size \w+|(?:red|blue|green|black|white|gr[ea]y|brown|pink)(?! fort| mosque)
    dates and times: to(?:night|day|morrow)|(?:next|this|on) (?:week|month|\w+day)|at \d+ ?(?:am|pm)
    dates and times: (?:in|on|until) (?:january|february|march|april|may|june|july|august|september)
    dates and times: (?:in|on|until) (?:october|november|december)|(?:the )?\d\d?(?:st|nd|rd|th)
    the number of people: (?:(?<=table )|(?<=room ))for (?:{_NUMBER})|(?:{_NUMBER}) people
    where you leave from: (?:leaving )?from {known.CITIES.any}
    a second city: (?P<kept>{known.CITIES.any})(?:(?:,| and| &|, and) {known.CITIES.any})+
    """
)
_ELSEWHERE: Final = {"city": "where it is sold", "duration_days": "the length of a stay"}
# But "$50 a day" is a price.
_DAYS: Final = _any_of(
    rf"(?<!\d )({_NUMBER}|{'|'.join(_FEW)})(?:[ -]full)?[ -](day|night|week)s?|(?:long )?weekend"
)
_ALONE: Final = _any_of(f"({_NUMBER})()")
_CURRENCIES: Final = {"dollar": "$", "euro": "€", "pound": "£", "rupee": "₹"}
_PRICE: Final = re.compile(
    r"(?:([$€£₹]) ?|(?:under|below|less than|up to|at most|max|budget(?: is)?) )"
    r"(\d[\d,]*(?:\.\d\d)?)"
    r"(?![\w,.]?\d|\w|[ -]?(?:day|night|week|hour|min|km|mile|people|star|euro|pound|rupee)s?\b)"
    rf"|\b(\d[\d,]*) ?({'|'.join(_CURRENCIES)})s?\b",
    re.IGNORECASE | re.ASCII,
)
_LIKING: Final = _any_of(r"love|like|enjoy|adore|prefer|into|fond of|interested in|interests?")
_INDIFFERENT: Final = _any_of(
    r"(?:don'?t|do not) (?:know|care|mind)|not sure|dunno|any(?:thing|where|one)?|no idea|"
    r"up to you|surprise me|whatever|you (?:choose|pick|decide)|doesn'?t matter|no preferences?"
)
# A place with a capital behind a preposition; and a name that is all of an answer.
_PLACE: Final = re.compile(
    r"\b(?i:in|to|near|around|visit) ([A-Z][\w'-]*(?: (?:de |la |of )?[A-Z][\w'-]*)*)"
)
_NAME: Final = re.compile(
    r"(?:(?:no|to|in|some|maybe),? )*(?!(?:why|what|where|who|how|when|i|it|the|do|not|hm+)\b)"
    r"([^\W\d_][\w'&-]+(?: [^\W\d_][\w'&-]+)?)(?:,? please| for .*)?\W*",
    re.IGNORECASE,
)


def understand(
    text: str, topic: str | None = None, *, planning: bool = False, asked: str | None = None
) -> Found:
    """Return what `text` says, after talk about `topic`, while a trip is being planned or not, and
    in answer to the question for the slot `asked`."""
    text = " ".join(text.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").split())
    if acts := _fitting(_FIRST, text):
        return Found(acts[0], names=list(known.NAMES.find(text)))
    talk = [*_fitting(_SMALL_TALK, text), "unclear" if re.search(r"\w", text) else "wordless"][0]
    beyond = _fitting(_BEYOND, text)
    for pattern in _BEYOND.values():
        text = pattern.sub(lambda match: match.groupdict().get("kept", ""), text)
    indifferent = asked is not None and _INDIFFERENT.search(text) is not None
    named = _topic(text, topic, planning)
    heard, unwanted = _slots(text, named or topic, None if indifferent else asked)
    if not named and "city" in heard and topic in (None, "shopping"):
        topic = "sights"
    topic = named or topic
    if topic == "sights" and "duration_days" in heard:
        topic = "trip"
    slots = {slot: value for slot, value in heard.items() if slot in SLOTS.get(topic or "", ())}
    beyond += [phrase for slot, phrase in _ELSEWHERE.items() if slot in heard and slot not in slots]
    if slots.get("duration_days", 0) > MAX_DAYS:
        slots["duration_days"] = MAX_DAYS
        beyond.append(f"more than {MAX_DAYS} days")
    unanswered = asked is not None and talk == "unclear" and not beyond
    if topic and (named or slots or unwanted or indifferent or unanswered):
        return Found("request", topic, slots, unwanted, indifferent, beyond)
    return Found("beyond" if beyond else talk, beyond=beyond)


def _topic(text: str, topic: str | None, planning: bool) -> str | None:
    """Return the topic that `text` names; None: it may go on with the one at hand."""
    likes = bool(_LIKING.search(text)) and any(known.INTERESTS.find(text).values())
    found = [(m.start(), name) for name, words in _TOPICS.items() if (m := words.search(text))]
    if found and not (planning and likes):
        return min(found)[1]
    return "trip" if likes or (topic is None and _DAYS.search(text)) else None


def _slots(text: str, topic: str | None, asked: str | None) -> tuple[dict[str, Any], set[str]]:
    """Return what `text` has for any slot, as something about that topic, and what it refuses."""
    found = {slot: words.find(text) for slot, words in known.SLOTS.items()}
    found["city"] = known.SLOTS["city"].find(re.sub(r"(?i)^no ", "", text))  # which corrects
    if topic in known.CATEGORIES:
        found["category"] = known.CATEGORIES[topic].find(text)
    unwanted = {name for names in found.values() for name, wanted in names.items() if not wanted}
    heard: dict[str, Any] = {
        slot: wanted if slot == "interests" else wanted[0]
        for slot, names in found.items()
        if (wanted := [name for name in names if name not in unwanted])
    }
    if (place := _PLACE.search(text)) and not text.isupper():
        heard.setdefault("city", place[1])
    if price := _PRICE.search(text):
        symbol, figure, number, word = price.groups(default="")
        heard["price"] = (symbol or _CURRENCIES.get(word.lower(), "$")) + (figure or number)
    heard |= {"budget": heard["price"]} if "price" in heard else {}  # as a trip calls it
    if days := _days(text, asked == "duration_days" or "make it" in text.lower()):
        heard["duration_days"] = days
    name = None if heard.keys() - {"duration_days"} else _NAME.fullmatch(text)
    if asked in ("city", "category") and name and not _fitting(_SMALL_TALK, text):
        heard[asked] = name[1].title() if asked == "city" else name[1].lower()
    return heard, unwanted


def _days(text: str, expected: bool) -> int:
    """Return the number of days in `text`, else 0. If expected, a mere number will do."""
    match = _DAYS.search(text) or (_ALONE.search(text) if expected else None)
    if match is None:
        return 0
    number, unit = (group.lower() for group in match.groups(default=""))
    if not number:
        return 3 if match[0].lower().startswith("long") else 2
    count = int(number) if number.isdigit() else _FEW.get(number) or _COUNT.index(number) + 1
    return count * 7 if unit == "week" else count + (unit == "night")
