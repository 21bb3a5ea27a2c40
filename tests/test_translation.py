"""The translations are complete, and compiled as they are written."""

from pathlib import Path

import pytest
from babel.messages.mofile import read_mo
from babel.messages.pofile import read_po
from django.apps import apps
from django.template.loader import render_to_string
from django.utils import translation

import django_convstate

LOCALE = Path(django_convstate.__file__).parent / "locale"


@pytest.mark.parametrize("path", sorted(LOCALE.glob("*/LC_MESSAGES/django.po")), ids=str)
def test_compiled_translations_are_up_to_date(path: Path) -> None:
    with path.open("rb") as po, path.with_suffix(".mo").open("rb") as mo:
        written, compiled = read_po(po), read_mo(mo)
    texts = {message.id: message.string for message in written if message.id}
    assert texts == {message.id: message.string for message in compiled if message.id}
    assert all(texts.values())


def test_german_is_used() -> None:
    with translation.override("de"):
        assert str(apps.get_app_config("django_convstate").verbose_name) == "Gespräche"
        shown = render_to_string("django_convstate/transcript.html", {"transcript": []})
    assert "Noch wurde nichts gesagt." in shown
