"""The commands that move conversations, in a process of their own, which can be killed. A script:

    python -m tests.support.transferring FOLDER export_sessions out.jsonl --backend redis

FOLDER is where its SQLite file is. At its end it writes the most memory that it took, in KiB, to
stderr; 0 where the system does not tell.
"""

import sys
from pathlib import Path

import django
from django.core.management import execute_from_command_line

from tests import settings


def main(folder: Path, *command: str) -> None:
    settings.DATABASES["default"]["NAME"] = folder / "conversations.sqlite3"
    settings.CONVERSATION_STATE = {"CACHE_ALIAS": "django_redis"}  # type: ignore[attr-defined]
    django.setup()
    execute_from_command_line(["manage.py", *command])
    status = Path("/proc/self/status")  # what getrusage says includes the process that began this
    lines = status.read_text().splitlines() if status.exists() else []
    sys.stderr.write(next((line.split()[1] for line in lines if line.startswith("VmHWM")), "0"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
