"""The contract as a whole."""

from .commits import CommitContract
from .leases import LeaseContract
from .lifetimes import LifetimeContract
from .messages import MessageContract
from .moves import MoveContract
from .once import OnceContract


class BackendContract(
    CommitContract, OnceContract, MessageContract, LifetimeContract, MoveContract, LeaseContract
):
    """What `ConversationStateBackend` promises. Define `make_backend`."""
