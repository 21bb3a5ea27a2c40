"""What a project may listen to. Sent after the store has answered; a receiver that fails is logged
and changes nothing.

Those about a conversation come with `sender`, the `ConversationStore`; the first two of them with
`conversation`, the others with `id`.

The last two come once in an outage, from a thread of their own, with `sender`, the backend that is
unavailable or back: `backend_degraded` with `reason`, a text; `backend_recovered` with `seconds`,
how long it was unavailable, and how many changes were `replayed`, how many of these only in part
(`conflicts`), and how many are `lost`.
"""

from django.dispatch import Signal

conversation_created = Signal()
conversation_saved = Signal()
conversation_deleted = Signal()
conversation_quarantined = Signal()
backend_degraded = Signal()
backend_recovered = Signal()
