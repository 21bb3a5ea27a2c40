"""The application that docs/outages.md shows, which closes the store when it ends, for live.py's
project."""

from typing import Any

from django_convstate import conversations
from tests.support.docs import ROOT, blocks
from tests.support.live import asgi

_names: dict[str, Any] = {"conversations": conversations, "django_application": asgi}
for _block in blocks((ROOT / "docs/outages.md").read_text(), "python"):
    if "lifespan" in _block:
        exec(compile(_block, "docs/outages.md", "exec"), _names)
application = _names["application"]
