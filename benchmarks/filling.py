"""Many conversations at once, written by the database itself."""

from django.db import connection
from rich.console import Console
from rich.progress import track

from benchmarks import chats
from django_convstate import ConversationStore
from django_convstate.backends.database.models import Conversation, Message

MESSAGES = 5


def fill(
    count: int, store: ConversationStore, console: Console, *, expires_in: float = 0.0
) -> None:
    """Store so many conversations that expire within so many seconds, or have just expired."""
    template = store.create()
    template.messages.extend(chats.messages(MESSAGES))
    template.save()
    template_pk = Conversation.objects.get(key=template.id).pk
    values = {
        "key": "'conversation-' || number",
        "expires_at": f"now() + interval '{expires_in} s' - number * interval '1 ms'",
        "cursor": "lpad(to_hex(number), 28, '0')",
    }
    own = [field.column for field in Conversation._meta.concrete_fields if not field.primary_key]
    rows = ", ".join(values.get(str(name), f'"{name}"') for name in own)
    names = ", ".join(f'"{name}"' for name in own)
    of_message = [field.column for field in Message._meta.concrete_fields][2:]
    message = ", ".join(f'"{name}"' for name in of_message)
    step = max(1, count // 40)
    for start in track(range(0, count, step), "Filling", console=console, transient=True):
        with connection.cursor() as cursor:
            cursor.execute(
                f"INSERT INTO convstate_database_conversation ({names}) SELECT {rows} "
                "FROM convstate_database_conversation, generate_series(%s, %s) AS number "
                "WHERE id = %s RETURNING id",
                [start, min(start + step, count) - 1, template_pk],
            )
            new = [row[0] for row in cursor.fetchall()]
            cursor.execute(
                f"INSERT INTO convstate_database_message (conversation_id, {message}) "
                f"SELECT new, {message} FROM convstate_database_message, unnest(%s) AS new "
                "WHERE conversation_id = %s",
                [new, template_pk],
            )
    template.delete()
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")
