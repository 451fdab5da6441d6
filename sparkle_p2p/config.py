"""A node's configuration: one frozen tree, built once from defaults, ``config.toml``, environment and flags.

Each source overrides the one before it. A value is checked where it is given, so that the message can name
the file, the variable or the flag that holds it.
"""

import difflib
import ipaddress
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from sparkle_ledger.genesis import GenesisRecord
from sparkle_p2p.genesis import read_genesis
from sparkle_p2p.network_key import NetworkKey, read_network_key
from sparkle_protocol.errors import ConfigError, RemoteProtocolError
from sparkle_protocol.ids import PeerId, key_from_peer_id, peer_id_from_key

CONFIG_FILE = "config.toml"
LOG_LEVELS = ("debug", "info", "warning", "error")
MAX_SLOTS = 256
MAX_ADDRESSES = 32
MAX_TRUSTED = 1024
MIN_MEMORY_MB, MAX_MEMORY_MB = 64, 1 << 24  # less than the former is not enough for the smallest unit with arrays
MIN_BLOBS_MB, MAX_BLOBS_MB = 64, 1 << 30


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """How a node runs. Every field has a flag of ``sparkle-node`` and a key in ``config.toml``."""

    home: Path
    net: str = "main"
    listen: tuple[str, ...] = ("/ip4/0.0.0.0/tcp/0",)
    bootstrap: tuple[str, ...] = ()
    network_key: NetworkKey | None = None  # what is configured is the path of its file
    genesis: GenesisRecord | None = None  # likewise; None: the default one
    trusted: tuple[PeerId, ...] = ()  # peers whose results the owner vouches for
    api: str = "127.0.0.1:0"
    slots: int = 1
    memory_mb: int = 4096
    blobs_mb: int = 20480
    bulk_port: int = 0
    work: bool = True
    bootstrap_only: bool = False
    mdns: bool = True
    log_level: str = "info"

    @property
    def record(self) -> GenesisRecord:
        """What all nodes of the network agree on."""
        return self.genesis if self.genesis is not None else GenesisRecord(self.net)


def load_config(home: Path, flags: Mapping[str, Any], environ: Mapping[str, str]) -> NodeConfig:
    """The configuration of the node in ``home``: defaults, ``config.toml``, ``SPARKLE_*``, then flags.

    Args:
        home: the node's directory; ``config.toml`` in it is optional.
        flags: values by field name; ``None`` means that the flag was not given.
        environ: usually ``os.environ``.

    Raises:
        ConfigError: an unknown key or a bad value; one sentence names where it stands and what is expected.
    """
    chosen: dict[str, Any] = {}
    file = home / CONFIG_FILE
    for key, value in _read_toml(file).items():
        if key in ("network_key", "genesis") and isinstance(value, str):
            value = str(home / Path(value).expanduser())  # a path in the file is seen from the file
        chosen[key] = _checked(_known(key, f"{file}: "), value, f"{file}: {key}")
    for variable, value in environ.items():
        field = _field_of_variable(variable)
        if field is not None and value != "":
            chosen[field] = _checked(field, value, variable)
    for key, value in flags.items():
        if value is not None:
            chosen[key] = _checked(_known(key, ""), value, _flag(key, value))
    return _of_one_network(NodeConfig(home=home, **chosen), net_given="net" in chosen)


def _of_one_network(config: NodeConfig, *, net_given: bool) -> NodeConfig:
    """The genesis record names the network, unless somebody else does; then they have to agree."""
    genesis = config.genesis
    if genesis is None or genesis.network == config.net:
        return config
    if net_given:
        raise ConfigError(
            f"the genesis record is of network '{genesis.network}', and net is '{config.net}'; "
            "leave out net, or give the genesis record of that network"
        )
    return replace(config, net=genesis.network)


def check_multiaddr(text: str, *, peer_required: bool) -> str:
    """``text`` if it is a TCP multiaddr whose shape can work, as ``/ip4/192.0.2.1/tcp/4001/p2p/12D3Koo…``.

    With ``peer_required`` (an address to dial) it must name the peer and a real port.

    Raises:
        ValueError: with what is wrong, to follow "but ".
    """
    match = _MULTIADDR.fullmatch(text)
    if match is None:
        shape = "/ip4/192.0.2.1/tcp/4001/p2p/12D3Koo…" if peer_required else "/ip4/0.0.0.0/tcp/4001"
        raise ValueError(f"must look like {shape}")
    kind, host, port, peer = match.groups()
    if kind in ("ip4", "ip6"):
        try:
            (ipaddress.IPv4Address if kind == "ip4" else ipaddress.IPv6Address)(host)
        except ValueError as error:
            raise ValueError(f"'{host}' is not an {kind.replace('ip', 'IPv')} address") from error
    if int(port) > 65535:
        raise ValueError(f"port {port} is above 65535")
    if peer_required and peer is None:
        raise ValueError("must end in /p2p/ and the peer's id, which 'sparkle status' there shows")
    if peer_required and int(port) == 0:
        raise ValueError("port 0 cannot be dialled")
    return text


def parse_host_port(text: str) -> tuple[str, int]:
    """Host and port of ``HOST:PORT`` or ``[IPV6]:PORT``.

    Raises:
        ValueError: with what is wrong, to follow "but ".
    """
    match = _HOST_PORT.fullmatch(text)
    if match is None or int(match["port"]) > 65535:
        raise ValueError("must be HOST:PORT, as in 127.0.0.1:8080 (port 0: any free one)")
    return match["ipv6"] or match["host"], int(match["port"])


_MULTIADDR = re.compile(
    r"/(ip4|ip6|dns|dns4|dns6|dnsaddr)/([0-9A-Za-z.:_-]{1,253})/tcp/(\d{1,5})(?:/p2p/([1-9A-HJ-NP-Za-km-z]{40,64}))?"
)
_HOST_PORT = re.compile(r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<host>[0-9A-Za-z._-]+)):(?P<port>\d{1,5})")
_NET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_WORDS = {
    "true": True,
    "yes": True,
    "on": True,
    "1": True,
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}


def _net(value: Any) -> str:
    if not isinstance(value, str) or not _NET.fullmatch(value):
        raise ValueError("must be a name of letters, digits, '.', '_' and '-' (at most 63 characters)")
    return value


def _network_key(value: Any) -> NetworkKey:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("must be the path of a key file in quotes")
    return read_network_key(Path(value).expanduser())


def _genesis(value: Any) -> GenesisRecord:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("must be the path of a genesis file in quotes")
    return read_genesis(Path(value).expanduser(), _net)


def _listen(value: Any) -> tuple[str, ...]:
    addresses = _addresses(value, peer_required=False)
    if not addresses:
        raise ValueError("must hold at least one address, as /ip4/0.0.0.0/tcp/4001")
    for address in addresses:
        if not address.startswith("/ip") or "/p2p/" in address:
            raise ValueError("must be an own IP address to listen on, as /ip4/0.0.0.0/tcp/4001")
    return addresses


def _bootstrap(value: Any) -> tuple[str, ...]:
    return _addresses(value, peer_required=True)


def _addresses(value: Any, *, peer_required: bool) -> tuple[str, ...]:
    if isinstance(value, str):  # from the environment: separated by spaces or commas
        value = value.replace(",", " ").split()
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        raise ValueError("must be a list of multiaddrs in quotes")
    if len(value) > MAX_ADDRESSES:
        raise ValueError(f"may hold at most {MAX_ADDRESSES} addresses")
    checked = []
    for item in value:
        try:
            checked.append(check_multiaddr(item, peer_required=peer_required))
        except ValueError as error:
            raise ValueError(f"{error} (in '{item}')" if len(value) > 1 else str(error)) from error
    return tuple(dict.fromkeys(checked))


def _trusted(value: Any) -> tuple[PeerId, ...]:
    if isinstance(value, str):  # from the environment: separated by spaces or commas
        value = value.replace(",", " ").split()
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        raise ValueError("must be a list of peer ids in quotes")
    if len(value) > MAX_TRUSTED:
        raise ValueError(f"may hold at most {MAX_TRUSTED} peers")
    found: dict[PeerId, None] = {}
    for item in value:
        try:
            found[peer_id_from_key(key_from_peer_id(PeerId(item)))] = (
                None  # in the one spelling that peers are known by
            )
        except RemoteProtocolError as error:
            which = f" (not '{item[:64]}')" if len(value) > 1 else ""
            raise ValueError(
                f"must be a whole peer id{which}, as 12D3KooW…; 'sparkle status' on that node shows it"
            ) from error
    return tuple(found)


def _api(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("must be HOST:PORT in quotes")
    parse_host_port(value)
    return value


def _slots(value: Any) -> int:
    try:
        return _count(value, 1, MAX_SLOTS, "a whole number")
    except ValueError as error:
        raise ValueError(f"{error} (to compute nothing, use work = false)") from error


def _count(value: Any, least: int, most: int, what: str) -> int:
    if isinstance(value, str) and value.strip().isdecimal() and len(value) < 10:
        value = int(value)
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"must be {what} from {least} to {most}")
    return value


def _memory_mb(value: Any) -> int:
    return _count(value, MIN_MEMORY_MB, MAX_MEMORY_MB, "a whole number of MiB")


def _blobs_mb(value: Any) -> int:
    return _count(value, MIN_BLOBS_MB, MAX_BLOBS_MB, "a whole number of MiB")


def _bulk_port(value: Any) -> int:
    return _count(value, 0, 65535, "a port (0: any free one)")


def _switch(value: Any) -> bool:
    if isinstance(value, str):
        value = _WORDS.get(value.strip().lower())
    if type(value) is not bool:
        raise ValueError("must be true or false")
    return value


def _log_level(value: Any) -> str:
    if not isinstance(value, str) or value.lower() not in LOG_LEVELS:
        near = difflib.get_close_matches(str(value).lower(), LOG_LEVELS, n=1)
        raise ValueError(f"must be one of {', '.join(LOG_LEVELS)}" + (f" ({near[0]}?)" if near else ""))
    return value.lower()


_CHECKS: dict[str, Callable[[Any], Any]] = {
    "net": _net,
    "listen": _listen,
    "bootstrap": _bootstrap,
    "network_key": _network_key,
    "genesis": _genesis,
    "trusted": _trusted,
    "api": _api,
    "slots": _slots,
    "memory_mb": _memory_mb,
    "blobs_mb": _blobs_mb,
    "bulk_port": _bulk_port,
    "work": _switch,
    "bootstrap_only": _switch,
    "mdns": _switch,
    "log_level": _log_level,
}
if set(_CHECKS) != {field.name for field in fields(NodeConfig)} - {"home"}:
    raise AssertionError("every field of NodeConfig needs its check")


def _checked(key: str, value: Any, where: str) -> Any:
    try:
        return _CHECKS[key](value)
    except ValueError as error:
        shown = " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        raise ConfigError(f"{where} is '{shown[:120]}', but {error}") from error


def _known(key: str, where: str) -> str:
    if key in _CHECKS:
        return key
    near = difflib.get_close_matches(key, _CHECKS, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"the keys are {', '.join(_CHECKS)}"
    raise ConfigError(f"{where}there is no setting '{key}'; {hint}")


def _field_of_variable(variable: str) -> str | None:
    """The field that a variable sets; other tools may have their own variables, but a near miss is a slip."""
    if not variable.startswith("SPARKLE_") or variable == "SPARKLE_HOME":
        return None
    field = variable.removeprefix("SPARKLE_").lower()
    if field in _CHECKS and variable.isupper():
        return field
    near = difflib.get_close_matches(field, _CHECKS, n=1, cutoff=0.75)
    if near:
        raise ConfigError(f"the variable {variable} is unknown; did you mean SPARKLE_{near[0].upper()}?")
    return None


def _flag(key: str, value: Any) -> str:
    name = {"trusted": "trust"}.get(key, key.replace("_", "-"))
    return f"--no-{name}" if value is False else f"--{name}"


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except FileNotFoundError:
        return {}
    except NotADirectoryError:
        return {}  # HomeDir.open says what is wrong with the directory
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text; save it as such") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {str(error)[:120]}") from error
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from error
