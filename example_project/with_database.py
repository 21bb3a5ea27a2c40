"""Serves the example with conversations in a file of SQLite, and the admin:

python -m example_project.with_database 127.0.0.1:8000

It makes an account for the admin, which may look at conversations and delete them, and nothing
else. Its password is another one after each start, and shown to who starts it alone.
"""

import os
import secrets
import sys

import django
from django.core.management import call_command

NAME = "demo"
ADVICE = """\
The concierge is at http://{address} (Ctrl-C stops it), its store is {file}.
Its conversations are in the admin, too: http://{address}/admin/

    user name: {name}
    password:  {password}
"""


def main(address: str = "127.0.0.1:8000") -> None:
    os.environ["DJANGO_SETTINGS_MODULE"] = "example_project.settings_database"
    django.setup()
    from django.conf import settings

    call_command("migrate", verbosity=0)
    file, password = settings.DATABASES["default"]["NAME"], make_account()
    sys.stdout.write(ADVICE.format(address=address, file=file, name=NAME, password=password))
    sys.stdout.flush()
    call_command("runserver", address, use_reloader=False)


def make_account() -> str:
    """Make the account, or give it another password, which is returned."""
    from django.contrib.auth.models import Permission, User

    password = secrets.token_urlsafe(9)
    user, _ = User.objects.get_or_create(username=NAME, defaults={"is_staff": True})
    user.set_password(password)
    user.save()
    may = ("view_conversation", "view_contents", "delete_conversation")
    user.user_permissions.set(Permission.objects.filter(codename__in=may))
    return password


if __name__ == "__main__":
    main(*sys.argv[1:])
