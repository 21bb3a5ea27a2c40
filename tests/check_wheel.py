"""`make test-wheel`: what a user installs is whole.

Looks into the built wheel, then installs it into an empty environment and uses it there. Pytest
does not collect this, because what counts is the wheel and not the tree.
"""

import os
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "django_convstate"
PLUGIN = "_django_convstate_pytest.py"
EXPECTED = [
    "py.typed",
    "templates/django_convstate/transcript.html",
    "static/django_convstate/transcript.css",
    "locale/de/LC_MESSAGES/django.mo",
    "backends/database/templates/admin/convstate_database/conversation/change_form.html",
    "backends/database/static/convstate_database/admin.css",
    "management/commands/purge_sessions.py",
    "testing/contract.py",
    "testing/mixin.py",
]
SMOKE = """
import django, sys
from django.conf import settings
settings.configure(
    SECRET_KEY="x",
    INSTALLED_APPS=["django_convstate", "django.contrib.staticfiles"],
    MIDDLEWARE=["django_convstate.middleware.ConversationMiddleware"],
    STATIC_URL="static/",
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}],
)
django.setup()
from django.contrib.staticfiles import finders
from django.core.management import call_command
from django.template.loader import render_to_string
from django.utils import translation
import django_convstate
assert "site-packages" in django_convstate.__file__, django_convstate.__file__
conversation = django_convstate.conversations.create()
conversation.messages.append("user", "hello")
conversation.save()
messages = django_convstate.conversations.get(conversation.id).messages.all()
with translation.override("de"):
    shown = render_to_string("django_convstate/transcript.html", {"transcript": messages})
assert "Sie" in shown and "hello" in shown, shown
assert finders.find("django_convstate/transcript.css")
call_command("check")
call_command("purge_sessions")
import django_convstate.testing
with django_convstate.testing.empty_store():
    assert not list(django_convstate.conversations.list())
assert "pytest" not in sys.modules
from importlib.metadata import entry_points
(plugin,) = entry_points(group="pytest11", name="django_convstate")
"""


def check_contents(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    tree = {
        path.relative_to(ROOT).as_posix()
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    } | {PLUGIN}
    packaged = {name for name in names if not name.split("/")[0].endswith(".dist-info")}
    assert packaged == tree, packaged ^ tree
    missing = [name for name in EXPECTED if f"django_convstate/{name}" not in names]
    assert not missing, missing
    assert any(name.endswith("licenses/LICENSE") for name in names), "the licence is missing"


def check_installed(wheel: Path) -> None:
    with tempfile.TemporaryDirectory() as directory:
        venv.create(directory, with_pip=True)
        python = Path(directory, "Scripts" if os.name == "nt" else "bin", "python")
        run = [str(python), "-m", "pip", "install", "--quiet", str(wheel)]
        subprocess.run(run, check=True, cwd=directory)
        subprocess.run([str(python), "-W", "error", "-c", SMOKE], check=True, cwd=directory)


if __name__ == "__main__":
    (wheel,) = (ROOT / "dist").glob("*.whl")
    check_contents(wheel)
    check_installed(wheel)
    sys.stdout.write(f"{wheel.name}: whole, and works where nothing else is.\n")
