"""Made-up offers: they fit what was asked for, and nobody can take them for real ones."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from .money import Money
from .vocabulary import Domain


@dataclass(frozen=True, slots=True)
class Offer:
    """`price` is for one `unit`: "a night", "a head", or "" for the thing itself."""

    name: str
    price: Money
    unit: str

    def __str__(self) -> str:
        return f"{self.name}, {self.price} {self.unit}".rstrip()


@dataclass(frozen=True, slots=True)
class _Range:
    """Three names to fill in, and what the middle one costs in dollars."""

    names: tuple[str, str, str]
    price: int
    unit: str


_RANGES: Final[dict[Domain, _Range]] = {
    "hotel": _Range(("Demo House", "Demo Garden", "Demo Palace"), 110, "a night"),
    "restaurants": _Range(("Demo Kitchen", "Demo Table", "Demo Terrace"), 30, "a head"),
    "flights": _Range(("Demo Air 17", "Demo Air 204", "Demo Air 8"), 320, "one way"),
    "shopping": _Range(("Demo One", "Demo Two", "Demo Three"), 60, ""),
}
# Some goods cost more than most, in dollars.
_GOODS: Final = {
    "laptops": 900,
    "sofas": 700,
    "cameras": 600,
    "phones": 500,
    "watches": 150,
    "toys": 25,
    "T-shirts": 20,
    "books": 15,
}
_LEVELS: Final = {"budget": 0.5, "mid-range": 1.0, "luxury": 3.0}
_SPREAD: Final = (0.7, 1.0, 1.4)
_UP_TO: Final = (0.6, 0.75, 0.95)


def offers(domain: Domain, state: Mapping[str, Any]) -> list[Offer]:
    """Return three offers for what `state` asks for, cheapest first and none above its price."""
    kind = _RANGES[domain]
    return [
        Offer(name, price, kind.unit)
        for name, price in zip(kind.names, _prices(kind, state), strict=True)
    ]


def _prices(kind: _Range, state: Mapping[str, Any]) -> list[Money]:
    asked = state.get("price", "mid-range")
    if limit := Money.find(asked):
        return [limit.share(part) for part in _UP_TO]
    usual = Money(_GOODS.get(state.get("category", ""), kind.price) * _LEVELS[asked])
    return [usual.share(part) for part in _SPREAD]
