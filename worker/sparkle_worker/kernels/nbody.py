"""Bodies that attract each other, advanced exactly alike on every machine.

The force is softened gravity with G = 1, the integrator leapfrog (kick, drift, kick), which is symplectic: the energy
oscillates but does not drift. Everything is float64 and made of ``+ - × ÷ √``, each correctly rounded by IEEE 754
hardware, in an order that ``worker/README.md`` fixes: elements are computed apart, and the sum over bodies is taken
one body after the other, never by a reduction whose order a library may choose. So results agree to the last bit and
the kernel is of the *exact* class: two results are compared by their hashes.

The state is all there is to continue from, so a checkpoint is the state and how far it has come.
"""

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from sparkle_protocol.errors import ConfigError, LocalProtocolError, VerificationError
from sparkle_worker.kernels.arrays import (
    MAX_TILES,
    ArrayType,
    check_arrays,
    check_inputs,
    shape_text,
    supported,
    tile,
)
from sparkle_worker.kernels.base import Cost, Params, Progress, Verification
from sparkle_worker.kernels.parameters import check_names, decimal_text, whole_number
from sparkle_worker.kernels.splitting import check_unit, cut

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

COLUMNS = 7  # mass, position, velocity
MAX_BODIES = 2**15
MAX_SYSTEMS = 2**20
MAX_STEPS = 10**9
MAX_SEED = 2**63 - 1
FLOPS = 23  # of one pair: 3 differences, 6 for the distance, 6 for its cube (√ counts 3), 8 for the sums
BLOCK_PAIRS = 2**16  # whose terms are computed together
CHECKPOINT_FLOPS = 4 * 10**9  # between two checkpoints: a few seconds

_CHECKPOINT = struct.Struct("<8sQQ")  # format, systems done, steps done of the next
_FORMAT = b"nbody/1\n"


class NBody:
    """``nbody(bodies, systems, steps, dt, softening, seed)``: states of systems of bodies after some steps.

    A state is a float64 array of systems x bodies x 7: mass, position (3), velocity (3). Without the input ``state``
    each system is drawn from the seed and its own number. A unit is a number of whole systems.
    """

    name = "nbody"
    version = 1
    summary = "Moves bodies that attract each other; many systems at once, each of up to 32768 bodies."
    parameters: Mapping[str, str] = MappingProxyType(
        {
            "bodies": "bodies of a system, 1 to 32768 (default 256); follows from 'state' if that is given",
            "systems": "systems that do not touch each other (default 16); follows from 'state' if that is given",
            "steps": "steps of the integrator (default 1000)",
            "dt": "length of a step (default 0.001)",
            "softening": "distance below which attraction weakens (default 0.05)",
            "seed": "whole number that chooses the systems, below 2^63 (default 0)",
        }
    )
    inputs: Mapping[str, str] = MappingProxyType(
        {"state": "float64 array of systems x bodies x 7 (mass, position, velocity), or of one system"}
    )
    optional_inputs: frozenset[str] = frozenset({"state"})
    verification: Verification = "exact"
    cost_law = "23 systems steps bodies²"
    error_law = "0 between machines: every operation is rounded correctly and in a fixed order"
    example = "sparkle submit nbody -p bodies=256 -p systems=16 -p steps=1000 --wait -o state.npy"

    def with_arrays(self, params: Params, arrays: Mapping[str, ArrayType]) -> dict[str, Any]:
        """The user's parameters; ``bodies`` and ``systems`` of the state if it is given, and ``given`` = 1."""
        check_names(self.name, params, self.parameters)
        check_inputs(self, arrays)
        if "state" not in arrays:
            return self.validate({**params, "given": 0})
        state = arrays["state"]
        supported(self.name, "state", state.dtype, ("float64",))
        if len(state.shape) not in (2, 3) or state.shape[-1] != COLUMNS:
            raise ConfigError(
                f"'state' of nbody must be systems x bodies x {COLUMNS} or bodies x {COLUMNS}, "
                f"but its shape is {shape_text(state.shape)}"
            )
        systems, bodies = (1, *state.shape)[-3:-1]
        for name, size in (("systems", systems), ("bodies", bodies)):
            if name in params and whole_number(self.name, params, name, None, 1, MAX_SYSTEMS) != size:
                raise ConfigError(f"'state' of nbody has {size} {name}, so leave out the parameter '{name}'")
        return self.validate({**params, "systems": systems, "bodies": bodies, "given": len(state.shape)})

    def validate(self, params: Params) -> dict[str, Any]:
        """Numbers in range; ``given`` is the number of axes of the state, or 0 without one."""
        check_names(self.name, params, (*self.parameters, "given"))
        clean: dict[str, Any] = {
            "bodies": whole_number(self.name, params, "bodies", 256, 1, MAX_BODIES),
            "systems": whole_number(self.name, params, "systems", 16, 1, MAX_SYSTEMS),
            "steps": whole_number(self.name, params, "steps", 1000, 1, MAX_STEPS),
            "dt": decimal_text(self.name, params, "dt", "0.001", 0, 10**6),
            "softening": decimal_text(self.name, params, "softening", "0.05", 0, 10**6),
            "seed": whole_number(self.name, params, "seed", 0, 0, MAX_SEED),
            "given": whole_number(self.name, params, "given", 0, 0, 3),
        }
        if clean["given"] == 1 or (clean["given"] == 2 and clean["systems"] != 1):
            raise ConfigError("'given' of nbody does not fit its systems")
        if clean["systems"] * clean["bodies"] * COLUMNS >= 2**31:
            raise ConfigError(f"{clean['systems']} systems of {clean['bodies']} bodies are too large for one array")
        return clean

    def default_units(self, params: Params) -> int:
        """One for each system, as far as a job can name the tiles."""
        return min(int(params["systems"]), MAX_TILES)

    def max_units(self, params: Params) -> int:
        """One for each system; with given states as far as a job can name the tiles."""
        return min(int(params["systems"]), MAX_TILES if params["given"] else MAX_SYSTEMS)

    def least_units(self, params: Params, memory_bytes: int) -> int:
        """As many as it takes for the states of one to fit."""
        most = self.max_units(params)
        for units in (1 << power for power in range(21)):
            count = min(units, most)
            needed = self.cost(self.unit(params, count, count - 1)).memory_bytes  # the last is as large as any
            if needed <= memory_bytes:
                return count
            if count == most:
                break
        raise ConfigError(
            f"one system of this nbody job needs {-(-needed >> 20)} MB, "
            f"but no worker allows more than {memory_bytes >> 20} MB; use fewer bodies"
        )

    def unit(self, params: Params, units: int, index: int) -> dict[str, Any]:
        """Systems from the number ``first`` on."""
        check_unit(self.name, units, index, self.max_units(params))
        first, end = cut(0, params["systems"], units, index)
        return {**params, "systems": end - first, "first": first}

    def cost(self, unit: Params) -> Cost:
        """Every pair, both ways, at each step."""
        flops = FLOPS * unit["systems"] * (unit["steps"] + 1) * unit["bodies"] ** 2
        state = 8 * COLUMNS * unit["systems"] * unit["bodies"]
        blocks = 8 * 8 * (BLOCK_PAIRS + unit["bodies"])
        return Cost(float(flops), float(2 * state), 5 * state + blocks + 2**22)  # a checkpoint is made of two copies

    def tiles(self, params: Params, units: int, arrays: "Mapping[str, NDArray[Any]]") -> "Iterator[NDArray[Any]]":
        """The given states, system by system; none without."""
        if not params["given"]:
            return
        state = arrays["state"].reshape(params["systems"], params["bodies"], COLUMNS)
        for index in range(units):
            first, end = cut(0, params["systems"], units, index)
            yield tile(state[first:end], "float64")

    def unit_inputs(self, params: Params, units: int, index: int) -> tuple[int, ...]:
        """A unit's own systems, if they are given."""
        check_unit(self.name, units, index, self.max_units(params))
        return (index,) if params["given"] else ()

    def input_types(self, unit: Params) -> tuple[ArrayType, ...]:
        """The state before."""
        return (self.result_type(unit),) if unit["given"] else ()

    def result_type(self, unit: Params) -> ArrayType:
        """The state after."""
        return ArrayType("float64", (unit["systems"], unit["bodies"], COLUMNS))

    def output_type(self, params: Params) -> ArrayType:
        """States of all systems; of one without its axis if it was given so."""
        whole = (params["systems"], params["bodies"], COLUMNS)
        return ArrayType("float64", whole[1:] if params["given"] == 2 else whole)

    def compute_into(
        self, unit: Params, arrays: "tuple[NDArray[Any], ...]", out: "NDArray[Any]", progress: Progress
    ) -> None:
        """From the beginning."""
        self.resume_into(unit, arrays, out, progress, None, lambda _: None)

    def resume_into(
        self,
        unit: Params,
        arrays: "tuple[NDArray[Any], ...]",
        out: "NDArray[Any]",
        progress: Progress,
        checkpoint: bytes | None,
        save: Callable[[bytes], None],
    ) -> None:
        """System after system; a checkpoint every few seconds."""
        import numpy as np

        clean = self._unit(unit)
        check_arrays(self, clean, arrays, out)
        system, step = 0, 0
        if checkpoint is None:
            out[...] = arrays[0] if arrays else drawn_systems(clean)
        else:
            system, step = _restored(clean, checkpoint, out)
        dt, softening = float(clean["dt"]), float(clean["softening"])
        pause = max(1, CHECKPOINT_FLOPS // (FLOPS * clean["bodies"] ** 2))
        with np.errstate(all="ignore"):
            for place in range(system, clean["systems"]):
                while step < clean["steps"]:
                    count = min(pause, clean["steps"] - step)
                    advance(out[place], count, dt, softening)
                    step += count
                    progress((place + step / clean["steps"]) / clean["systems"])
                    save(_CHECKPOINT.pack(_FORMAT, place, step) + out.tobytes())
                step = 0
        progress(1.0)

    def assemble(self, params: Params, units: int, results: "Iterable[NDArray[Any]]", out: "NDArray[Any]") -> None:
        """System after system."""
        if not out.flags.c_contiguous:
            raise LocalProtocolError("a result is assembled in C order")
        whole, index = out.reshape(params["systems"], params["bodies"], COLUMNS), -1
        for index, block in enumerate(results):
            first, end = cut(0, params["systems"], units, index)
            whole[first:end] = block
        if index + 1 != units:
            raise VerificationError(f"the job has {units} units but {index + 1} results")

    def reference(
        self, unit: Params, arrays: "tuple[NDArray[Any], ...]", positions: "NDArray[np.intp]"
    ) -> "tuple[NDArray[np.float64], NDArray[np.float64]]":
        """The result itself: there is nothing that it may be off by."""
        import numpy as np

        out = self.result_type(unit).empty()
        self.compute_into(unit, arrays, out, lambda _: None)
        return out.reshape(-1)[positions].astype(np.float64), np.zeros(len(positions))

    def _unit(self, unit: Params) -> dict[str, Any]:
        rest = {name: value for name, value in unit.items() if name != "first"} if isinstance(unit, Mapping) else unit
        clean = self.validate(rest)
        return {**clean, "first": whole_number("an nbody unit", unit, "first", None, 0, MAX_SYSTEMS)}


def drawn_systems(unit: Params) -> "NDArray[np.float64]":
    """The unit's systems at the beginning: equal masses that add up to 1, at random in a cube, nearly at rest.

    System s takes 6 words of Philox4x64-10 with the key (seed, s) for each body; a word's upper 53 bits make a
    multiple of 2^-52 in [-1, 1). Velocities are an eighth of such a number.
    """
    import numpy as np

    bodies = unit["bodies"]
    state = np.empty((unit["systems"], bodies, COLUMNS))
    state[:, :, 0] = 1.0 / bodies
    for place in range(unit["systems"]):
        key = unit["seed"] + ((unit["first"] + place) << 64)
        words = np.random.Philox(key=key).random_raw(6 * bodies).reshape(bodies, 6)
        state[place, :, 1:] = (words >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1.0
    state[:, :, 4:] *= 0.125
    return state


def advance(state: "NDArray[np.float64]", steps: int, dt: float, softening: float) -> None:
    """Move one system of bodies x 7 by some steps, in place."""
    import numpy as np

    mass, half = state[:, 0].copy(), dt * 0.5
    position, velocity = np.ascontiguousarray(state[:, 1:4].T), np.ascontiguousarray(state[:, 4:].T)
    pull = attraction(mass, position, softening)
    for _ in range(steps):
        velocity += pull * half
        position += velocity * dt
        pull = attraction(mass, position, softening)
        velocity += pull * half
    state[:, 1:4], state[:, 4:] = position.T, velocity.T


def attraction(
    mass: "NDArray[np.float64]", position: "NDArray[np.float64]", softening: float
) -> "NDArray[np.float64]":
    """Accelerations (3 x bodies): for body i the sum over j = 0, 1, … of ``m_j d / (r² √r²)``.

    ``d = p_j - p_i`` and ``r² = (dx² + dy²) + (dz² + softening²)``; at i = j and wherever r² is 0 the term is 0.
    """
    import numpy as np

    bodies = len(mass)
    total = np.zeros((3, bodies))
    step = max(1, BLOCK_PAIRS // bodies)
    softened = softening * softening
    for first in range(0, bodies, step):
        some = slice(first, min(first + step, bodies))
        apart = position[:, some, None] - position[:, None, :]
        squares = apart * apart
        distance = (squares[0] + squares[1]) + (squares[2] + softened)
        cube = distance * np.sqrt(distance)
        weight = np.divide(mass[some, None], cube, out=np.zeros_like(cube), where=cube != 0)
        apart *= weight
        for other in range(apart.shape[1]):  # in this order: a reduction would choose its own
            total += apart[:, other]
    return total


def _restored(unit: Params, checkpoint: bytes, out: "NDArray[Any]") -> tuple[int, int]:
    """Puts the state of a checkpoint into ``out``: systems done, and steps of the next one.

    Raises:
        ConfigError: it is not one of this unit.
    """
    import numpy as np

    if len(checkpoint) != _CHECKPOINT.size + out.nbytes:
        raise ConfigError(f"a checkpoint of this nbody unit has {_CHECKPOINT.size + out.nbytes} bytes")
    name, system, step = _CHECKPOINT.unpack_from(checkpoint)
    if name != _FORMAT or system >= unit["systems"] or step > unit["steps"]:
        raise ConfigError("this is no checkpoint of this nbody unit")
    out[...] = np.frombuffer(checkpoint, dtype="<f8", offset=_CHECKPOINT.size).reshape(out.shape)
    return int(system), int(step)
