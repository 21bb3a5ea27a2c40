"""What the example's concierge understands of a text."""

import pytest

from example_project.concierge.days import MAX_DAYS, find_days
from example_project.concierge.money import Money
from example_project.concierge.topics import Context, Topic
from example_project.concierge.understanding import Act, understand

NOTHING_YET = Context()

TRIP = Context(domain="location", planning=True)

SHOPPING = Context(domain="shopping")

HOTEL = Context(domain="hotel")


class TestUnderstanding:
    @pytest.mark.parametrize(
        ("text", "topic", "slots"),
        [
            (
                "I want a 4 day trip to Jaipur, relaxed, we love food and forts, under $500",
                Topic("location", is_trip=True),
                {
                    "city": "Jaipur",
                    "duration_days": 4,
                    "pace": "relaxed",
                    "interests": ["food", "forts"],
                    "price": "$500",
                },
            ),
            (
                "show me red Nike running shoes for women under $80",
                Topic("shopping"),
                {
                    "brand": "Nike",
                    "category": "running shoes",
                    "gender": "women",
                    "price": "$80",
                },
            ),
            ("a hotel in Paris", Topic("hotel"), {"city": "Paris"}),
            ("A CHEAP HOTEL IN ROME", Topic("hotel"), {"city": "Rome", "price": "budget"}),
            (
                "find Italian restaurants in San Jose",
                Topic("restaurants"),
                {"city": "San Jose", "category": "Italian"},
            ),
            ("sushi in tokyo", Topic("restaurants"), {"city": "Tokyo", "category": "Japanese"}),
            ("flights to Tokyo", Topic("flights"), {"city": "Tokyo"}),
            ("fly from London to Tokyo", Topic("flights"), {"city": "Tokyo"}),
            ("where am I?", Topic("location"), {}),
            ("What is near the Eiffel Tower?", Topic("location"), {"city": "Paris"}),
            ("what's near the louvre", Topic("location"), {"city": "Paris"}),
            ("sights in Bhuj", Topic("location"), {"city": "Bhuj"}),
            ("Jaipur", Topic("location"), {"city": "Jaipur"}),
            (
                "a long weekend in Lisbon",
                Topic("location", is_trip=True),
                {"city": "Lisbon", "duration_days": 3},
            ),
            (
                "a trip to Agra in May with good hotels",
                Topic("location", is_trip=True),
                {"city": "Agra"},
            ),
            ("a hotel for my trip to Paris", Topic("hotel"), {"city": "Paris"}),
            (
                "I don\N{RIGHT SINGLE QUOTATION MARK}t want Nike jeans",
                Topic("shopping"),
                {"category": "jeans"},
            ),
        ],
    )
    def test_a_request(self, text, topic, slots):
        found = understand(text, NOTHING_YET)
        assert found.act is Act.REQUEST
        assert found.topic == topic
        assert found.slots == slots

    @pytest.mark.parametrize(
        ("text", "context", "slots"),
        [
            ("make it 3 days", TRIP, {"duration_days": 3}),
            ("no, make it two", TRIP, {"duration_days": 2}),
            ("too many days, 5 is enough", TRIP, {"duration_days": 5}),
            ("no, Udaipur", TRIP, {"city": "Udaipur"}),
            ("no udaipur", TRIP, {"city": "Udaipur"}),
            ("no, Bhuj", TRIP, {"city": "Bhuj"}),
            ("Udaipur instead of Jaipur", TRIP, {"city": "Udaipur"}),
            ("change Jaipur to Udaipur", TRIP, {"city": "Udaipur"}),
            ("a bit slower", TRIP, {"pace": "relaxed"}),
            ("no, Adidas", SHOPPING, {"brand": "Adidas"}),
            ("no, Hoka", SHOPPING, {"brand": "Hoka"}),
            ("for men", SHOPPING, {"gender": "men"}),
            ("at most 1,200 euros", SHOPPING, {"price": "€1,200"}),
            ("a boutique one", HOTEL, {"category": "boutique"}),
        ],
    )
    def test_a_change_of_mind_goes_on_with_what_is_at_hand(self, text, context, slots):
        found = understand(text, context)
        assert found.topic == context.topic
        assert found.slots == slots

    @pytest.mark.parametrize(
        ("text", "asked", "slots"),
        [
            ("bhuj", "city", {"city": "Bhuj"}),
            ("to Bhuj, please", "city", {"city": "Bhuj"}),
            ("Bhuj for 4 days", "city", {"city": "Bhuj", "duration_days": 4}),
            ("why?", "city", {}),
            ("I do not know", "city", {}),
            ("hmm?", "city", {}),
            ("Cheap!", "city", {"price": "budget"}),
            ("umbrellas", "category", {"category": "umbrellas"}),
            ("4", "duration_days", {"duration_days": 4}),
            ("four or five", "duration_days", {"duration_days": 4}),
        ],
    )
    def test_an_answer_to_a_question(self, text, asked, slots):
        assert understand(text, Context(domain="location", asked=asked)).slots == slots

    @pytest.mark.parametrize(
        ("text", "act"),
        [
            ("hi", Act.GREETING),
            ("Thanks a lot!", Act.THANKS),
            ("no thanks", Act.THANKS),
            ("bye", Act.FAREWELL),
            ("what can you do?", Act.HELP),
            ("ok", Act.AGREEMENT),
            ("no", Act.REFUSAL),
            ("what is the weather like", Act.UNCLEAR),
            ("in the morning", Act.UNCLEAR),
        ],
    )
    @pytest.mark.parametrize("context", [NOTHING_YET, TRIP, SHOPPING])
    def test_small_talk(self, text, act, context):
        found = understand(text, context)
        assert found.act is act
        assert found.topic is None

    def test_thanks_do_not_hide_a_request(self):
        assert understand("thanks, but make it 5 days", TRIP).slots == {"duration_days": 5}

    @pytest.mark.parametrize("text", ["f\u0131ve days", "5 n\u0130ghts", "\u017fhoes", "K\u0130DS"])
    def test_letters_that_only_look_alike_do_no_harm(self, text):
        assert understand(text, SHOPPING).slots == {}

    def test_what_somebody_loves_is_about_the_trip_that_is_planned(self):
        found = understand("we love shopping", Context(domain="hotel", planning=True))
        assert found.topic == Topic("location", is_trip=True)
        assert found.slots == {"interests": ["markets"]}

    def test_what_is_not_wanted(self):
        assert understand("not Nike", SHOPPING).unwanted == {"Nike"}
        assert understand("any brand", SHOPPING).unwanted == {"brand"}
        assert understand("no museums", TRIP).unwanted == {"museums"}

    @pytest.mark.parametrize(
        ("text", "unsupported"),
        [
            ("red shoes, size 42", ("colours", "sizes")),
            (
                "flights from London to Tokyo on Friday",
                ("where you leave from", "dates and times"),
            ),
            ("a table for two in Paris", ("the number of people",)),
            ("30 days in Agra and Delhi", ("a second city", f"more than {MAX_DAYS} days")),
            ("a hotel in Paris for 3 nights", ("the length of a stay",)),
            ("Udaipur instead of Jaipur", ()),
        ],
    )
    def test_what_has_no_slot_is_noticed(self, text, unsupported):
        assert understand(text, NOTHING_YET).unsupported == unsupported


class TestDays:
    @pytest.mark.parametrize(
        ("text", "days"),
        [
            ("4 days", 4),
            ("a 4-day trip", 4),
            ("four full days", 4),
            ("a week", 7),
            ("two weeks", 14),
            ("3 nights", 4),
            ("a weekend", 2),
            ("a long weekend", 3),
            ("a weekend, say 4 days", 4),
            ("a couple of days", 2),
            ("$50 a day", None),
            ("0 days", None),
            ("4", None),
            ("in the days of old", None),
        ],
    )
    def test_are_found(self, text, days):
        assert find_days(text) == days


class TestMoney:
    @pytest.mark.parametrize(
        ("text", "money"),
        [
            ("under $80", "$80"),
            ("$1,200", "$1,200"),
            ("$79.99", "$79.99"),
            ("2k dollars", "$2,000"),
            ("80 euros", "€80"),
            ("£ 15", "£15"),
            ("5000 rupees", "₹5,000"),
            ("under 500", "$500"),
            ("my budget is 300", "$300"),
            ("under 5 days", "None"),
            ("4 days", "None"),
            ("under 5 stars", "None"),
        ],
    )
    def test_is_found(self, text, money):
        assert str(Money.find(text)) == money

    def test_survives_being_written_down(self):
        for text in ("$80", "€1,200", "£79.50"):
            assert str(Money.find(text)) == text
