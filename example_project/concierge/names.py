"""Names that a sentence has for a place, and names that stand alone in one."""

import re
from typing import Final

from .gazetteer import CITIES, city_of_landmark
from .vocabulary import KNOWN_WORDS

# "to Bhuj", "near the Gateway of India": words with a capital behind a preposition.
_NAMED: Final = re.compile(
    r"\b(?:[Ii]n|[Tt]o|[Nn]ear|[Aa]round|[Aa]t|[Vv]isit|[Vv]isiting|[Aa]bout) "
    r"((?:[Tt]he )?[A-Z][\w'.-]*(?: (?:(?:de|la|of|the|du|do) )*[A-Z][\w'.-]*)*)"
)
# "near the louvre": in any case, if we know it.
_NEAR: Final = re.compile(
    r"\b(?:near|nearby|nearest|around|close|next|in|to|at|about)(?: to)? "
    r"((?:the )?[\w'-]+(?: [\w'-]+){0,2})",
    re.IGNORECASE,
)
_TIMES: Final = """
    january february march april may june july august september october november december
    monday tuesday wednesday thursday friday saturday sunday christmas easter
    spring summer autumn winter
"""

_LEAD_IN: Final = re.compile(
    r"(?:no+|nope|actually|sorry|wait|well|hmm+|i mean(?:t)?|make (?:it|that)|change (?:it|that)|"
    r"let's (?:do|go|say|make it|try)|rather|how about|what about)(?=[\s,.!?]|$)[\s,.!?]*",
    re.IGNORECASE,
)
_FILLER: Final = re.compile(
    r"(?:i'?d like|i want|we want|i like|we like|maybe|perhaps|to|in|for|with|some|please)\s+",
    re.IGNORECASE,
)
_CLAUSE_END: Final = re.compile(r"[,;.!?]| (?:for|with|please|instead|then|and|but|under)\b", re.I)
# A sentence with one of these says something else than a name.
_NO_NAMES: Final = """
    a about am an any are as at be but by can could day days did do does don't dunno easy fine for
    from get go good great he hello help hey hi his how i i'm if is it it's just know like look
    many maybe me mean more much my nah need never nice no none not nothing of oh ok okay on one
    or our please she so some something sorry sure tell than thank thanks that that's the their
    them then there these they this to too uh um umm us want was we well what when where which who
    what's why will with would yeah yep yes you your
"""
_NOT_A_PLACE: Final = frozenset((_TIMES + _NO_NAMES).split()) - {"the"}
_NOT_A_NAME: Final = frozenset(_NO_NAMES.split())


def place(text: str) -> str | None:
    """Return the place that `text` is about: a city by its name, any other as it is written."""
    return _known_city(text) or _named_place(text)


def alone(text: str, *, asked: bool) -> str | None:
    """Return the name that `text` consists of but for phrases such as "no, make it ...".

    Args:
        text: a sentence.
        asked: it answers a question, so that a name is to be expected. Otherwise only one that
            corrects something counts, and has to begin with a capital.
    """
    rest, corrects = text, False
    while match := _LEAD_IN.match(rest):
        rest, corrects = rest[match.end() :], True
    while match := _FILLER.match(rest):
        rest = rest[match.end() :]
    name = _CLAUSE_END.split(rest, maxsplit=1)[0].strip(" '\"")
    if not (asked or (corrects and name[:1].isupper())) or not _may_be_name(name):
        return None
    return name


def _known_city(text: str) -> str | None:
    """Return the city that `text` wants: the one "to" which, or else the first."""
    hits = [
        hit
        for hit in CITIES.find(text)
        if not hit.refused and not text[: hit.start].lower().endswith("from ")
    ]
    to = [hit.meaning for hit in hits if text[: hit.start].lower().endswith("to ")]
    return next(iter(to or [hit.meaning for hit in hits]), None)


def _named_place(text: str) -> str | None:
    for match in _NEAR.finditer(text):
        words = match[1].split()
        for length in range(len(words), 0, -1):
            if city := city_of_landmark(" ".join(words[:length])):
                return city
    if text.isupper():
        return None
    return next(
        (match[1].strip(" .") for match in _NAMED.finditer(text) if _may_be_place(match[1])), None
    )


def _may_be_place(name: str) -> bool:
    words = name.lower().split()
    return words[0] not in _NOT_A_PLACE and not _is_known(name)


def _may_be_name(name: str) -> bool:
    words = name.lower().split()
    return (
        0 < len(words) <= 4
        and all(re.fullmatch(r"[^\W\d_][\w'.&-]*", word) for word in words)
        and not _NOT_A_NAME.intersection(words)
        and not _is_known(name)
    )


def _is_known(name: str) -> bool:
    """Tell whether the vocabulary has another meaning for it."""
    return any(lexicon.position(name) is not None for lexicon in KNOWN_WORDS)
