"""The wire specification in ``protocol/README.md`` and the code say the same."""

import importlib
import re

import msgpack
import pytest
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sparkle_p2p.net.libp2p.frames import PROTOCOL_ID, Kind
from sparkle_protocol import facts as f
from sparkle_protocol import messages as m
from sparkle_protocol.effects import Requested
from sparkle_protocol.ids import JobId, ResultHash
from tests.unit.protocol.wire_tables import README, shown, tables

TEXT = README.read_text(encoding="utf-8")
CONSTANTS = re.findall(r"^\| `([A-Z_]+)` \| (\d+)( s| h|) \| `([a-z_.]+)` \|$", TEXT, re.MULTILINE)


@pytest.mark.parametrize("name", tables())
def test_tables_are_those_of_the_code(name: str) -> None:
    assert shown(name, TEXT) == tables()[name], "python -m tests.unit.protocol.wire_tables writes them anew"


def test_every_kind_is_in_one_table_and_numbers_are_used_once() -> None:
    kinds = re.findall(
        r"^\| (\d+) \| (\w+) \|", "\n".join(tables()[n] for n in ("facts", "requests", "replies")), re.M
    )
    assert len({number for number, _ in kinds}) == len(kinds)
    union = {shape.__name__ for group in (f.Payload, m.Request, m.Reply) for shape in group.__args__}
    assert {name for _, name in kinds} == union


@pytest.mark.parametrize(("name", "value", "unit", "module"), CONSTANTS)
def test_constants_are_those_of_the_code(name: str, value: str, unit: str, module: str) -> None:
    found = getattr(importlib.import_module(f"sparkle_protocol.{module}"), name)
    assert found == int(value) * {"": 1, " s": 1_000_000_000, " h": 3600 * 1_000_000_000}[unit]


def test_the_constants_were_found() -> None:
    assert len(CONSTANTS) > 30


def test_frame_kinds_are_those_of_the_code() -> None:
    assert f"**`{PROTOCOL_ID}`**" in TEXT
    for kind in Kind:
        assert f"| {kind.value} | {kind.name.lower()} |" in TEXT


def test_topic_and_routing_key() -> None:
    assert m.jobs_topic("<network>") in TEXT
    assert m.shard_key("<network>", "<name>@<version>", 3).decode().removesuffix("3") + "<shard>" in TEXT
    assert f"mod {m.SHARDS}" in TEXT


def test_a_peer_written_from_the_specification_is_understood() -> None:
    """With msgpack, BLAKE3 and Ed25519 alone: a job, its fact id, a commitment, a request."""
    key = Ed25519PrivateKey.from_private_bytes(b"s" * 32)
    public = key.public_key().public_bytes_raw()

    def fact(kind: int, *fields: object) -> bytes:
        body = msgpack.packb([1, kind, "net", public, msgpack.packb([kind, *fields])])
        return msgpack.packb([body, key.sign(b"sparkle/fact/1\x00" + body)])

    policy, resources, deadlines = ["final", 2, 8], [1e9, 0.0, 0], [60, 60, 600]
    params = {"start": 2, "stop": 100}
    raw = fact(1, "prime_count", 1, params, 4, "exact", policy, resources, deadlines, b"a" * 32, b"n" * 16, 0)
    spec = f.FactCodec("net").open(raw)
    assert isinstance(spec.payload, f.JobSpec)
    assert (spec.payload.params, spec.payload.priority) == (params, 5)
    assert spec.job == blake3(msgpack.unpackb(raw)[0]).digest()

    result_hash, nonce = blake3(b"result").digest(), b"m" * 16
    opened = (
        b"\x00\x03net" + spec.job + (3).to_bytes(4, "big") + (0).to_bytes(4, "big") + public + result_hash + nonce
    )
    commit = blake3(b"sparkle/commit/1\x00" + opened).digest()
    assert commit == f.commitment("net", JobId(spec.job), 3, 0, public, ResultHash(result_hash), nonce)

    commits = f.FactCodec("net").open(fact(4, spec.job, [[3, 0, commit]]))
    assert commits.payload == f.Commits(spec.job, [f.CommitItem(3, 0, commit)])
    request = m.decode_request(msgpack.packb([12, spec.job, [commits.raw], [], [[2, 0, 0.5]]]))
    assert isinstance(Requested(1, spec.author, request).message, m.Report)
