"""The rules of the example's concierge: what it understands, notes, asks and answers."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from django_convstate import Conversation, conversations
from example_project.concierge.chat import reply_to
from example_project.concierge.days import MAX_DAYS
from example_project.concierge.money import Money
from example_project.concierge.offers import offers
from example_project.concierge.planner import STOPS_A_DAY, plan
from example_project.concierge.slots import KEYS
from example_project.concierge.topics import Context

NOTHING_YET = Context()

TRIP = Context(domain="location", planning=True)

SHOPPING = Context(domain="shopping")

HOTEL = Context(domain="hotel")

WORDS = """
a trip hotel shoes Nike in to Paris Bhuj not no any brand 3 days $ 80 under red food love we from
cheap city whatever why plan
"""

SENTENCES = st.lists(st.sampled_from(WORDS.split()), min_size=1).map(" ".join)


def talk(*texts: str) -> Conversation:
    conversation = conversations.create()
    for text in texts:
        reply_to(conversation, text)
    return conversation


class TestOffers:
    @given(
        domain=st.sampled_from(["hotel", "restaurants", "flights", "shopping"]),
        limit=st.decimals(min_value="0.01", max_value=99_999, places=2),
    )
    def test_cost_no_more_than_asked_for(self, domain, limit):
        found = offers(domain, {"price": str(Money(float(limit)))})
        assert len(found) == 3
        assert all(offer.price.amount <= float(limit) for offer in found)

    @pytest.mark.parametrize("domain", ["hotel", "restaurants", "flights", "shopping"])
    def test_are_recognisably_made_up(self, domain):
        assert all("Demo" in str(offer) for offer in offers(domain, {}))

    def test_follow_the_level(self):
        budget, usual, luxury = (
            [offer.price.amount for offer in offers("hotel", {"price": level})]
            for level in ("budget", "mid-range", "luxury")
        )
        assert budget < usual < luxury


class TestPlan:
    @pytest.mark.parametrize("city", ["Jaipur", "Bhuj"])
    @pytest.mark.parametrize("pace", STOPS_A_DAY)
    @pytest.mark.parametrize("days", [1, 3, MAX_DAYS])
    def test_has_every_day(self, city, pace, days):
        itinerary = plan(city, days, ["food"], pace)
        assert [day["day"] for day in itinerary] == list(range(1, days + 1))
        assert all(day["theme"] for day in itinerary)
        assert all(1 <= len(day["stops"]) <= STOPS_A_DAY[pace] for day in itinerary)

    def test_repeats_nothing_but_free_time(self):
        itinerary = plan("Jaipur", MAX_DAYS, ["food", "forts"], "packed")
        stops = [stop for day in itinerary for stop in day["stops"] if stop != "time of your own"]
        assert len(stops) == len(set(stops)) > 20

    def test_begins_with_the_interests(self):
        first, *_ = plan("Jaipur", 4, ["food", "forts"], "relaxed")
        assert first == {
            "day": 1,
            "theme": "food and forts",
            "stops": ["a street-food round in Johari Bazaar", "Amber Fort"],
        }


class TestTrip:
    ASKED = "I want a 4 day trip to Jaipur, relaxed, we love food and forts, under $500"

    def test_is_planned_when_there_is_enough(self):
        trip = talk(self.ASKED)
        assert trip["preferences"] == {
            "city": "Jaipur",
            "duration_days": 4,
            "pace": "relaxed",
            "budget": "$500",
            "interests": ["food", "forts"],
        }
        assert trip["domain"] == "location"
        assert trip["city"] == "Jaipur"
        assert trip["intentSpecific"] is True
        assert len(trip["itinerary"]) == 4
        assert "clarifying_questions_count" not in trip
        assert "about $125 a day" in trip["lastAnswer"]
        assert "Amber Fort" in trip["lastAnswer"]

    def test_follows_a_change_of_mind(self):
        trip = talk(self.ASKED, "make it 3 days", "no, Udaipur")
        assert trip["preferences"]["duration_days"] == 3
        assert trip["preferences"]["city"] == trip["city"] == "Udaipur"
        assert trip["preferences"]["pace"] == "relaxed"
        assert len(trip["itinerary"]) == 3
        assert "Udaipur" in trip["lastAnswer"]
        assert "Amber Fort" not in str(trip["itinerary"])

    def test_interests_come_and_go(self):
        assert talk(self.ASKED, "also museums")["preferences"]["interests"] == [
            *("food", "forts", "museums"),
        ]
        assert talk(self.ASKED, "we prefer art")["preferences"]["interests"] == ["art"]
        assert talk(self.ASKED, "less food, more art")["preferences"]["interests"] == [
            *("forts", "art"),
        ]
        assert talk(self.ASKED, "no forts")["preferences"]["interests"] == ["food"]
        assert "interests" not in talk(self.ASKED, "no forts and no food")["preferences"]

    def test_a_refused_city_takes_the_plan_with_it(self):
        trip = talk(self.ASKED, "not Jaipur")
        assert "itinerary" not in trip
        assert "city" not in trip
        assert trip.messages[-1]["asks"] == "city"

    def test_comes_back_after_something_else(self):
        trip = talk(self.ASKED, "a hotel in Paris", "make it 2 days")
        assert trip["domain"] == "location"
        assert trip["preferences"]["city"] == trip["city"] == "Jaipur"
        assert len(trip["itinerary"]) == 2

    def test_is_at_most_two_weeks(self):
        trip = talk("30 days in Rome")
        assert len(trip["itinerary"]) == MAX_DAYS
        assert f"more than {MAX_DAYS} days" in trip["lastAnswer"]

    def test_says_so_if_it_does_not_know_the_city(self):
        assert "by name only" in talk("3 days in Bhuj")["lastAnswer"]


class TestSearch:
    def test_notes_what_it_is_told(self):
        found = talk("show me red Nike running shoes for women under $80")
        assert {key: found[key] for key in ("domain", "brand", "category", "gender", "price")} == {
            "domain": "shopping",
            "brand": "Nike",
            "category": "running shoes",
            "gender": "women",
            "price": "$80",
        }
        assert found["lastQuery"] == "show me red Nike running shoes for women under $80"
        assert "no rule for colours" in found["lastAnswer"]
        assert found["lastImageUrl"].endswith("concierge/images/shopping.svg")

    def test_a_change_of_subject_keeps_the_city_alone(self):
        found = talk("a boutique hotel in Paris under $90", "and a restaurant there")
        assert found["domain"] == "restaurants"
        assert found["city"] == "Paris"
        assert "category" not in found
        assert "price" not in found

    def test_what_is_not_wanted_any_more_goes(self):
        found = talk("Nike shoes under $80", "any brand, any price")
        assert found["category"] == "shoes"
        assert "brand" not in found
        assert "price" not in found

    def test_the_picture_comes_once_for_a_subject(self):
        pictures = [
            message.get("image", "").rpartition("/")[2]
            for message in talk("hi", "a hotel in Paris", "under $90", "flights").messages
            if message["role"] == "assistant"
        ]
        assert pictures == ["general.svg", "hotel.svg", "", "flights.svg"]


class TestQuestions:
    def test_one_at_a_time_and_then_the_answer(self):
        trip = talk("plan a trip")
        assert trip.messages[-1]["asks"] == "city"
        assert trip["intentSpecific"] is False
        reply_to(trip, "Jaipur")
        assert trip.messages[-1]["asks"] == "duration_days"
        reply_to(trip, "5")
        assert "asks" not in trip.messages[-1]
        assert trip["intentSpecific"] is True
        assert len(trip["itinerary"]) == 5
        assert trip["clarifying_questions_count"] == 2

    @pytest.mark.parametrize("request_text", ["a hotel", "plan a trip", "I want to buy something"])
    def test_are_not_asked_for_ever(self, request_text):
        found = talk(request_text, "what?", "why?")
        first, second, third = (m for m in found.messages if m["role"] == "assistant")
        assert first["asks"] == second["asks"]
        assert first["content"] != second["content"]
        assert "asks" not in third
        assert "As I know no better" in third["content"]
        assert found["clarifying_questions_count"] == 2

    def test_are_not_asked_again_if_the_choice_is_ours(self):
        trip = talk("plan a trip", "surprise me")
        assert trip["itinerary"]
        assert trip["preferences"]["city"] == trip["city"]
        assert "As you leave it to me" in trip["lastAnswer"]
        reply_to(trip, "we love food")
        assert "asks" not in trip.messages[-1]

    def test_may_be_asked_anew_later(self):
        later = talk("plan a trip", "Rome", "3 days", "I want to buy something")
        assert later.messages[-1]["asks"] == "category"
        assert later["clarifying_questions_count"] == 3


class TestTalk:
    def test_small_talk_changes_no_slot(self):
        hotel = talk("a hotel in Paris")
        before = dict(hotel)
        for text in ("thanks", "hello", "the weather?"):
            reply_to(hotel, text)
        assert {k: v for k, v in hotel.items() if k not in ("lastQuery", "lastAnswer")} == {
            k: v for k, v in before.items() if k not in ("lastQuery", "lastAnswer")
        }

    def test_does_not_say_the_same_twice(self):
        chat = talk("thanks", "thanks", "a hotel in Paris", "a hotel in Paris")
        answers = [m["content"] for m in chat.messages if m["role"] == "assistant"]
        assert len(set(answers)) == 4

    def test_is_kept_by_the_store(self):
        chat = talk("a trip to Jaipur for 2 days, we love food")
        chat.save()
        stored = conversations.get(chat.id)
        reply_to(stored, "also forts")
        stored.save()
        stored = conversations.get(chat.id)
        assert stored["preferences"]["interests"] == ["food", "forts"]
        assert [message["role"] for message in stored.messages] == ["user", "assistant"] * 2

    @given(st.lists(st.text(min_size=1) | SENTENCES, min_size=1, max_size=6))
    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_has_an_answer_to_everything(self, texts):
        chat = talk(*texts)
        assert len(chat.messages) == 2 * len(texts)
        assert all(message["content"] for message in chat.messages)
        assert set(chat) <= set(KEYS)
        asked = [bool(m.get("asks")) for m in chat.messages if m["role"] == "assistant"]
        assert "TTT" not in "".join("T" if asks else "-" for asks in asked)
