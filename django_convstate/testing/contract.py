"""The contract as a whole."""

from .commits import CommitContract
from .leases import LeaseContract
from .lifetimes import LifetimeContract


class BackendContract(CommitContract, LifetimeContract, LeaseContract):
    """What `ConversationStateBackend` promises. Define `make_backend`."""
