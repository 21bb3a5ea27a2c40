"""What a project may listen to. Sent after the store has answered; a receiver that fails is logged
and changes nothing.

All come with `sender`, the `ConversationStore`. The first two come with `conversation`, the others
with `id`.
"""

from django.dispatch import Signal

conversation_created = Signal()
conversation_saved = Signal()
conversation_deleted = Signal()
conversation_quarantined = Signal()
