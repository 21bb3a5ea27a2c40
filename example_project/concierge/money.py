"""An amount in a currency, as people write it: "$1,200", "80 euros", "under 500"."""

import re
from dataclasses import dataclass
from typing import Final, Self

_WORDS: Final = {
    "$": ("dollar", "dollars", "bucks", "usd"),
    "€": ("euro", "euros", "eur"),
    "£": ("pound", "pounds", "gbp"),
    "₹": ("rupee", "rupees", "inr", "rs"),
}
_SYMBOLS: Final = {word: symbol for symbol, words in _WORDS.items() for word in words}
_NUMBER: Final = r"((?:\d{1,3}(?:,\d{3}){1,3}|\d{1,9})(?:\.\d{1,2})?)(k?)"
# Units of something else, or a currency, which is for another rule.
_UNIT: Final = "|".join(
    [
        *("days?", "nights?", "weeks?", "hours?", "minutes?", "min", "km", "miles?"),
        *("people", "stars?", *_SYMBOLS),
    ]
)
_AMOUNT: Final = re.compile(
    rf"([$€£₹])\s?{_NUMBER}(?!\w)"
    rf"|(?<!\w){_NUMBER}\s?({'|'.join(_SYMBOLS)})(?!\w)"
    # Without a currency, it is the words before it that make a number a price.
    rf"|(?:under|below|less than|up to|at most|max(?:imum)?|budget(?: is| of|:)?) {_NUMBER}"
    rf"(?![\w,.]?\d|[ -]?(?:{_UNIT})\b)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Money:
    """`amount` in units of the currency with this `symbol`, e.g. 79.99 and "$"."""

    amount: float
    symbol: str = "$"

    @classmethod
    def find(cls, text: str) -> Self | None:
        """Return the first amount in `text`; None if there is none."""
        match = _AMOUNT.search(text)
        if match is None:
            return None
        symbol, a, a_k, b, b_k, word, c, c_k = match.groups(default="")
        thousands = 1000 if a_k or b_k or c_k else 1
        amount = float((a or b or c).replace(",", "")) * thousands
        return cls(amount, symbol or _SYMBOLS.get(word.lower(), "$"))

    def share(self, fraction: float) -> "Money":
        """Return that part of it, rounded as prices are: above 10, to whole units."""
        part = self.amount * fraction
        return Money(round(part, 0 if part > 10 else 2), self.symbol)

    def __str__(self) -> str:
        return f"{self.symbol}{self.amount:,.2f}".removesuffix(".00")
