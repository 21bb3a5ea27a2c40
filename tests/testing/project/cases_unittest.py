"""The tests of a small project, by Django's runner: without pytest."""

import sys
import unittest
from typing import Any

from django.contrib.auth.models import User
from django.test import SimpleTestCase, TestCase, TransactionTestCase

from django_convstate import ConversationConflict, conversations
from django_convstate.testing import ConversationTestMixin, aseed, assert_store_calls, clock, seed


class Base(ConversationTestMixin):
    client: Any

    def setUp(self) -> None:
        """Without a call of super(), which many forget."""
        self.assertEqual(list(conversations.list()), [])
        seed([("user", "hi")], owner="ada", ttl=60, id="fixed")

    def tearDown(self) -> None:
        assert "pytest" not in sys.modules
        self.assertFalse(conversations.exists("fixed"))

    def test_one(self) -> None:
        with self.assertRaises(ConversationConflict):
            seed([("user", "hi")], id="fixed")
        for number in range(2):
            with self.subTest(number):
                self.client.get("/sync/say?text=hi")
        self.assertEqual(self.client.conversation["turns"], 2)
        with assert_store_calls(1):
            conversations.delete("fixed")

    def test_two(self) -> None:
        self.assertTrue(self.client.conversation.is_new)
        clock.move(61)
        seed([("user", "left behind")], owner="ada", ttl=10**6)

    async def test_async(self) -> None:
        await aseed([("user", "left behind")], id="other")
        await conversations.adelete("fixed")


class SimpleTests(Base, SimpleTestCase):
    @unittest.skip("is not run")
    def test_skipped(self) -> None:
        raise AssertionError


class TransactionTests(Base, TransactionTestCase):
    pass


class ChatTests(Base, TestCase):
    def test_a_user(self) -> None:
        self.client.force_login(User.objects.create_user("ada"))
        conversation = self.client.conversation
        conversation["city"] = "Paris"
        conversation.save()
        self.assertEqual(self.client.get("/sync/look").json()["state"], {"city": "Paris"})
        conversations.delete("fixed")


class PlainTests(ConversationTestMixin, unittest.IsolatedAsyncioTestCase):
    async def test_one(self) -> None:
        self.assertFalse(await conversations.aexists("fixed"))
        await aseed([("user", "hi")], id="fixed")

    async def test_two(self) -> None:
        self.assertFalse(await conversations.aexists("fixed"))
        await aseed([("user", "hi")], id="fixed")
