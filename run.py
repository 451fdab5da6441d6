#!/usr/bin/env python3
"""The way in: ``python3 run.py demo`` sets up everything that Sparkle needs, once, and runs it.

Needs only Python's standard library. What it makes stays inside this folder: ``.venv`` (the environment) and
``.sparkle-env`` (uv, if the machine has none, and the log). A stamp in ``.venv`` records what was installed
there; while it matches, nothing is checked again and no network is used. A ``.venv`` without a stamp is a
set-up that was interrupted: it is removed and made anew, mostly from uv's cache.
"""

from __future__ import annotations  # so that an older Python gets as far as saying which one is needed

import configparser
import contextlib
import fcntl
import hashlib
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / ".sparkle-stamp"
PRIVATE = ROOT / ".sparkle-env"
LOG = PRIVATE / "setup.log"
LOCK = ROOT / "requirements" / "dev.txt"
OVERRIDES = ROOT / "requirements" / "overrides.txt"

OLDEST, NEWEST = (3, 11), (3, 13)  # pyproject.toml: requires-python
UV_AT_LEAST = (0, 8)  # the first that we tested `pip sync` of a universal lock with
STEP_LIMIT_S = 1800.0  # a slow line needs minutes for 180 MB; a hung one must end some day

USAGE = """usage: python3 run.py COMMAND [ARGUMENTS...]

  demo     a small network on this machine does a real job      (arguments: sparkle demo --help)
  node     runs a node                                          (arguments: sparkle-node --help)
  test     runs the tests                                       (arguments: pytest's)
  check    format, lint, types and import rules
  bench    measures, writes bench/results.json; --check fails on a missed bar
  record   measures 50 real hosts, writes simulations/recordings (arguments: --hosts N --json)
  soak     the long test
  setup    only sets up the environment
  uv       runs uv with the user's settings for pip             (arguments: uv's)
  lock     compiles requirements/*.txt anew from pyproject.toml
  clean    removes everything that this program made
"""


class SetupError(Exception):
    """A step of the set-up failed; the message is one sentence that says what to do."""


def main(arguments: list[str]) -> int:
    """Runs one command and returns the exit code for the shell."""
    name, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    if name in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0
    if name not in COMMANDS:
        print(USAGE, end="", file=sys.stderr)
        return 2
    try:
        return COMMANDS[name](rest)
    except SetupError as error:
        print(f"sparkle: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nsparkle: interrupted; run the same command again to go on", file=sys.stderr)
        return 130


# --- commands -----------------------------------------------------------------------------------------------


def demo(rest: list[str]) -> int:
    """Replaces this process by ``sparkle demo``."""
    return become("sparkle", "demo", *rest)


def node(rest: list[str]) -> int:
    """Replaces this process by ``sparkle-node``."""
    return become("sparkle-node", *rest)


def test(rest: list[str]) -> int:
    """Runs every kind of test, or those that pytest's arguments choose."""
    ensure_environment()
    foreign_peers = ROOT / "tests" / "interop" / "setup.py"  # packages of peers in other languages
    if foreign_peers.exists() and call(str(PYTHON), str(foreign_peers)) != 0:
        say("tests/interop/setup.py failed, so the tests against other implementations will fail")
    return call(str(PYTHON), "-m", "pytest", *rest)


def check(rest: list[str]) -> int:
    """Runs every static check, even after one failed, and says which failed."""
    ensure_environment()
    tools = {
        "ruff check": ["ruff", "check", "."],
        "ruff format": ["ruff", "format", "--check", "."],
        "mypy": ["mypy"],
        "mypy run.py": ["mypy", "run.py"],
        "import rules": ["lint-imports", "--no-logo"],
    }
    failed = []
    for name, (program, *arguments) in tools.items():
        say(name)
        if call(str(VENV / "bin" / program), *arguments) != 0:
            failed.append(name)
    say("failed: " + ", ".join(failed) if failed else "all checks passed")
    return 1 if failed else 0


def bench(rest: list[str]) -> int:
    """Runs the benchmarks."""
    return script("tests/bench/run.py", rest)


def record(rest: list[str]) -> int:
    """Records what real hosts cost and how they fail, for the simulator."""
    return script("tests/bench/record_hosts.py", rest)


def soak(rest: list[str]) -> int:
    """Runs the long test."""
    return script("tests/soak/run.py", rest)


def setup(rest: list[str]) -> int:
    """Only makes sure that the environment stands."""
    ensure_environment()
    say(f"ready: {PYTHON.relative_to(ROOT)}")
    return 0


def run_uv(rest: list[str]) -> int:
    """Replaces this process by the uv that set-up uses, with the same settings."""
    PRIVATE.mkdir(exist_ok=True)
    uv = find_uv()
    os.execve(uv, [uv, *rest], {**os.environ, **uv_settings()})


def lock(rest: list[str]) -> int:
    """Compiles all locks anew; with ``--upgrade`` to the newest versions that pyproject.toml allows."""
    PRIVATE.mkdir(exist_ok=True)
    uv = find_uv()
    both = [
        *(uv, "pip", "compile", "pyproject.toml", "--universal", "--python-version", f"3.{OLDEST[1]}"),
        *("--overrides", "requirements/overrides.txt", "--generate-hashes", "--no-header", "--quiet"),
        *("--no-emit-index-url", "--no-emit-find-links", *rest),
    ]
    like_run = ("--constraints", "requirements/run.txt")
    for name, options in (
        ("run", ()),
        ("onnx", ("--extra", "onnx", *like_run)),
        ("dev", ("--group", "dev", "--extra", "sim", "--extra", "compiled", *like_run)),
    ):
        output = f"requirements/{name}.txt"
        step(f"compiling {output}", [*both, *options, "--output-file", output], "See the log")
    alone = [word for word in both if word != "pyproject.toml"]  # without what a node needs
    for group in ("sim", "bench"):  # the simulator; what we are measured against
        output, like = f"requirements/{group}.txt", like_run if group == "sim" else ()
        step(f"compiling {output}", [*alone, "--group", group, *like, "--output-file", output], "See the log")
    return 0


def clean(rest: list[str]) -> int:
    """Removes what this program made, and the tools' caches."""
    caches = [".mypy_cache", ".ruff_cache", ".pytest_cache", ".import_linter_cache", ".hypothesis"]
    made = [*caches, "dist", "build", "tests/interop/js/node_modules"]
    for path in [VENV, PRIVATE, *(ROOT / name for name in made)]:
        shutil.rmtree(path, ignore_errors=True)
    return 0


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "demo": demo,
    "node": node,
    "test": test,
    "check": check,
    "bench": bench,
    "record": record,
    "soak": soak,
    "setup": setup,
    "uv": run_uv,
    "lock": lock,
    "clean": clean,
}


def script(path: str, rest: list[str]) -> int:
    """Runs one of the repository's own scripts in the environment."""
    if not (ROOT / path).exists():
        raise SetupError(f"there is no {path} in this version")
    ensure_environment()
    return call(str(PYTHON), str(ROOT / path), *rest)


def call(*command: str) -> int:
    """Runs a command here with the environment's programs first on PATH; returns its exit code."""
    process = subprocess.Popen(command, cwd=str(ROOT), env=environment())
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:  # the terminal sent it to the child as well, which decides how to end
            continue


def become(program: str, *arguments: str) -> int:
    """Replaces this process, so that signals and the exit code are the program's own."""
    ensure_environment()
    path = VENV / "bin" / program
    sys.stdout.flush()
    os.execve(str(path), [str(path), *arguments], environment())


def environment() -> dict[str, str]:
    """This process's environment variables, with ``.venv`` active and no other Python's modules mixed in."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    path = os.pathsep.join([str(VENV / "bin"), os.environ.get("PATH", os.defpath)])
    return {**kept, "VIRTUAL_ENV": str(VENV), "PATH": path}


# --- set-up -------------------------------------------------------------------------------------------------


def ensure_environment() -> None:
    """Returns once ``.venv`` holds exactly what the lock names; at once if it already does."""
    if stamp_is_current():
        return
    PRIVATE.mkdir(exist_ok=True)
    with only_one_setup():
        if stamp_is_current():  # another set-up has just finished
            return
        started = time.monotonic()
        say("setting up (once; needs the network)")
        LOG.write_text("")
        uv = find_uv()
        settings = uv_settings()
        if not STAMP.exists() or not os.access(PYTHON, os.X_OK):
            make_venv(uv, settings)
        STAMP.unlink(missing_ok=True)  # from here to the last step the environment is half-made
        install(uv, settings)
        STAMP.write_text(fingerprint())
        say(f"set up in {time.monotonic() - started:.0f} s")


def stamp_is_current() -> bool:
    """Whether ``.venv`` was completed from exactly these inputs."""
    try:
        return STAMP.read_text() == fingerprint() and os.access(PYTHON, os.X_OK)
    except OSError:
        return False


def fingerprint() -> str:
    """One hash of everything that the environment is made from."""
    digest = hashlib.sha256()
    # The folder and the interpreter are in it since scripts and links inside .venv hold absolute paths.
    for text in (str(ROOT), os.path.realpath(PYTHON), (VENV / "pyvenv.cfg").read_text()):
        digest.update(text.encode() + b"\0")
    for path in (LOCK, ROOT / "pyproject.toml", ROOT / "protocol/sparkle_protocol/version.py"):
        digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()


@contextlib.contextmanager
def only_one_setup() -> Iterator[None]:
    """Holds the set-up lock; the system frees it if this process dies."""
    with (PRIVATE / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            say("waiting for another set-up in this folder")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def make_venv(uv: str, settings: dict[str, str]) -> None:
    """Makes an empty ``.venv`` with a supported Python, this one if it is."""
    if VENV.exists():
        say("removing a .venv that was not finished")
        shutil.rmtree(VENV)
    this_one = OLDEST <= sys.version_info[:2] <= NEWEST and sys.implementation.name == "cpython"
    wanted = sys.executable if this_one else f">=3.{OLDEST[1]},<3.{NEWEST[1] + 1}"
    step(
        "making .venv",
        [uv, "venv", "--no-project", "--python", wanted, str(VENV)],
        f"Sparkle needs Python 3.{OLDEST[1]} to 3.{NEWEST[1]}: install one, for example with "
        f"'apt-get install python3.{OLDEST[1]}', and run this again with it",
        settings,
    )


def install(uv: str, settings: dict[str, str]) -> None:
    """Makes ``.venv`` hold the lock's packages and this folder, editable."""
    count = len(set(re.findall(r"^([\w.-]+)==", LOCK.read_text(), re.MULTILINE)))
    sync = [uv, "pip", "sync", "--python", str(PYTHON), "--compile-bytecode", str(LOCK)]
    advice = "Check the network (behind a company's proxy: pip's or uv's settings for it) and run this again"
    try:
        step(f"installing {count} packages", sync, advice, settings)
    except SetupError as failed:
        try:
            step("trying what earlier set-ups left in uv's cache", [*sync, "--offline"], "", settings)
        except SetupError:
            raise failed from None
    # The build backend comes from the lock, so this step needs no network.
    step(
        "installing Sparkle itself",
        [
            *(
                uv,
                "pip",
                "install",
                "--python",
                str(PYTHON),
                "--no-deps",
                "--no-build-isolation",
                "--offline",
            ),
            *("--editable", str(ROOT)),
        ],
        "Run 'python3 run.py clean' and try again",
        settings,
    )


# --- uv -----------------------------------------------------------------------------------------------------


def find_uv() -> str:
    """A uv that is new enough: the machine's, our private one, or else one that we fetch now."""
    ours = PRIVATE / "uv" / "bin" / "uv"
    for candidate in (shutil.which("uv"), str(ours)):
        if candidate and uv_version(candidate) >= UV_AT_LEAST:
            return candidate
    for pip in pips():
        with contextlib.suppress(SetupError):
            fetch_uv(pip)
            return str(ours)
    raise SetupError(
        "could not get uv, which installs the packages: check the network and pip's settings, "
        f"or install uv yourself so that 'uv --version' works, and run this again. {log_hint()}"
    )


def uv_version(program: str) -> tuple[int, ...]:
    """Its version, or () if it does not run."""
    try:
        answer = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    found = re.match(r"uv (\d+)\.(\d+)", answer.stdout)
    return tuple(map(int, found.groups())) if found else ()


def pips() -> Iterator[list[str]]:
    """Ways to run pip on this machine, the likeliest first; the last resort fetches one."""
    if importlib.util.find_spec("pip"):
        yield [sys.executable, "-m", "pip"]
    bundled = importlib.util.find_spec("ensurepip")
    folders = [Path(bundled.origin).parent / "_bundled"] if bundled and bundled.origin else []
    for folder in [*folders, Path("/usr/share/python-wheels")]:
        for wheel in sorted(folder.glob("pip-*.whl"), reverse=True):
            yield [sys.executable, str(wheel / "pip")]
    if shutil.which("apt-get") and shutil.which("dpkg-deb"):
        with contextlib.suppress(SetupError):
            yield [sys.executable, str(debian_pip() / "pip")]


def fetch_uv(pip: list[str]) -> None:
    """Puts uv into ``.sparkle-env/uv`` with this pip; whole or not at all."""
    target, part = PRIVATE / "uv", PRIVATE / "uv.part"
    shutil.rmtree(part, ignore_errors=True)
    options = ["--quiet", "--disable-pip-version-check", "--no-input", "--only-binary", ":all:"]
    # --target touches nothing of the system's Python, so it is allowed where pip may not manage it (PEP 668).
    step(
        "getting uv",
        [*pip, "install", *options, "--target", str(part), "uv>=" + ".".join(map(str, UV_AT_LEAST))],
        "Check the network and pip's settings",
        {"PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0", "PIP_ROOT_USER_ACTION": "ignore"},
    )
    shutil.rmtree(target, ignore_errors=True)
    part.rename(target)
    shutil.rmtree(PRIVATE / "debian", ignore_errors=True)  # package lists, if pip had to be fetched


def debian_pip() -> Path:
    """Unpacks Debian's pip wheel privately: no root, and the system's package state stays as it is."""
    folder = PRIVATE / "debian"
    shutil.rmtree(folder, ignore_errors=True)
    for part in ("lists/partial", "cache/archives/partial"):
        (folder / part).mkdir(parents=True)
    private = [f"-oDir::State::Lists={folder}/lists", f"-oDir::Cache={folder}/cache", "-oAPT::Sandbox::User="]
    fetch = ["download", "python3-pip-whl"]
    try:
        step("getting pip from the system's packages", ["apt-get", *fetch], "", cwd=folder)
    except SetupError:  # a fresh machine has no package lists yet
        step("reading the system's package lists", ["apt-get", *private, "update"], "", cwd=folder)
        step("getting pip from the system's packages", ["apt-get", *private, *fetch], "", cwd=folder)
    for package in folder.glob("*.deb"):
        step("unpacking pip", ["dpkg-deb", "-x", str(package), str(folder)], "")
    wheels = sorted(folder.glob("usr/share/python-wheels/pip-*.whl"))
    if not wheels:
        raise SetupError("the system's package python3-pip-whl holds no pip")
    return wheels[-1]


# --- the user's settings ------------------------------------------------------------------------------------


def uv_settings() -> dict[str, str]:
    """Settings for uv that make it honour what the user told pip: mirrors, proxies and certificates.

    uv does not read pip's settings. Whatever the user told uv itself wins.
    """
    names = {
        "index-url": "UV_DEFAULT_INDEX",
        "extra-index-url": "UV_INDEX",
        "find-links": "UV_FIND_LINKS",
        "no-index": "UV_NO_INDEX",
        "cert": "SSL_CERT_FILE",
        "proxy": "ALL_PROXY",
        "trusted-host": "UV_INSECURE_HOST",
    }
    told = pip_settings()
    settings = {ours: " ".join(filter(reachable, told.get(theirs, "").split())) for theirs, ours in names.items()}
    settings["UV_FIND_LINKS"] = settings.get("UV_FIND_LINKS", "").replace(" ", ",")
    if settings.get("UV_INDEX"):
        settings["UV_INDEX_STRATEGY"] = "unsafe-best-match"  # as pip does; the lock's hashes make it safe
    if any(Path("/etc/ssl/certs").glob("*")):  # a company's own certificate authority is installed there
        settings["UV_SYSTEM_CERTS"] = settings["UV_NATIVE_TLS"] = "true"  # the newer and the older name
    return {name: value for name, value in settings.items() if value and name not in os.environ}


def reachable(setting: str) -> bool:
    """Whether uv can use it: pip passes over folders that are gone (find-links, local indexes), uv gives up."""
    path = setting[len("file://") :] if setting.startswith("file://") else setting
    return Path(path).exists() if path.startswith("/") else True


def pip_settings() -> dict[str, str]:
    """What pip would use: its configuration files, then its environment variables."""
    home = Path.home()
    config_home = Path(os.environ.get("XDG_CONFIG_HOME", home / ".config"))
    files = [Path("/etc/xdg/pip/pip.conf"), Path("/etc/pip.conf"), home / ".pip/pip.conf"]
    files += [config_home / "pip/pip.conf", Path(sys.prefix, "pip.conf")]
    parser = configparser.RawConfigParser()
    with contextlib.suppress(configparser.Error, OSError, UnicodeDecodeError):
        parser.read([*files, os.environ.get("PIP_CONFIG_FILE", os.devnull)])
    told: dict[str, str] = {}
    for section in ("global", "install"):
        told.update(parser.items(section) if parser.has_section(section) else ())
    told.update({k[4:].lower().replace("_", "-"): v for k, v in os.environ.items() if k.startswith("PIP_")})
    return told


# --- steps --------------------------------------------------------------------------------------------------


def step(
    doing: str,
    command: list[str],
    fix: str,
    settings: dict[str, str] | None = None,
    cwd: Path = ROOT,
) -> None:
    """Runs one command of the set-up; its output goes to the log, the user sees what it does and how long."""
    started = time.monotonic()
    live = sys.stderr.isatty()
    if not live:
        say(f"{doing} ...")
    with LOG.open("ab") as log:
        log.write(f"\n$ {' '.join(map(shlex.quote, command))}\n".encode())
        log.flush()
        try:
            process = subprocess.Popen(
                command,
                cwd=str(cwd),
                env={**os.environ, **(settings or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        except OSError as error:
            raise SetupError(f"{doing} failed: {error}. {fix}. {log_hint()}") from error

        def tick() -> None:
            if live:
                show(f"{doing}  {time.monotonic() - started:.0f} s", end="")

        code = watch(process, tick)
    if live:
        show(f"{doing}  {time.monotonic() - started:.1f} s{'' if code == 0 else '  failed'}")
    if code != 0:
        raise SetupError(f"{doing} failed. {fix}. {log_hint()}")


def watch(process: subprocess.Popen[bytes], tick: Callable[[], object]) -> int:
    """Waits for a process, calling ``tick`` meanwhile; ends it if it takes too long or we are stopped."""
    end = time.monotonic() + STEP_LIMIT_S
    try:
        while time.monotonic() < end:
            tick()
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(timeout=0.5)
        raise SetupError(f"a step took over {STEP_LIMIT_S / 60:.0f} minutes and was ended. {log_hint()}")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def say(text: str) -> None:
    """One line for the user; stdout belongs to the command that is run."""
    print(f"sparkle: {text}", file=sys.stderr, flush=True)


def show(text: str, end: str = "\n") -> None:
    """Overwrites the current line of a terminal."""
    print(f"\r\033[Ksparkle: {text}", end=end, file=sys.stderr, flush=True)


def log_hint() -> str:
    """Where to look further."""
    return f"Details: {LOG}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
