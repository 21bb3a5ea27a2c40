"""What the example shows of its state: in words, in groups, and as it is stored."""

import json

from django_convstate import conversations
from example_project.concierge.chat import reply_to
from example_project.concierge.notes import notes_of, raw

STATE = {
    "lastQuery": "under $500",
    "itinerary": [{"day": 1, "theme": "forts", "stops": ["Amber Fort", "Nahargarh Fort"]}],
    "preferences": {"interests": ["food", "forts"], "city": "Jaipur", "duration_days": 4},
    "domain": "location",
    "intentSpecific": True,
    "lastImageUrl": "/static/concierge/images/location.svg",
    "seat_wish": {"row": 3},
}


def test_the_state_is_told_in_groups_and_words():
    told = {
        group["title"]: [(line["name"], line["value"]) for line in group["lines"]]
        for group in notes_of(STATE)
    }
    assert list(told.items()) == [
        ("What you are looking for", [("Subject", "trips and sights"), ("Specific", "yes")]),
        ("Your trip", [("Where", "Jaipur"), ("Days", "4"), ("Interests", "food, forts")]),
        ("Day by day", [("Day 1", "forts: Amber Fort, Nahargarh Fort")]),
        ("Our talk", [("You said last", "under $500")]),
        ("Else", [("Seat wish row", "3")]),
    ]


def test_nothing_noted_is_nothing_told():
    assert notes_of({}) == []
    assert notes_of({"preferences": {}, "itinerary": [], "city": ""}) == []


def test_an_unusual_state_is_told_all_the_same():
    state = {"itinerary": ["rest", {"stops": []}], "domain": 5, "price": None, "x": [{"a": 1}]}
    values = [line["value"] for group in notes_of(state) for line in group["lines"]]
    assert values == ["5", "rest", "", "A: 1"]


def test_the_raw_state_is_all_of_it():
    assert json.loads(raw(STATE)) == STATE
    assert "é" in raw({"city": "Orléans"})


def test_a_conversation_is_told_too(empty_conversations):
    conversation = conversations.create()
    reply_to(conversation, "a 4 day trip to Jaipur, we love food")
    titles = [group["title"] for group in notes_of(conversation)]
    assert titles == ["What you are looking for", "Your trip", "Day by day", "Our talk"]
    assert json.loads(raw(conversation))["preferences"]["duration_days"] == 4
