"""A faster build of what a run spends its time in: mypyc makes C of the cores and of the simulator's inner parts.

The code is the same, so runs are the same to the byte; they take two thirds of the time. A build lies in the user's
cache under a name that is a digest of all sources and of the interpreter, so a build of other sources is never used:
after a change the plain code runs until somebody compiles again. It needs mypy, setuptools and a C compiler (the
extra ``compiled``).
"""

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from time import monotonic

import sparkle_protocol
import sparkle_sim
from sparkle_protocol.errors import ConfigError, SparkleError

BUILD_S = 3600.0  # a compiler that takes longer hangs
TOLD_S = 1.0  # between two words on how long it takes already
WANTED = "SPARKLE_SIM_COMPILED"  # "no": do without; what else it holds names the build that this process runs
PACKAGES = (Path(sparkle_protocol.__file__).parent, Path(sparkle_sim.__file__).parent)
# Left as they are: structs of msgspec, which mypyc does not know, and what a study replaces by classes of its own.
PLAIN = {"sparkle_protocol.work.sealed", "sparkle_protocol.work.rules"}
PARTS = (
    "sparkle_protocol.membership", "sparkle_protocol.work.*",
    *(f"sparkle_sim.{name}" for name in (
        "adversaries.hostile_peer", "disk", "draws", "gossip", "kernel", "lanes", "lookups", "network", "peer",
        "requests", "routing", "signing", "tables", "trace", "world",
    )),
)  # fmt: skip

OnWait = Callable[[float], None]


def sources() -> list[Path]:
    """All files of the packages, in an order that is the same everywhere."""
    return [file for package in PACKAGES for file in sorted(package.rglob("*.py"))]


def fingerprint() -> str:
    """What a build is called: changes with any source, and with the interpreter."""
    summed = blake2b(str(sysconfig.get_config_var("EXT_SUFFIX")).encode(), digest_size=12)
    for file in sources():
        data = file.read_bytes()
        summed.update(f"\n{file.name} {len(data)}\n".encode() + data)
    return summed.hexdigest()


def folder(environment: Mapping[str, str]) -> Path:
    """Where the build of these sources lies, or would."""
    cache = environment.get("XDG_CACHE_HOME") or str(Path(environment.get("HOME", "~")).expanduser() / ".cache")
    return Path(cache) / "sparkle" / f"compiled-{fingerprint()}"


def in_use() -> bool:
    """Whether this process runs a build."""
    return os.environ.get(WANTED, "") == str(PACKAGES[0].parent)


def enter(arguments: Sequence[str]) -> None:
    """Replace this process by one that runs the build, if there is one of these sources and nobody forbids it."""
    if WANTED in os.environ:
        return
    built = folder(os.environ)
    if built.is_dir():
        command = [sys.executable, "-m", "sparkle_sim.cli.main", *arguments]
        os.execve(command[0], command, environment_for(built))  # noqa: S606 - no shell is wanted


def environment_for(built: Path) -> dict[str, str]:
    """Variables of a process that is to run a build."""
    path = os.pathsep.join([str(built), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path, WANTED: str(built)}


def build(told: OnWait, parts: Sequence[str] = PARTS) -> Path:
    """Compile these parts, which takes minutes, and return where the build lies.

    Args:
        told: is called every now and then with the seconds that have passed.
        parts: modules; ``*`` stands for all of a package.

    Raises:
        ConfigError: something that it needs is missing here.
        SparkleError: it does not compile.
    """
    _look_for_tools()
    built = folder(os.environ)
    if built.is_dir():
        return built
    making = built.with_name(f"{built.name}-{os.getpid()}")
    try:
        for package in PACKAGES:
            ignored = shutil.ignore_patterns("__pycache__", "*.so")
            shutil.copytree(package, making / package.name, ignore=ignored, dirs_exist_ok=True)
        _compile(making, _chosen(making, parts), told)
        making.replace(built)
    except OSError as error:
        raise ConfigError(f"nothing can be built in '{built.parent}': {error}; set XDG_CACHE_HOME") from error
    finally:
        shutil.rmtree(making, ignore_errors=True)
    _forget_others(built)
    return built


def _look_for_tools() -> None:
    """Raises ConfigError."""
    for module in ("mypyc", "setuptools"):
        if subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True, check=False).returncode:
            raise ConfigError(f"{module} is not installed; install the project with its extra 'compiled'")
    compiler = str(sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(os.environ.get("CC") or compiler) is None:
        raise ConfigError("there is no C compiler; install one, such as the package gcc")


def _chosen(folder_: Path, parts: Sequence[str]) -> list[str]:
    """The files of these modules."""
    plain = {_file_of(name) for name in PLAIN}
    found = [str(file.relative_to(folder_)) for part in parts for file in sorted(folder_.glob(_file_of(part)))]
    return [name for name in found if name not in plain and not name.endswith("__init__.py")]


def _file_of(module: str) -> str:
    return module.replace(".", "/") + ".py"


def _compile(folder_: Path, files: Sequence[str], told: OnWait) -> None:
    """Raises SparkleError."""
    log = folder_ / "build.log"
    around = os.pathsep.join([*(str(package.parent) for package in PACKAGES), *filter(None, sys.path)])
    environment = {**os.environ, "MYPYPATH": "", "PYTHONPATH": around, "MYPYC_OPT_LEVEL": "2"}
    command = [sys.executable, "-m", "mypyc", "--config-file=", "--ignore-missing-imports", *files]
    began = monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=folder_, env=environment, stdout=output, stderr=subprocess.STDOUT)
        try:
            while True:
                try:
                    code = process.wait(TOLD_S)
                    break
                except subprocess.TimeoutExpired:
                    told(monotonic() - began)
                if monotonic() - began > BUILD_S:
                    raise SparkleError(f"compiling took longer than {BUILD_S:.0f} s; try again on a free machine")
        finally:
            process.kill()
            process.wait()
    if code:
        last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
        raise SparkleError(f"the build failed, the plain code still runs; the compiler's last words: {''.join(last)}")
    shutil.rmtree(folder_ / "build", ignore_errors=True)


def _forget_others(built: Path) -> None:
    """Builds of other sources are of no use any more."""
    for other in built.parent.glob("compiled-*"):
        if other != built:
            shutil.rmtree(other, ignore_errors=True)
