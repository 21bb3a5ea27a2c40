"""The contract as a whole."""

from .commits import CommitContract
from .isolated_backends import IsolationContract
from .leases import LeaseContract
from .lifetimes import LifetimeContract
from .listings import ListingContract
from .messages import MessageContract
from .moves import MoveContract
from .once import OnceContract


class BackendContract(
    CommitContract,
    OnceContract,
    MessageContract,
    LifetimeContract,
    ListingContract,
    MoveContract,
    LeaseContract,
    IsolationContract,
):
    """What `ConversationStateBackend` promises. Define `make_backend`."""
