"""``ledger/README.md`` and the code say the same."""

import msgpack
import pytest
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sparkle_ledger import entries as e
from tests.unit.ledger.ledger_tables import README, shown, tables

TEXT = README.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", tables())
def test_tables_are_those_of_the_code(name: str) -> None:
    assert shown(name, TEXT) == tables()[name], "python -m tests.unit.ledger.ledger_tables writes them anew"


def test_every_kind_is_in_the_table_once() -> None:
    assert set(e.KINDS) == set(e.Payload.__args__)
    assert [kind.__struct_config__.tag for kind in e.KINDS] == list(e.KINDS.values())
    assert len(set(e.KINDS.values())) == len(e.KINDS)


def test_every_file_is_named() -> None:
    files = {path.name for path in (README.parent / "sparkle_ledger").glob("*.py")} - {"__init__.py"}
    assert [name for name in sorted(files) if f"`{name}`" not in TEXT] == []


def test_an_entry_written_from_the_page_is_read() -> None:
    key = Ed25519PrivateKey.from_private_bytes(b"s" * 32)
    public = key.public_key().public_bytes_raw()
    account = blake3(b"sparkle/account/1\0net\0" + public).digest()
    body = msgpack.packb(
        [1, 2, "net", public, account, 0, 1, b"p" * 32, 5, msgpack.packb([2, b"j" * 32, 7, 9])], use_bin_type=True
    )
    entry = e.EntryCodec("net").open(msgpack.packb([body, key.sign(b"sparkle/ledger/v1" + body)]))
    assert entry.account == e.account_of("net", public) == account
    assert entry.payload == e.Hold(b"j" * 32, 7, 9)
    assert entry.id == blake3(body).digest()
