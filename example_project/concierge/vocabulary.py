"""The words that the concierge knows, by what they mean. Tables only; add to them at will."""

import re
from typing import Final

_REFUSING: Final = re.compile(
    r"\b(?:no|not|less|without|except|skip|drop|remove|forget|change|hate|don't (?:like|want)|"
    r"instead of|rather than)\s+(?:(?:a|an|the|any|about|for|into|more|my)\s+)*$",
    re.IGNORECASE,
)


def table(text: str) -> dict[str, list[str]]:
    """Read lines of "name: entry". A name may have several entries."""
    rows: dict[str, list[str]] = {}
    for line in text.strip().splitlines():
        name, entry = line.strip().split(": ", 1)
        rows.setdefault(name, []).append(entry)
    return rows


class Words:
    """A table "meaning = word, word; meaning". A meaning is a word, and so are plurals; case does
    not matter, and the longest word counts."""

    def __init__(self, text: str) -> None:
        rows = [row.split("=") for row in " ".join(text.split()).split(";")]
        self._meanings = {
            word.strip().lower() + ending: meaning.strip()
            for meaning, *words in rows
            for word in [meaning, *",".join(words).split(",")]
            for ending in ("", "s", "es")
            if word.strip()
        }
        longest_first = sorted(self._meanings, key=len, reverse=True)
        self.any = rf"(?<![\w'-])(?:{'|'.join(map(re.escape, longest_first))})(?![\w-])"

    def find(self, text: str) -> dict[str, bool]:
        """Return the meanings in `text`; False for what is not wanted ("no ...", "instead of")."""
        found: dict[str, bool] = {}
        for match in re.finditer(self.any, text, re.IGNORECASE):
            # None for letters such as the dotless i, which only the pattern takes for an i.
            if meaning := self._meanings.get(match[0].lower()):
                refused = _REFUSING.search(text, endpos=match.start()) is not None
                found[meaning] = found.get(meaning, False) or not refused
        return found


# What a request may be about more closely, by domain.
CATEGORIES: Final = {
    "shopping": Words(
        """running shoes = running shoe; hiking boots = hiking boot; boots = boot; shoes = shoe;
        jeans; sneakers = sneaker; dresses = dress; jackets = jacket, coat; shirts = shirt, T-shirt;
        sweaters = sweater, hoodie; bags = bag; backpacks = backpack; watches = watch; toys = toy;
        headphones = headphone; laptops = laptop; phones = phone; cameras = camera; a book"""
    ),
    "hotel": Words("boutique; hostel; resort; apartment; guesthouse = guest house, b&b; spa"),
    "restaurants": Words(
        """Italian = pizza, pasta; Indian = curry; Japanese = sushi, ramen; Chinese; Thai; French;
        Mexican = taco; Spanish = tapas; vegan; vegetarian; seafood = fish; café = cafe, coffee"""
    ),
    "flights": Words("premium economy; economy; business; first class; direct = nonstop, non-stop"),
}
BRANDS: Final = Words(
    "Adidas; Apple; Canon; Dell; H&M; Lego; Levi's = levis; Nike; Puma; Samsung; Sony; Uniqlo; Zara"
)
INTERESTS: Final = Words(
    """food = eating, cooking; forts = fort, castle; palaces = palace; temples = temple; nightlife;
    art = gallery, galleries; museums = museum; history = historic; architecture; views = view;
    nature = park, lake; beaches = beach; hiking = hike; markets = market, shopping; music = jazz"""
)
# What one may ask to recall or to forget, by slot.
NAMES: Final = Words(
    """budget = price, spend; city = destination, where; pace; brand; gender; itinerary = plan,
    trip; duration_days = how long, days; interests = interest; category = cuisine, looking for"""
)
# What there is to see, and which interests it serves. Proper names alone have capitals.
_SIGHTS: Final = table(
    """
    Jaipur: Amber Fort (forts history views); a street-food round in Johari Bazaar (food markets)
    Jaipur: Hawa Mahal (palaces architecture); Albert Hall (museums art); Galta Ji (temples hiking)
    Udaipur: City Palace (palaces museums); a boat on Lake Pichola (nature); folk dances (music)
    Paris: the Louvre (art museums); the Eiffel Tower (views architecture); Notre-Dame (temples)
    Paris: a bakery walk in the Marais (food markets); jazz in the Latin Quarter (music nightlife)
    Tokyo: Tsukiji Market (food markets); Meiji Shrine (temples nature); Mount Takao (hiking views)
    anywhere: the old town on foot (history architecture); lunch at the market (food markets)
    anywhere: the largest museum (museums art); the best viewpoint at sunset (views)
    anywhere: the largest park (nature); the oldest temple (temples); a long walk (hiking beaches)
    """
)
_SIGHT: Final = re.compile(r"(\w[^;()]+) \((.+?)\)")
Sight = tuple[str, set[str]]
SIGHTS: Final[dict[str, list[Sight]]] = {
    city: [(name, set(tags.split())) for name, tags in _SIGHT.findall(str(row))]
    for city, row in _SIGHTS.items()
}
ANYWHERE: Final = SIGHTS.pop("anywhere")
_NAME: Final = re.compile(r"[A-Z][\w-]+(?: [A-Z][\w-]+)*")
_LANDMARKS: Final = (f"{city} = {','.join(_NAME.findall(str(of)))}" for city, of in SIGHTS.items())
CITIES: Final = Words(
    f"""{";".join(_LANDMARKS)}; Agra; Amsterdam; Athens; Bangkok; Barcelona; Berlin; Boston; Cairo;
    Chicago; Delhi; Dubai; Dublin; Goa; Hong Kong; Istanbul; Kyoto; Las Vegas; Lisbon; London;
    Los Angeles; Mumbai; New York = nyc; Rome; San Francisco; San Jose; Seattle; Sydney; Vienna"""
)
SLOTS: Final = {
    "city": CITIES,
    "brand": BRANDS,
    "interests": INTERESTS,
    "gender": Words(
        """women = woman, lady, ladies, wife, girlfriend, mother, mum, mom, sister, her; men = man,
        him, husband, boyfriend, father, dad, brother; kids = kid, child, children, boy, girl"""
    ),
    "pace": Words("relaxed = slow, slower, easy, calm; packed = busy, busier, full, faster"),
    "price": Words("cheap = cheaper, affordable; luxury = luxurious, fancy, five-star"),
}
