"""The words that the concierge knows, by what they mean. Tables only; add to them at will."""

from typing import Final, Literal

from .lexicon import Lexicon

Domain = Literal["shopping", "hotel", "restaurants", "flights", "location", "general"]


BRANDS: Final = Lexicon(
    {
        "Adidas": "",
        "Apple": "",
        "Asics": "",
        "Canon": "",
        "Dell": "",
        "Gucci": "",
        "H&M": "h and m, hm",
        "IKEA": "",
        "Lego": "",
        "Levi's": "levis, levi",
        "New Balance": "",
        "Nike": "",
        "Patagonia": "",
        "Puma": "",
        "Reebok": "",
        "Samsung": "",
        "Sony": "",
        "The North Face": "north face",
        "Uniqlo": "",
        "Zara": "",
    }
)

# What a request may be about more closely, by domain.
CATEGORIES: Final[dict[str, Lexicon]] = {
    "shopping": Lexicon(
        {
            "running shoes": "running shoe, running trainers, runners",
            "hiking boots": "hiking boot, walking boots",
            "sneakers": "sneaker, trainer",
            "sandals": "sandal, flip-flop",
            "boots": "boot",
            "shoes": "shoe, footwear",
            "dresses": "dress, gown",
            "jeans": "denim",
            "jackets": "jacket, coat, parka, anorak",
            "T-shirts": "t-shirt, tee shirt, tshirt, tee",
            "shirts": "shirt, blouse",
            "sweaters": "sweater, jumper, pullover, hoodie",
            "skirts": "skirt",
            "trousers": "trouser, pants, chinos",
            "bags": "bag, handbag, tote",
            "backpacks": "backpack, rucksack, daypack",
            "watches": "watch, wristwatch",
            "sunglasses": "shades",
            "jewellery": "jewelry, necklace, earring, bracelet",
            "perfume": "fragrance, cologne",
            "headphones": "headphone, earphone, earbud, headset",
            "laptops": "laptop, notebook computer",
            "phones": "phone, smartphone, mobile phone",
            "cameras": "camera",
            "books": "a book, novel",
            "toys": "toy, board game, puzzle",
            "sofas": "sofa, couch",
            "lamps": "lamp",
        }
    ),
    "hotel": Lexicon(
        {
            "boutique": "design hotel, charming",
            "hostel": "dormitory, dorm",
            "resort": "",
            "apartment": "flat, aparthotel",
            "guesthouse": "guest house, b&b, bed and breakfast, homestay",
            "spa": "wellness",
        }
    ),
    "restaurants": Lexicon(
        {
            "Italian": "pizza, pasta, trattoria",
            "Indian": "curry, thali",
            "Japanese": "sushi, ramen, izakaya",
            "Chinese": "dim sum, dumpling",
            "Thai": "pad thai",
            "Vietnamese": "pho",
            "Korean": "",
            "Mexican": "taco, burrito",
            "French": "bistro, brasserie",
            "Spanish": "tapas, paella",
            "Greek": "souvlaki",
            "Turkish": "kebab",
            "American": "burger, diner",
            "vegetarian": "veggie",
            "vegan": "",
            "seafood": "fish, oyster",
            "steak": "steakhouse, grill",
            "café": "cafe, coffee, coffee shop",
        }
    ),
    "flights": Lexicon(
        {
            "premium economy": "",
            "economy": "coach",
            "business": "business class",
            "first class": "",
            "direct": "nonstop, non-stop",
        }
    ),
}

GENDERS: Final = Lexicon(
    {
        "women": "woman, lady, ladies, female, wife, girlfriend, mother, mum, mom, sister, her",
        "men": "man, gentleman, gentlemen, male, husband, boyfriend, father, dad, brother, him",
        "kids": "kid, child, children, boy, girl, son, daughter, toddler",
        "unisex": "gender-neutral",
    }
)

INTERESTS: Final = Lexicon(
    {
        "food": "foodie, eating, cuisine, cooking, street food, culinary",
        "forts": "fort, fortress, castle",
        "palaces": "palace",
        "temples": "temple, shrine, church, churches, cathedral, mosque",
        "art": "gallery, galleries, painting",
        "museums": "museum",
        "history": "historic, historical, monument, ruins, ancient",
        "architecture": "building",
        "nature": "park, garden, lake, outdoors, wildlife",
        "beaches": "beach, swimming",
        "hiking": "hike, trekking, trek",
        "markets": "market, bazaar, shopping",
        "nightlife": "bar, club, clubbing, party",
        "music": "concert, jazz, opera",
        "views": "view, viewpoint, skyline, sunset",
    }
)

PACES: Final = Lexicon(
    {
        "relaxed": "relaxing, slow, slower, easy, easygoing, leisurely, laid-back, calm, lazy",
        "moderate": "balanced, normal, medium, average",
        "packed": "busy, busier, full, fast, faster, intense, action-packed, see everything",
    }
)

PRICES: Final = Lexicon(
    {
        "budget": "cheap, cheaper, inexpensive, affordable, low-cost, low cost, on a budget",
        "mid-range": "mid range, midrange, reasonable, not too expensive",
        "luxury": "luxurious, fancy, high-end, upscale, five-star, 5-star",
    }
)

# Understood, but there is no slot for them; it is only fair to say so.
COLOURS: Final = Lexicon(
    dict.fromkeys(
        (
            *("red", "blue", "green", "black", "white", "grey", "gray", "brown", "yellow"),
            *("orange", "pink", "purple", "beige", "navy"),
        ),
        "",
    )
)

KNOWN_WORDS: Final = (
    *(BRANDS, GENDERS, INTERESTS, PACES, PRICES, COLOURS),
    *CATEGORIES.values(),
)
