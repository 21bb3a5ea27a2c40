"""A process that takes turns: `python -m tests.support.turning URL LEASE ID NAME`.

It says "in" when its turn has begun, reads a line, appends a question and an answer, and says how
its turn ended.
"""

import sys

from django.conf import settings


def main(url: str, lease: str, id: str, name: str) -> None:
    settings.configure(
        SECRET_KEY="of no use",
        CACHES={
            "default": {
                "BACKEND": "django_redis.cache.RedisCache",
                "LOCATION": url,
                "OPTIONS": {"SOCKET_TIMEOUT": 5, "SOCKET_CONNECT_TIMEOUT": 5},
            }
        },
    )
    from django_convstate import ConversationError, ConversationStore
    from django_convstate.conversation import turn

    turn.LEASE = float(lease)  # type: ignore[misc]
    turn.RENEW_INTERVAL = turn.LEASE / 3  # type: ignore[misc]
    conversation = ConversationStore("redis").open(id)
    say("ready")
    try:
        with conversation.turn():
            say("in")
            sys.stdin.readline()
            conversation.messages.append("user", f"u{name}")
            conversation.messages.append("assistant", f"a{name}")
    except ConversationError as error:
        say(type(error).__name__)
    else:
        say("saved")


def say(word: str) -> None:
    sys.stdout.write(word + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
