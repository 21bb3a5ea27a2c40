"""What the example's concierge understands of a text."""

import pytest

from example_project.concierge.understanding import MAX_DAYS, understand


class TestRequests:
    @pytest.mark.parametrize(
        ("text", "topic", "slots"),
        [
            (
                "I want a 4 day trip to Jaipur, relaxed, we love food and forts, under $500",
                "trip",
                {
                    "city": "Jaipur",
                    "duration_days": 4,
                    "pace": "relaxed",
                    "interests": ["food", "forts"],
                    "budget": "$500",
                },
            ),
            (
                "show me Nike running shoes for women under $80",
                "shopping",
                {
                    "brand": "Nike",
                    "category": "running shoes",
                    "gender": "women",
                    "price": "$80",
                },
            ),
            ("A CHEAP HOTEL IN ROME", "hotel", {"city": "Rome", "price": "cheap"}),
            (
                "Italian restaurants in San Jose",
                "restaurants",
                {"city": "San Jose", "category": "Italian"},
            ),
            ("fly from London to Tokyo", "flights", {"city": "Tokyo"}),
            ("What is near the Louvre?", "sights", {"city": "Paris"}),
            ("sights in Bhuj", "sights", {"city": "Bhuj"}),
            ("a long weekend in Lisbon", "trip", {"city": "Lisbon", "duration_days": 3}),
            ("a trip to Agra in May with good hotels", "trip", {"city": "Agra"}),
            ("a hotel for my trip to Paris", "hotel", {"city": "Paris"}),
            (
                "don\N{RIGHT SINGLE QUOTATION MARK}t want Nike jeans",
                "shopping",
                {"category": "jeans"},
            ),
        ],
    )
    def test_a_request_is_understood(self, text, topic, slots):
        found = understand(text)
        assert (found.act, found.topic, found.slots) == ("request", topic, slots)

    @pytest.mark.parametrize(
        ("text", "topic", "slots"),
        [
            ("make it 3 days", "trip", {"duration_days": 3}),
            ("no, make it two", "trip", {"duration_days": 2}),
            ("no, Udaipur", "trip", {"city": "Udaipur"}),
            ("change Jaipur to Udaipur", "trip", {"city": "Udaipur"}),
            ("no, Adidas", "shopping", {"brand": "Adidas"}),
            ("80 euros", "shopping", {"price": "€80"}),
            ("a boutique one", "hotel", {"category": "boutique"}),
            ("thanks, but under $90", "hotel", {"price": "$90"}),
        ],
    )
    def test_a_change_of_mind_keeps_the_topic(self, text, topic, slots):
        found = understand(text, topic, planning=topic == "trip")
        assert (found.topic, found.slots) == (topic, slots)

    @pytest.mark.parametrize(
        ("text", "asked", "slots"),
        [
            ("bhuj", "city", {"city": "Bhuj"}),
            ("to Bhuj, please", "city", {"city": "Bhuj"}),
            ("Bhuj for 4 days", "city", {"city": "Bhuj", "duration_days": 4}),
            ("why?", "city", {}),
            ("hmm?", "city", {}),
            ("surprise me", "city", {}),
            ("4", "duration_days", {"duration_days": 4}),
            ("a week", "duration_days", {"duration_days": 7}),
            ("3 nights", "duration_days", {"duration_days": 4}),
        ],
    )
    def test_an_answer_fills_the_slot_that_was_asked_for(self, text, asked, slots):
        assert understand(text, "trip", planning=True, asked=asked).slots == slots

    @pytest.mark.parametrize("text", ["f\u0131ve days", "5 n\u0130ghts", "\u017fhoes", "K\u0130DS"])
    def test_lookalike_letters_do_no_harm(self, text):
        assert understand(text, "shopping").slots == {}

    @pytest.mark.parametrize(
        ("text", "topic", "unwanted"),
        [("not Nike", "shopping", "Nike"), ("no museums", "trip", "museums")],
    )
    def test_what_is_refused_is_unwanted(self, text, topic, unwanted):
        assert understand(text, topic).unwanted == {unwanted}


class TestTheRest:
    @pytest.mark.parametrize(
        ("text", "act"),
        [
            ("hi", "greeting"),
            ("Thanks a lot!", "thanks"),
            ("bye", "farewell"),
            ("what can you do?", "help"),
            ("ok", "agreement"),
            ("no", "refusal"),
            ("you are stupid", "offended"),
            ("quantum physics", "unclear"),
            ("???", "wordless"),
            ("\N{THUMBS UP SIGN}", "wordless"),
            ("hola, quiero un hotel", "foreign"),
            ("привет", "foreign"),
            ("東京のホテル", "foreign"),
            ("what is the weather like", "beyond"),
            ("please book it", "beyond"),
            ("my name is Bob", "beyond"),
            ("on Friday", "beyond"),
            ("what was my budget?", "recall"),
            ("what is the budget for the trip?", "recall"),
            ("which city did I say?", "recall"),
            ("do you remember me?", "recall"),
            ("forget my budget", "forget"),
            ("forget the brand", "forget"),
            ("don't forget the brand", "unclear"),
            ("forget everything", "forget all"),
            ("please delete my data", "forget all"),
            ("do not delete my notes", "unclear"),
            ("what is my name?", "beyond"),
            ("start over", "forget all"),
            ("don't forget my budget", "unclear"),
            ("forget about it", "refusal"),
        ],
    )
    @pytest.mark.parametrize("topic", [None, "trip", "shopping"])
    def test_what_is_no_request_is_told_apart(self, text, act, topic):
        found = understand(text, topic)
        assert (found.act, found.topic) == (act, None)

    @pytest.mark.parametrize(
        "text",
        [
            "I want to die",
            "i dont want to live anymore",
            "I'm going to kill myself",
            "thinking about suicide, a hotel in Paris",
            "I keep cutting myself",
            "everyone would be better off without me",
            "I just want to end it all",
            "my husband hits me",
            "I was abused",
            "I can't go on",
            "quiero morir",
            "no one cares about me",
            "nobody would miss me",
            "I wish I was never born",
            "I want to end it",
            "I hate my life",
            "I feel so alone",
            "I cant do this anymore",
            "life is not worth living",
            "please kill me",
            "I took too many pills",
            "help me, I am in danger",
        ],
    )
    @pytest.mark.parametrize("asked", [None, "city"])
    def test_distress_comes_before_all_else(self, text, asked):
        found = understand(text, "hotel", asked=asked)
        assert (found.act, found.slots) == ("distress", {})

    @pytest.mark.parametrize(
        "text",
        [
            "shoes to die for",
            "I am dying to see Paris",
            "a killer view",
            "I can't go on Friday",
            "I'd like to end it in Rome",
            "I can't do this on a Monday",
            "no one else is coming",
        ],
    )
    def test_a_turn_of_phrase_is_no_distress(self, text):
        assert understand(text).act != "distress"

    @pytest.mark.parametrize(
        ("text", "beyond"),
        [
            ("red shoes, size 42", ["colours or sizes"]),
            ("flights from London to Tokyo on Friday", ["dates and times", "where you leave from"]),
            ("a table for two in Paris", ["the number of people"]),
            ("30 days in Agra and Delhi", ["a second city", f"more than {MAX_DAYS} days"]),
            ("a hotel in Paris for 3 nights", ["the length of a stay"]),
            ("Nike shoes in Paris", ["where it is sold"]),
            ("book me a hotel in Paris", ["bookings or payments"]),
            ("Udaipur instead of Jaipur", []),
        ],
    )
    def test_what_is_beyond_the_demo_is_noticed(self, text, beyond):
        found = understand(text)
        assert (found.act, found.beyond) == ("request", beyond)
