"""Every error that Sparkle raises on purpose.

::

    SparkleError
    ├── LocalProtocolError      our own code broke a rule: a bug
    ├── RemoteProtocolError     a peer sent something that breaks the rules: score it, drop it
    ├── TransportError          the network failed: the peer may be fine
    │   ├── RequestTimeout          no answer in time
    │   ├── PeerUnreachable         no connection, or it broke
    │   ├── PeerFailed              the peer answered that it could not serve us, which is not our fault
    │   └── OverlayDown             our own network service is not running
    ├── StorageError            the disk or its quota refuses to take or give data
    ├── VerificationError       a result does not pass its check
    ├── LedgerError             the book does not add up
    ├── ComputeError            a work unit could not be computed
    │   └── ExecutorCrashed         the worker process died; the unit is not to blame by itself
    └── ConfigError             the user asked for something impossible
        ├── HomeInUse               another node owns the home directory
        ├── NotFound                the named job, unit, peer or kernel is not known here
        └── NodeNotRunning          the command needs a running node

``exit_code`` is what a command returns when this error ends it. Messages are one sentence for a
user: what happened and what to do.
"""


class SparkleError(Exception):
    """Base of every deliberate error."""

    exit_code = 1


class LocalProtocolError(SparkleError):
    """Our own code broke a protocol rule."""


class RemoteProtocolError(SparkleError):
    """A peer broke a protocol rule: it is recorded against that peer."""


class TransportError(SparkleError):
    """The network failed."""


class RequestTimeout(TransportError):
    """A peer did not answer in time."""


class PeerUnreachable(TransportError):
    """A peer could not be reached or the connection broke."""


class PeerFailed(TransportError):
    """A peer says that it failed to serve a request: honest, and perhaps better the next time."""


class OverlayDown(TransportError):
    """The local network service is not running (it failed or has been stopped)."""


class StorageError(SparkleError):
    """This machine's disk, or the quota on it, refuses to take or give data."""


class VerificationError(SparkleError):
    """A result failed its check."""


class LedgerError(SparkleError):
    """A ledger rule is broken."""


class ComputeError(SparkleError):
    """A kernel could not compute a unit."""


class ExecutorCrashed(ComputeError):
    """The worker process died while it computed."""


class ConfigError(SparkleError):
    """The user's input or configuration cannot work."""

    exit_code = 2


class NotFound(ConfigError):
    """The named thing is not known to this node."""

    exit_code = 1


class HomeInUse(ConfigError):
    """Another process owns this home directory."""

    exit_code = 3


class NodeNotRunning(ConfigError):
    """No node answers for this home directory."""

    exit_code = 4
