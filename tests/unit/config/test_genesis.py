"""The file of a network's genesis record: what it may say, and what a slip of the pen gets told."""

import os
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sparkle_ledger.genesis import GenesisRecord
from sparkle_p2p.config import load_config
from sparkle_p2p.genesis import FILE_LIMIT
from sparkle_protocol.errors import ConfigError
from sparkle_protocol.identity import Identity

ANN, BEN = (Identity.from_private_bytes(bytes(31) + bytes([n])).peer_id for n in (1, 2))
FULL = f"""
network = "swarm"

[economy]
limit_max_credits = 500
starter_credits = 2.5
lambda_percent = 80
payer_share = 3

[founders]
{ANN} = ["trusted", "unlimited"]
{BEN} = ["trusted"]
"""


def read(folder: Path, text: str | bytes) -> GenesisRecord:
    path = folder / "swarm.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    genesis = load_config(folder, {"genesis": str(path)}, {}).genesis
    assert genesis is not None
    return genesis


def complaint(folder: Path, text: str | bytes) -> str:
    """What is said of a file that cannot be used: one sentence that begins with where it was named."""
    with pytest.raises(ConfigError) as caught:
        read(folder, text)
    sentence = str(caught.value)
    assert sentence.startswith(f"--genesis is '{folder / 'swarm.toml'}', but ")
    assert sentence.isprintable()
    assert len(sentence) < 600
    return sentence


def test_all_that_it_may_say(tmp_path: Path) -> None:
    assert read(tmp_path, FULL) == GenesisRecord(
        "swarm", 500_000_000, 2_500_000, 80, 3, trusted=tuple(sorted((ANN, BEN))), unlimited=(ANN,)
    )


def test_what_is_left_out_is_as_without_a_file(tmp_path: Path) -> None:
    for text in ('network = "swarm"', 'network = "swarm"\n[economy]\n[founders]', "network = 'swarm'\nfounders = {}"):
        assert read(tmp_path, text) == GenesisRecord("swarm")
    assert load_config(tmp_path, {"net": "swarm"}, {}).record == GenesisRecord("swarm")


def test_how_it_is_written_makes_no_difference(tmp_path: Path) -> None:
    other = f"""
        # the same in other words
        network = 'swarm'
        founders.{BEN} = ["trusted"]
        founders.{ANN} = ["unlimited", "trusted", "trusted"]
        economy = {{payer_share = 3, lambda_percent = 80, starter_credits = 25e-1, limit_max_credits = 0.5e+3}}
    """
    assert read(tmp_path, other).digest == read(tmp_path, FULL).digest


@pytest.mark.parametrize(
    ("written", "micro"),
    [
        ("0", 0), ("0.0", 0), ("-0.0", 0), ("0.000001", 1), ("0.1", 100_000), ("1_000.000_001", 1_000_000_001),
        ("1e3", 10**9), ("1e-6", 1), ("9007199254", 9007199254 * 10**6), ("0.300000", 300_000), ("0e-6", 0),
        ("4503599.627371", 4503599627371),  # a float of this in micro-credits is rounded down
    ],
)  # fmt: skip
def test_credits_are_exact_to_the_last_micro_credit(tmp_path: Path, written: str, micro: int) -> None:
    text = f'network = "swarm"\n[economy]\nstarter_credits = {written}'
    assert read(tmp_path, text).starter_micro == micro


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 9007199254 * 10**6))
def test_any_amount_is_read_as_it_is_written(tmp_path: Path, micro: int) -> None:
    text = f'network = "swarm"\n[economy]\nlimit_max_credits = {Decimal(micro).scaleb(-6):f}'
    assert read(tmp_path, text).limit_max_micro == micro


CREDITS = "must be credits from 0 to 9007199254 with at most 6 decimals"
ROLE = 'must be ["trusted"], ["unlimited"] or both in one list'
BAD = [
    ("", ["does not name its network", "network = 'NAME'"]),
    ("[economy]\nstarter_credits = 1", ["does not name its network"]),
    ("network = 3", ["its network must be a name of letters", "not '3'"]),
    ('network = "a/b"', ["its network must be a name", "not 'a/b'"]),
    ('network = "n"\nnetwrk = "x"', ["no key 'netwrk' in a genesis record", "did you mean 'network'?"]),
    ('network = "n"\n"x\\u0007\\n" = 1', ["no key 'x  ' in a genesis record", "keys are network, economy, founders"]),
    ('network = "n"\n[econmy]\n', ["no key 'econmy'", "did you mean 'economy'?"]),
    ('network = "n"\neconomy = 5', ["its economy must be a table that begins with [economy], not '5'"]),
    ('network = "n"\n[[economy]]', ["its economy must be a table", "not a list"]),
    ('network = "n"\nfounders = ["x"]', ["its founders must be a table that begins with [founders]"]),
    ('network = "n"\n[economy]\nstarter_credit = 1', ["'starter_credit' in [economy]", "mean 'starter_credits'?"]),
    ('network = "n"\n[economy]\nstarter_micro = 1', ["no key 'starter_micro' in [economy]"]),
    ('network = "n"\n[economy]\nzebra = 1', ["no key 'zebra' in [economy]; the keys are limit_max_credits, starter"]),
    *(
        (f'network = "n"\n[economy]\nstarter_credits = {value}', ["economy.starter_credits", CREDITS])
        for value in (
            "-1", "-0.1", "0.0000001", "1.0000000", "1e-7", "9007199255", "9007199254.000001", "1e999999999", "nan",
            "inf", "-inf", "1e99999999999999999999", "true", "'1'", "[1]", "2026-01-01", "{}", f"0.{'0' * 5000}1",
            f"1{'0' * 400}.0",
        )
    ),
    *(
        (f'network = "n"\n[economy]\n{key} = {value}', [f"its economy.{key} must be a whole number {span}"])
        for key, span, values in (
            ("lambda_percent", "from 0 to 1000", ("-1", "1001", "50.0", "true", "'5'")),
            ("payer_share", "from 1 to 64", ("0", "65", "4.0", "[]")),
        )
        for value in values
    ),
    (f'network = "n"\n[founders]\n{ANN[:-1]} = ["trusted"]', ["founders.12D3Koo", "a whole peer id", "status"]),
    (f'network = "n"\n[founders]\n"…{ANN[-8:]}" = ["trusted"]', ["must be named by a whole peer id"]),
    (f'network = "n"\n[founders]\n"{ANN}\\n" = ["trusted"]\n{ANN} = ["trusted"]', [f"[founders] name {ANN} twice"]),
    (f'network = "n"\n[founders]\n{ANN} = ["trustd"]', [ROLE, "not 'trustd'; did you mean 'trusted'?"]),
    (f'network = "n"\n[founders]\n{ANN} = ["trusted", "king"]', [ROLE, "not 'king'"]),
    (f'network = "n"\n[founders]\n{ANN} = "trusted"', [ROLE, "not 'trusted'; put it into brackets"]),
    *(
        (f'network = "n"\n[founders]\n{ANN} = {value}', [f"founders.{ANN}", ROLE])
        for value in ("[]", '"trusted"', "true", "[1]", '["trusted", 5]', '[["trusted"]]', "{trusted = true}")
    ),
    ("network = ", ["is not valid TOML"]),
    ('network = "n"\nnetwork = "m"', ["is not valid TOML"]),
    (f'network = "n"\n[founders]\n{ANN} = ["trusted"]\n{ANN} = ["unlimited"]', ["is not valid TOML"]),
    (f"x = {'[' * 100_000}", ["is not valid TOML"]),
    (f"x = 1{'0' * 5000}", ["is not valid TOML"]),
    (b'network = "\xff"', ["is not UTF-8 text"]),
    (b"#" * (FILE_LIMIT + 1), ["is larger than the 256 KiB"]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), BAD, ids=range(len(BAD)))
def test_a_bad_file_is_told_in_one_sentence(tmp_path: Path, text: str | bytes, expected: list[str]) -> None:
    sentence = complaint(tmp_path, text)
    for part in expected:
        assert part in sentence


def test_founders_are_at_most_as_many_as_a_node_may_name(tmp_path: Path) -> None:
    peers = [Identity.from_private_bytes(n.to_bytes(32, "big")).peer_id for n in range(1, 1026)]
    lines = [f'{peer} = ["trusted"]' for peer in peers]
    assert len(read(tmp_path, "\n".join(['network = "n"', "[founders]", *lines[:1024]])).trusted) == 1024
    sentence = complaint(tmp_path, "\n".join(['network = "n"', "[founders]", *lines]))
    assert "at most 1024, not 1025" in sentence


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=60))
def test_whatever_a_file_says_it_is_a_record_or_one_sentence(tmp_path: Path, text: str) -> None:
    try:
        read(tmp_path, f'network = "n"\n{text}')
    except ConfigError as error:
        sentence = str(error)
    else:
        return
    assert "\n" not in sentence


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path, words in ((fifo, "regular file"), (tmp_path, "regular file"), (tmp_path / "no.toml", "no such file")):
        with pytest.raises(ConfigError, match=words):
            load_config(tmp_path, {"genesis": str(path)}, {})
    for value in ("", "a\0b", 3):
        with pytest.raises(ConfigError, match="must be the path"):
            load_config(tmp_path, {"genesis": value}, {})


def test_file_environment_and_flag_name_it(tmp_path: Path) -> None:
    """A path in the configuration is seen from there, so that a home directory can be moved as a whole."""
    for name in ("one", "two"):
        (tmp_path / f"{name}.toml").write_text(f'network = "{name}"')
    (tmp_path / "config.toml").write_text('genesis = "one.toml"\n')
    environ = {"SPARKLE_GENESIS": str(tmp_path / "two.toml")}
    assert load_config(tmp_path, {}, {}).genesis == GenesisRecord("one")
    assert load_config(tmp_path, {}, environ).genesis == GenesisRecord("two")
    assert load_config(tmp_path, {"genesis": str(tmp_path / "one.toml")}, environ).genesis == GenesisRecord("one")


def test_the_record_names_the_network_and_nobody_may_contradict(tmp_path: Path) -> None:
    path = tmp_path / "swarm.toml"
    path.write_text('network = "swarm"')
    assert load_config(tmp_path, {"genesis": str(path)}, {}).net == "swarm"
    assert load_config(tmp_path, {"genesis": str(path), "net": "swarm"}, {}).net == "swarm"
    for flags, environ in (({"net": "main"}, {}), ({}, {"SPARKLE_NET": "main"})):
        with pytest.raises(ConfigError) as caught:
            load_config(tmp_path, {"genesis": str(path), **flags}, environ)
        assert "genesis record is of network 'swarm', and net is 'main'; leave out net, or" in str(caught.value)
