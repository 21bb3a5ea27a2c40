"""A length of time in days, as people write it: "4 days", "a long weekend", "two weeks"."""

import re
from typing import Final

MAX_DAYS: Final = 14  # the longest trip that the concierge plans

_COUNT: Final = (
    *("one", "two", "three", "four", "five", "six", "seven"),
    *("eight", "nine", "ten", "eleven", "twelve", "thirteen", "fourteen"),
)
_NUMBERS: Final = {
    **dict(zip(_COUNT, range(1, 15), strict=True)),
    "a couple of": 2,
    "couple of": 2,
    "a few": 3,
    "few": 3,
    "an": 1,
    "a": 1,
}
_NUMBER: Final = rf"\d{{1,3}}|{'|'.join(_NUMBERS)}"
_UNITS: Final = {"day": 1, "week": 7}

_FLAGS: Final = re.IGNORECASE | re.ASCII

# The lookbehind is for "$50 a day", which is a price.
_COUNTED: Final = re.compile(
    rf"(?<!\d )(?<![\w$€£₹])({_NUMBER})(?:[ -]full)?[ -](day|night|week)s?(?!\w)", _FLAGS
)
_WEEKEND: Final = re.compile(r"\b(long )?weekend\b", _FLAGS)
_ALONE: Final = re.compile(rf"(?<![\w$€£₹])({_NUMBER})(?!\w)", _FLAGS)


def find_days(text: str, *, asked: bool = False) -> int | None:
    """Return the number of days in `text`; None if it has none. So many nights are a day more.

    Args:
        text: a sentence.
        asked: it answers the question for how long, so that a number will do.
    """
    if match := _COUNTED.search(text):
        number, unit = _number(match[1]), match[2].lower()
        days = number + 1 if unit == "night" else number * _UNITS[unit]
    elif match := _WEEKEND.search(text):
        days = 3 if match[1] else 2
    elif asked and (match := _ALONE.search(text)):
        days = _number(match[1])
    else:
        return None
    return days or None


def _number(word: str) -> int:
    return int(word) if word.isdigit() else _NUMBERS[word.lower()]
