"""The task, where Django has tasks; and what is said where it has none."""

import importlib
import json
import subprocess
import sys
from typing import Any

import django
import pytest

from django_convstate import conversations
from django_convstate.integrations import django_tasks
from tests.support.commands import environment, make

HAS_TASKS = django.VERSION >= (6, 0)


def test_the_task_does_what_the_command_does(settings: Any) -> None:
    settings.CONVERSATION_STATE_BACKEND = "tests.support.backends.SharedBackend"
    settings.TASKS = {"default": {"BACKEND": "django.tasks.backends.immediate.ImmediateBackend"}}
    make("u1")
    make("u2")
    if not HAS_TASKS:
        with pytest.raises(ImportError, match=r"Django 6\.0 and later"):
            from django_convstate.integrations.django_tasks import purge_sessions
        assert not hasattr(django_tasks, "purge_session")
        return
    from django_convstate.integrations.django_tasks import purge_sessions

    result: Any = purge_sessions.enqueue(owner="u1")
    assert result.return_value["deleted"] == 1
    assert [each.owner for each in conversations.list()] == ["u2"]
    assert purge_sessions.enqueue().return_value["deleted"] == 0
    result = purge_sessions.enqueue(idle="30")
    assert "has no unit" in result.errors[0].traceback
    conversations.purge(everything=True)


def test_the_module_can_be_imported_in_any_version() -> None:
    assert importlib.reload(django_tasks) is django_tasks


def test_nothing_imports_it_by_itself() -> None:
    """Celery imports the module `tasks` of each app, and must not need TASKS to be set for that."""
    code = "import django, json, sys; django.setup(); print(json.dumps(sorted(sys.modules)))"
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, check=True
    )
    loaded = json.loads(ended.stdout)
    assert "django_convstate" in loaded
    assert not {"django.tasks", django_tasks.__name__, "django_convstate.tasks"} & set(loaded)
