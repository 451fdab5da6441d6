"""What can be checked without a running node: directory, key, disk, databases, ports, drivers."""

import asyncio
import ctypes.util
import errno
import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

from sparkle_ledger.genesis import GenesisRecord
from sparkle_p2p.config import NodeConfig, load_config
from sparkle_p2p.home import KEY_FILE
from sparkle_p2p.net.addresses import split_listen
from sparkle_p2p.net.reach import why_unanswered
from sparkle_p2p.node.room import check_disk, check_memory
from sparkle_p2p.node.store.schema import damage
from sparkle_p2p.view import Finding, Reason
from sparkle_protocol.errors import ConfigError, LedgerError

NODE_DATABASE, LEDGER_DATABASE = "node.db", "ledger.db"
ICD_FOLDERS = (Path("/etc/OpenCL/vendors"),)  # where drivers are registered (cl_khr_icd)


def check_machine(home: Path, *, running: bool) -> Iterator[Finding]:
    """Findings about this machine and the home directory; what a running node says itself is left out."""
    directory = check_home(home)
    yield directory
    if directory.level == "fail":
        return
    if home.exists():
        yield check_key(home / KEY_FILE)
    try:
        config = load_config(home, {}, os.environ)
    except ConfigError as error:
        said = f"{str(error)[0].upper()}{str(error)[1:]}."
        yield Finding(
            "configuration", "fail", Reason("bad_configuration", said), "Correct it; the node will not start."
        )
        return
    yield check_database(home / NODE_DATABASE)
    yield check_ledger(home / LEDGER_DATABASE, None if running else config.record)
    if not running:  # with its flags a running node may do otherwise than the file says
        yield check_disk(home, config)
        yield check_memory(config, psutil.virtual_memory().total)
        yield from (check_port(address) for address in config.listen)
        yield from asyncio.run(_bootstraps(config))
    yield check_opencl()


def check_home(home: Path) -> Finding:
    """The directory is ours, and can be written."""
    place = next(folder for folder in (home, *home.parents) if folder.exists())
    fix = "Correct its owner or permissions, or choose another directory with --home."
    try:
        status = place.stat()
        if not place.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if place == home and status.st_uid != os.geteuid():
            said = f"{home} belongs to another user."
            return Finding("home", "fail", Reason("home_of_another", said), fix)
        if place == home and status.st_mode & stat.S_IWOTH:
            reason = Reason("home_open", f"Everybody may write into {home}.")
            return Finding("home", "fail", reason, f"Run 'chmod 700 {home}'.")
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        said = f"{place} cannot be written: {(error.strerror or str(error)).lower()}."
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            fix = "Free some space there, or choose another directory with --home."
        return Finding("home", "fail", Reason("home_unwritable", said), fix)
    what = "can be written" if place == home else "does not exist yet; it can be made"
    return Finding("home", "ok", Reason("home_writable", f"{home} {what}."))


def check_key(path: Path) -> Finding:
    """Nobody else can read the key."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return Finding("key", "ok", Reason("no_key", "There is no key yet; the first start makes one."))
    except OSError as error:
        said = f"{path} cannot be looked at: {(error.strerror or str(error)).lower()}."
        return Finding("key", "fail", Reason("key_unreadable", said), "Correct the permissions.")
    if status.st_uid != os.geteuid():
        said = f"{path} belongs to another user; a node only uses its own key."
        return Finding("key", "fail", Reason("key_of_another", said), "Run this as the node's user.")
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        return Finding("key", "fail", Reason("key_open", f"Others may read {path}."), f"Run 'chmod 600 {path}'.")
    return Finding("key", "ok", Reason("key_private", "Only you can read the key."))


def check_database(path: Path) -> Finding:
    """The node's database is whole."""
    if not path.exists():
        return Finding(
            "database", "ok", Reason("no_database", "There is no database yet; the first start makes one.")
        )
    found = damage(path)
    if found is not None:
        fix = "Stop the node and put back a backup, or move the file away: jobs that are kept in it are lost then."
        return Finding("database", "fail", Reason("database_damaged", f"{path} is damaged: {found}."), fix)
    return Finding("database", "ok", Reason("database_whole", f"{path.name} is whole."))


def check_ledger(path: Path, genesis: GenesisRecord | None) -> Finding:
    """The ledger is whole, and of this network with this genesis record if one is named."""
    if not path.exists():
        return Finding("ledger", "ok", Reason("no_ledger", "There is no ledger yet; the first start makes one."))
    from sparkle_ledger import store
    from sparkle_ledger.store.schema import open_ledger

    try:
        db = open_ledger(path, None, readonly=True)
        try:
            store.check(db)
            entries, owner, used = store.count(db), store.genesis_of(db), store.holds_anything(db)
        finally:
            db.close()
    except (ConfigError, LedgerError) as error:
        fix = "Stop the node and put back a backup, or move the file away: the node then asks its witnesses."
        said = f"{str(error)[0].upper()}{str(error)[1:]}."
        return Finding("ledger", "fail", Reason("ledger_damaged", said), fix)
    if genesis is not None and genesis.network != owner.network:
        said = f"{path.name} is of network '{owner.network}', and the configuration names '{genesis.network}'."
        fix = "Start the node with the --net that it had, or choose another directory with --home."
        return Finding("ledger", "warn", Reason("ledger_of_another_network", said, {"network": owner.network}), fix)
    if genesis is not None and genesis.raw() != owner.raw() and used:
        said = (
            f"{path.name} was judged by the genesis record {owner.fingerprint}, "
            f"and the configuration has {genesis.fingerprint}."
        )
        fix = "Start the node with the --genesis that it had, or choose another directory with --home."
        numbers = {"genesis": owner.fingerprint}
        return Finding("ledger", "warn", Reason("ledger_of_another_genesis", said, numbers), fix)
    said = f"{path.name} is whole: {entries} {'entry' if entries == 1 else 'entries'}."
    return Finding("ledger", "ok", Reason("ledger_whole", said, {"entries": entries}))


def check_port(address: str) -> Finding:
    """A node could listen there."""
    host, port = split_listen(address)
    numbers = {"address": address}
    if port == 0:
        reason = Reason("port_any", f"{address}: any free port.", numbers)
        return Finding("port", "ok", reason)
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            why = "another program uses it" if error.errno == errno.EADDRINUSE else (error.strerror or "?").lower()
            fix = "Choose another port with --listen, or stop the program that has it."
            return Finding("port", "fail", Reason("port_taken", f"{address} is not free: {why}.", numbers), fix)
    return Finding("port", "ok", Reason("port_free", f"{address} is free.", numbers))


async def _bootstraps(config: NodeConfig) -> list[Finding]:
    answers = await asyncio.gather(*(why_unanswered(address) for address in config.bootstrap))
    return [check_bootstrap(address, why) for address, why in zip(config.bootstrap, answers, strict=True)]


def check_bootstrap(address: str, unanswered: str | None) -> Finding:
    """A configured bootstrap peer's port answers."""
    if unanswered is None:
        return Finding("bootstrap", "ok", Reason("bootstrap_answers", f"{address} answers.", {"address": address}))
    fix = "See that the node there runs and that its port is let through, or give another with --bootstrap."
    said = f"The bootstrap peer at {address} does not answer: {unanswered}."
    return Finding("bootstrap", "fail", Reason("bootstrap_silent", said, {"address": address}), fix)


def check_opencl() -> Finding:
    """Drivers for graphics cards, as far as their files tell; kernels run on processors only as yet."""
    library = ctypes.util.find_library("OpenCL")
    drivers = sorted(file.stem for folder in ICD_FOLDERS if folder.is_dir() for file in folder.glob("*.icd"))
    numbers = {"library": library, "drivers": len(drivers)}
    if library is None or not drivers:
        said = "No OpenCL driver is installed. Nothing is lost: this version computes on processors only."
        return Finding("opencl", "ok", Reason("opencl_none", said, numbers))
    said = f"OpenCL drivers are installed: {', '.join(drivers[:8])}. This version computes on processors only."
    return Finding("opencl", "ok", Reason("opencl_found", said, numbers))
