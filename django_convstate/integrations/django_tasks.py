"""A task for django.tasks, which is in Django 6.0 and later.

from django_convstate.integrations.django_tasks import purge_sessions

purge_sessions.enqueue()
"""

import io
import json
from typing import Any

from django.core.management import call_command

try:
    from django.tasks import task
except ImportError:  # Django 5.2, on which this module may be imported, and the task may not

    def __getattr__(name: str) -> Any:
        if name == "purge_sessions":
            raise ImportError(
                "The task purge_sessions needs django.tasks, which is in Django 6.0 and later. "
                "Before, run the command: call_command('purge_sessions')."
            )
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

else:

    @task()
    def purge_sessions(idle: str | None = None, owner: str | None = None) -> dict[str, Any]:
        """Delete what has expired; or what is idle for so long ("30d"), is this owner's, or both.

        Returns:
            What the command `purge_sessions --json` prints.

        Raises:
            CommandError: it could not; the sentence says why.
        """
        out = io.StringIO()
        call_command("purge_sessions", idle=idle, owner=owner, no_input=True, json=True, stdout=out)
        report: dict[str, Any] = json.loads(out.getvalue())
        return report
