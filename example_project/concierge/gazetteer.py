"""The places that the concierge knows: some by name only, some with what there is to see."""

import re
from dataclasses import dataclass
from typing import Final

from .lexicon import Lexicon


@dataclass(frozen=True, slots=True)
class Sight:
    """Something to see or do. In `name`, proper names and nothing else have capitals; `tags` are
    interests, as the vocabulary names them."""

    name: str
    tags: frozenset[str]


def _sights(*lines: str) -> tuple[Sight, ...]:
    """Read "name: tag tag" lines."""
    split = (line.split(": ") for line in lines)
    return tuple(Sight(name, frozenset(tags.split())) for name, tags in split)


SIGHTS: Final[dict[str, tuple[Sight, ...]]] = {
    "Jaipur": _sights(
        "Amber Fort: forts history architecture views",
        "Hawa Mahal: palaces architecture history",
        "a street-food round in Johari Bazaar: food markets",
        "City Palace: palaces museums history",
        "Nahargarh Fort at sunset: forts views",
        "Jantar Mantar observatory: history architecture",
        "a Rajasthani thali in the old town: food",
        "Jaigarh Fort: forts history hiking",
        "Albert Hall Museum: museums art",
        "Galta Ji temple: temples nature hiking",
        "Bapu Bazaar: markets",
        "Jal Mahal by the lake: palaces nature views",
    ),
    "Udaipur": _sights(
        "City Palace: palaces museums history",
        "a boat on Lake Pichola: nature views",
        "Jagdish Temple: temples architecture",
        "Sajjangarh, the Monsoon Palace: palaces forts views hiking",
        "a Mewari cooking class: food",
        "Bagore Ki Haveli and its evening dances: music architecture",
        "Saheliyon Ki Bari gardens: nature",
        "Hathi Pol Bazaar: markets art",
        "street food at Sukhadia Circle: food nightlife",
        "Fateh Sagar Lake: nature views",
    ),
    "Paris": _sights(
        "the Louvre: art museums",
        "Notre-Dame and the Île de la Cité: temples architecture history",
        "the Eiffel Tower: views architecture",
        "Musée d'Orsay: art museums",
        "a bakery and cheese walk in the Marais: food markets",
        "Montmartre and Sacré-Cœur: views temples",
        "Jardin du Luxembourg: nature",
        "Marché d'Aligre: markets food",
        "Sainte-Chapelle: temples architecture music",
        "jazz in a cellar of the Latin Quarter: music nightlife",
        "Château de Vincennes: forts palaces history",
    ),
    "Tokyo": _sights(
        "Sensō-ji in Asakusa: temples history",
        "breakfast at Tsukiji Outer Market: food markets",
        "Meiji Shrine and its forest: temples nature",
        "Shibuya Crossing: views nightlife",
        "Tokyo National Museum: museums art history",
        "an izakaya lane in Shinjuku: food nightlife",
        "the East Gardens of the Imperial Palace: palaces nature history",
        "Yanaka, the old quarter: architecture history",
        "Mount Takao: hiking nature views",
        "Harajuku and Omotesandō: architecture markets",
    ),
    "London": _sights(
        "the Tower of London: forts history",
        "the British Museum: museums history",
        "Borough Market: food markets",
        "Tate Modern: art museums",
        "Westminster Abbey: temples history architecture",
        "Greenwich by boat: views history nature",
        "Hampton Court Palace: palaces history",
        "Hampstead Heath: nature hiking views",
        "a West End evening: music nightlife",
        "curry in Brick Lane: food",
    ),
    "Rome": _sights(
        "the Colosseum and the Forum: history architecture",
        "the Vatican Museums: museums art",
        "supper in Trastevere: food nightlife",
        "the Pantheon: temples architecture history",
        "Castel Sant'Angelo: forts history views",
        "Galleria Borghese and its park: art nature",
        "Campo de' Fiori market: markets food",
        "the Aventine and its keyhole: views nature",
        "the Appian Way by bicycle: history nature hiking",
    ),
    "Lisbon": _sights(
        "São Jorge Castle: forts history views",
        "Belém Tower and Jerónimos Monastery: history architecture temples",
        "pastéis de nata and the Time Out Market: food markets",
        "fado in Alfama: music nightlife",
        "the Gulbenkian Museum: museums art",
        "the National Tile Museum: museums architecture",
        "Miradouro da Senhora do Monte: views",
        "the beach at Cascais: beaches nature",
        "the palaces of Sintra: palaces hiking nature",
    ),
    "New York": _sights(
        "the Metropolitan Museum: museums art",
        "Central Park: nature",
        "the High Line and Chelsea Market: architecture food markets views",
        "the Brooklyn Bridge on foot: views architecture hiking",
        "MoMA: art museums",
        "dumplings in Chinatown: food",
        "Ellis Island: history museums",
        "jazz in Greenwich Village: music nightlife",
        "Coney Island: beaches food",
    ),
    "San Jose": _sights(
        "the Tech Interactive: museums",
        "the Winchester Mystery House: architecture history",
        "San Pedro Square Market: food markets nightlife",
        "the Municipal Rose Garden: nature",
        "the San José Museum of Art: art museums",
        "Alum Rock Park: hiking nature views",
        "Japantown: food history",
    ),
}

# Known by name; what else a city is called stands behind it.
CITIES: Final = Lexicon(
    dict.fromkeys(SIGHTS, "")
    | dict.fromkeys(
        (
            *("Agra", "Amsterdam", "Athens", "Austin", "Bangkok", "Barcelona", "Beijing", "Berlin"),
            *("Boston", "Brussels", "Budapest", "Buenos Aires", "Cairo", "Cape Town", "Chicago"),
            *("Copenhagen", "Dubai", "Dublin", "Edinburgh", "Florence", "Geneva", "Goa", "Hamburg"),
            *("Hanoi", "Helsinki", "Hong Kong", "Istanbul", "Jodhpur", "Kyoto", "Lima", "Madrid"),
            *("Los Angeles", "Melbourne", "Mexico City", "Miami", "Milan", "Montreal", "Munich"),
            *("Naples", "Osaka", "Oslo", "Porto", "Prague", "San Diego", "San Francisco"),
            *("Seattle", "Seoul", "Seville", "Shanghai", "Singapore", "Stockholm", "Sydney"),
            *("The Hague", "Toronto", "Vancouver", "Varanasi", "Venice", "Vienna", "Warsaw"),
            *("Washington", "Zurich"),
        ),
        "",
    )
    | {
        "Delhi": "new delhi",
        "Marrakesh": "marrakech",
        "Mumbai": "bombay",
        "New York": "nyc, new york city",
        "Rio de Janeiro": "rio",
        "San Jose": "san josé",
    },
    no_refuses=False,
)


# A name within a sight's: words with a capital, "Tower of London" among them.
_LANDMARK: Final = re.compile(
    r"[^\W\d_a-z][\w'-]+(?: (?:(?:of|de|do|da|du|dos) )?[^\W\d_a-z][\w'-]+)*"
)
_CITY_OF: Final = {
    landmark.lower(): city
    for city, sights in SIGHTS.items()
    for sight in sights
    for landmark in _LANDMARK.findall(sight.name)
}


def city_of_landmark(name: str) -> str | None:
    """Return the city that e.g. "the louvre" is in; None if it is in no table."""
    return _CITY_OF.get(name.lower().removeprefix("the "))
