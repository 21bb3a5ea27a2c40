"""The Lua scripts, each of which runs on the keys of one conversation, or on one owner's index."""

import hashlib
import math
from pathlib import Path
from typing import Final

from .... import clock

_NOW: Final = b"redis.call('TIME')"
_AHEAD: Final = b"(function() local t = %b return {t[1] + %d, t[2] + %d} end)()"


class Script:
    """A Lua script, which the server knows by the SHA-1 of its text."""

    def __init__(self, *parts: bytes) -> None:
        self._written = b"".join(parts)
        self.set_ahead(clock.ahead)
        clock.followers.append(self.set_ahead)

    def set_ahead(self, seconds: float) -> None:
        """Have the server's clock be so many seconds ahead for this script: see `clock`."""
        whole = math.floor(seconds)
        now = _AHEAD % (_NOW, whole, (seconds - whole) * 10**6) if seconds else _NOW
        self.text = self._written.replace(_NOW, now)
        self.sha = hashlib.sha1(self.text, usedforsecurity=False).hexdigest()


def _lua(name: str) -> bytes:
    return (Path(__file__).parent / f"{name}.lua").read_bytes()


def _function(name: str) -> bytes:
    return b"local function %b()\n%b\nend\n" % (name.encode(), _lua(name))


LOAD: Final = Script(_lua("common"), _lua("load"))
_COMMIT: Final = _lua("common"), _lua("messages"), _lua("commit_log"), _lua("commit")
COMMIT: Final = Script(*_COMMIT)
COMMIT_IN_TURN: Final = Script(_lua("lease_queue"), *_COMMIT)
ACQUIRE: Final = Script(_lua("lease_queue"), _lua("common"), _function("load"), _lua("acquire"))
RENEW: Final = Script(_lua("lease_queue"), _lua("renew"))
RELEASE: Final = Script(_lua("lease_queue"), _lua("release"))
FIND: Final = Script(_lua("common"), _lua("messages"), _lua("find"))
PAGE: Final = Script(_lua("page"))
TOUCH: Final = Script(_lua("common"), _lua("touch"))
QUARANTINE: Final = Script(_lua("common"), _lua("soundness"), _lua("quarantine"))
EXAMINE: Final = Script(_lua("common"), _lua("soundness"), _lua("examine"))
EXAMINE_INDEX: Final = Script(_lua("examine_index"))
DELETE: Final = Script(_lua("delete"))
RENAME: Final = Script(_lua("common"), _lua("rename"))
STAGE: Final = Script(_lua("stage"))
RESTORE: Final = Script(_lua("common"), _lua("restore"))
SUMMARY: Final = Script(_lua("summary"))
INDEX: Final = Script(_lua("index_forms"), _lua("index"))
INDEX_PAGE: Final = Script(_lua("index_forms"), _lua("index_page"))
FORGET: Final = Script(_lua("index_forms"), _lua("forget"))
INDEX_ACK: Final = Script(_lua("index_ack"))
PROBE: Final = Script(_lua("probe"))
