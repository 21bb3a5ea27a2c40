"""A talk with the example's concierge: what it notes, asks, remembers, forgets and answers."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from django_convstate import Conversation, conversations
from example_project.concierge.chat import reply_to
from example_project.concierge.replies import prices
from example_project.concierge.slots import KEYS

TRIP = "I want a 4 day trip to Jaipur, relaxed, we love food and forts, under $500"
WORDS = """
a trip hotel shoes Nike in to Paris Bhuj not no 3 days $ 80 under red food love we from cheap city
whatever why plan forget my everything what was budget die
"""
SENTENCES = st.lists(st.sampled_from(WORDS.split()), min_size=1).map(" ".join)


def talk(*texts: str) -> Conversation:
    conversation = conversations.create()
    for text in texts:
        reply_to(conversation, text)
    return conversation


class TestSlots:
    def test_a_trip_follows_a_change_of_mind(self):
        trip = talk(TRIP)
        assert trip["preferences"] == {
            "city": "Jaipur",
            "duration_days": 4,
            "pace": "relaxed",
            "budget": "$500",
            "interests": ["food", "forts"],
        }
        assert (trip["domain"], trip["city"], trip["intentSpecific"]) == (
            "location",
            "Jaipur",
            True,
        )
        assert [day["day"] for day in trip["itinerary"]] == [1, 2, 3, 4]
        assert "Amber Fort" in trip["lastAnswer"]
        for text in ("make it 3 days", "no, Udaipur", "also museums", "no forts"):
            reply_to(trip, text)
        assert trip["preferences"] == {
            "city": "Udaipur",
            "duration_days": 3,
            "pace": "relaxed",
            "budget": "$500",
            "interests": ["food", "museums"],
        }
        assert trip["city"] == "Udaipur"
        assert len(trip["itinerary"]) == 3
        assert "Amber Fort" not in str(trip["itinerary"])

    def test_a_refused_city_takes_the_plan_with_it(self):
        trip = talk(TRIP, "not Jaipur")
        assert "itinerary" not in trip
        assert "city" not in trip
        assert trip.messages[-1]["asks"] == "city"

    def test_a_search_notes_what_it_is_told(self):
        text = "show me red Nike running shoes for women under $80"
        found = talk(text)
        assert {key: found[key] for key in ("domain", "brand", "category", "gender", "price")} == {
            "domain": "shopping",
            "brand": "Nike",
            "category": "running shoes",
            "gender": "women",
            "price": "$80",
        }
        assert found["lastQuery"] == text
        assert "cannot help with colours" in found["lastAnswer"]
        assert found["lastImageUrl"].endswith("concierge/images/shopping.svg")

    def test_a_change_of_subject_keeps_the_city_alone(self):
        found = talk("a boutique hotel in Paris under $90", "and a restaurant there")
        assert (found["domain"], found["city"]) == ("restaurants", "Paris")
        assert not {"category", "price"} & set(found)

    def test_a_trip_comes_back_after_another_topic(self):
        trip = talk(TRIP, "a hotel in Paris", "we love art")
        assert trip["domain"] == "location"
        assert trip["preferences"]["interests"] == ["food", "forts", "art"]

    def test_the_picture_comes_once_for_a_subject(self):
        pictures = [
            message.get("image", "").rpartition("/")[2]
            for message in talk("hi", "a hotel in Paris", "under $90", "flights").messages
            if message["role"] == "assistant"
        ]
        assert pictures == ["general.svg", "hotel.svg", "", "flights.svg"]


class TestQuestions:
    def test_questions_come_one_at_a_time(self):
        trip = talk("plan a trip")
        assert (trip.messages[-1]["asks"], trip["intentSpecific"]) == ("city", False)
        reply_to(trip, "Jaipur")
        assert trip.messages[-1]["asks"] == "duration_days"
        reply_to(trip, "5")
        assert "asks" not in trip.messages[-1]
        assert len(trip["itinerary"]) == 5
        assert trip["clarifying_questions_count"] == 2

    @pytest.mark.parametrize("text", ["a hotel", "plan a trip", "I want to buy something"])
    def test_questions_end(self, text):
        found = talk(text, "what?", "why?")
        first, second, third = (m for m in found.messages if m["role"] == "assistant")
        assert first["asks"] == second["asks"]
        assert first["content"] != second["content"]
        assert "asks" not in third
        assert "As I know no better" in third["content"]

    def test_the_choice_may_be_left_to_the_concierge(self):
        trip = talk("plan a trip", "surprise me")
        assert "As you leave it to me" in trip["lastAnswer"]
        assert trip["preferences"]["city"] == trip["city"] == "Paris"


class TestMemory:
    @pytest.mark.parametrize(
        ("question", "answer"),
        [
            ("what was my budget?", "My notes say: budget $500."),
            ("which city did I say?", "My notes say: city Jaipur."),
            ("how many days did I say?", "My notes say: days 4."),
            ("what are my interests?", "My notes say: interests food and forts."),
        ],
    )
    def test_it_says_what_it_remembers(self, question, answer):
        assert talk(TRIP, question)["lastAnswer"] == answer

    def test_it_says_all_that_it_remembers(self):
        known = talk(TRIP, "what do you remember?")["lastAnswer"]
        for word in ("Jaipur", "4", "relaxed", "$500", "food and forts", "Day 4"):
            assert word in known

    def test_it_says_what_it_does_not_know(self):
        answer = talk("a hotel in Paris", "what was my budget?")["lastAnswer"]
        assert answer == "That I have not noted. My notes say: city Paris."
        assert talk("what do you remember?")["lastAnswer"] == "My notes say: nothing yet."

    def test_the_budget_is_that_of_the_topic_at_hand(self):
        chat = talk(TRIP, "a hotel there", "under $90", "what was my budget?")
        assert chat["lastAnswer"] == "My notes say: budget $90."

    def test_one_thing_is_forgotten(self):
        trip = talk(TRIP, "forget my budget")
        # The itinerary was made with it, and goes, too.
        assert trip["lastAnswer"] == "Done. I have forgotten your budget and itinerary."
        assert ("budget" in trip["preferences"], "itinerary" in trip) == (False, False)
        assert trip["city"] == "Jaipur"
        assert talk(TRIP, "forget my budget", "forget my budget")["lastAnswer"].startswith(
            "I had not"
        )

    def test_everything_is_forgotten(self):
        trip = talk(TRIP, "a hotel there under $90", "forget everything")
        kept = {"domain", "intentSpecific", "lastQuery", "lastAnswer", "lastImageUrl"}
        assert set(trip) == kept
        assert (trip["domain"], trip["intentSpecific"]) == ("general", False)

    def test_to_forget_all_when_nothing_is_noted_says_so(self):
        assert talk("start over")["lastAnswer"] == "My notes are empty."

    def test_what_it_does_not_know_is_no_reason_to_forget_the_rest(self):
        assert talk(TRIP, "forget my dog")["preferences"]["budget"] == "$500"


class TestTalk:
    def test_small_talk_changes_no_slot(self):
        hotel = talk("a hotel in Paris")
        before = dict(hotel)
        for text in ("thanks", "hello", "the weather?", "hola", "?"):
            reply_to(hotel, text)
        changed = {key for key, value in hotel.items() if before.get(key) != value}
        assert changed == {"lastQuery", "lastAnswer"}

    @pytest.mark.parametrize("before", [[], ["a hotel"], [TRIP]])
    def test_distress_is_answered_with_help_and_not_noted(self, before):
        chat = talk(*before)
        noted = dict(chat)
        reply_to(chat, "I want to die in Paris, under $90")
        assert "findahelpline.com" in chat.messages[-1]["content"]
        assert "emergency number" in chat.messages[-1]["content"]
        noted["lastAnswer"] = chat["lastAnswer"]
        assert dict(chat) == noted
        assert set(chat.messages[-1]) & {"asks", "image"} == set()

    @given(limit=st.decimals(min_value="0.1", max_value=99_999, places=2))
    def test_offers_cost_no_more_than_asked_for(self, limit):
        for price in prices(f"${limit:,}", 60):
            assert float(price[1:].replace(",", "")) <= float(limit)

    def test_offers_follow_the_level(self):
        assert prices("cheap", 100) == ["$35", "$50", "$70"]
        assert prices(None, 100) == ["$70", "$100", "$140"]
        assert prices("luxury", 100) == ["$210", "$300", "$420"]

    def test_what_it_cannot_do_is_admitted(self):
        assert "more than 14 days" in talk("30 days in Rome")["lastAnswer"]
        assert "by name only" in talk("3 days in Bhuj")["lastAnswer"]
        assert "bookings or payments" in talk("a hotel in Paris", "book it")["lastAnswer"]
        assert "only know English" in talk("bonjour")["lastAnswer"]

    def test_the_talk_is_kept_by_the_store(self):
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
    def test_every_text_is_answered(self, texts):
        chat = talk(*texts)
        assert len(chat.messages) == 2 * len(texts)
        assert all(message["content"] for message in chat.messages)
        assert set(chat) <= set(KEYS)
        asked = [bool(m.get("asks")) for m in chat.messages if m["role"] == "assistant"]
        assert "TTT" not in "".join("T" if asks else "-" for asks in asked)
