"""Configuration: who overrides whom, and what a slip of the pen gets told."""

from pathlib import Path

import pytest

from sparkle_p2p.config import NodeConfig, load_config
from sparkle_protocol.errors import ConfigError

PEER = "12D3KooWGRUf7wkzqgZFN1r5ZfUqcjdnzDgWqTCxbK2nBN1NqBd5"
ADDRESS = f"/ip4/192.0.2.1/tcp/4001/p2p/{PEER}"


def write(home: Path, text: str) -> Path:
    (home / "config.toml").write_text(text, encoding="utf-8")
    return home


def test_without_any_source_the_defaults_hold(tmp_path: Path) -> None:
    assert load_config(tmp_path, {}, {}) == NodeConfig(home=tmp_path)


def test_later_sources_override_earlier_ones(tmp_path: Path) -> None:
    write(tmp_path, 'net = "file"\nslots = 2\nmdns = false\nlog_level = "debug"\n')
    environ = {"SPARKLE_NET": "environ", "SPARKLE_SLOTS": "3", "SPARKLE_HOME": "/elsewhere", "PATH": "x"}
    config = load_config(tmp_path, {"net": "flag", "slots": None, "work": None}, environ)
    assert (config.net, config.slots, config.mdns, config.log_level) == ("flag", 3, False, "debug")


def test_every_field_can_be_set_by_file_environment_and_flag(tmp_path: Path) -> None:
    values = {
        "net": "lab",
        "listen": ["/ip4/127.0.0.1/tcp/0", "/ip6/::1/tcp/4001"],
        "bootstrap": [ADDRESS],
        "trusted": [PEER],
        "api": "[::1]:8080",
        "slots": 4,
        "work": False,
        "bootstrap_only": True,
        "mdns": False,
        "log_level": "warning",
    }
    import json

    write(tmp_path, "\n".join(f"{key} = {json.dumps(value)}" for key, value in values.items()))
    from_file = load_config(tmp_path, {}, {})
    text = {k: " ".join(v) if isinstance(v, list) else str(v).lower() for k, v in values.items()}
    (tmp_path / "config.toml").unlink()
    from_environ = load_config(tmp_path, {}, {f"SPARKLE_{key.upper()}": value for key, value in text.items()})
    from_flags = load_config(tmp_path, values, {})
    assert from_file == from_environ == from_flags
    assert from_file.listen == ("/ip4/127.0.0.1/tcp/0", "/ip6/::1/tcp/4001")
    assert from_file.api == "[::1]:8080"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("slot = 3", ["config.toml", "'slot'", "did you mean 'slots'?"]),
        ("zebra = 3", ["'zebra'", "the keys are net, listen"]),
        (f"trusted = '{PEER}x'", ["trusted", "must be a whole peer id", "'sparkle status' on that node shows it"]),
        (f"trusted = ['{PEER}', '…N1NqBd5']", ["must be a whole peer id (not '…N1NqBd5')"]),
        ("trusted = 5", ["must be a list of peer ids in quotes"]),
        ("slots = 0", ["slots", "'0'", "1 to 256", "work = false"]),
        ("slots = true", ["slots", "'True'"]),
        ("slots = 1.5", ["slots", "'1.5'"]),
        ("work = 1", ["work", "true or false"]),
        ('net = "a/b"', ["net", "'a/b'", "letters"]),
        ('net = ""', ["net", "letters"]),
        ("listen = 3", ["listen", "list of multiaddrs"]),
        ("listen = []", ["listen", "at least one"]),
        ('listen = ["/ip4/1.2.3.4/udp/1"]', ["listen", "/ip4/0.0.0.0/tcp/4001"]),
        ('listen = ["/ip4/1.2.3.400/tcp/1"]', ["'1.2.3.400' is not an IPv4 address"]),
        ('listen = ["/dns4/example.org/tcp/1"]', ["own IP address"]),
        (f'listen = ["{ADDRESS}"]', ["own IP address"]),
        ('bootstrap = ["/ip4/192.0.2.1/tcp/4001"]', ["bootstrap", "/p2p/", "sparkle status"]),
        (f'bootstrap = ["/ip4/192.0.2.1/tcp/70000/p2p/{PEER}"]', ["65535"]),
        (f'bootstrap = ["/ip4/192.0.2.1/tcp/0/p2p/{PEER}"]', ["port 0"]),
        ('bootstrap = ["192.0.2.1:4001"]', ["bootstrap", "must look like"]),
        ('api = "8080"', ["api", "HOST:PORT"]),
        ('api = "127.0.0.1:99999"', ["api", "HOST:PORT"]),
        ('log_level = "warn"', ["log_level", "'warn'", "(warning?)"]),
        ("slots = ", ["not valid TOML", "config.toml"]),
    ],
)
def test_a_slip_in_the_file_is_named_with_file_key_and_value(tmp_path: Path, text: str, expected: list[str]) -> None:
    write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path, {}, {})
    message = str(caught.value)
    assert str(tmp_path / "config.toml") in message
    assert "\n" not in message
    for part in expected:
        assert part in message


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_bytes(b'net = "\xff\xfe"')
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_config(tmp_path, {}, {})


def test_a_directory_in_the_files_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.toml").mkdir()
    with pytest.raises(ConfigError, match="is a directory"):
        load_config(tmp_path, {}, {})


def test_a_bad_variable_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^SPARKLE_SLOTS is 'two', but must be a whole number"):
        load_config(tmp_path, {}, {"SPARKLE_SLOTS": "two"})
    with pytest.raises(ConfigError, match="did you mean SPARKLE_BOOTSTRAP"):
        load_config(tmp_path, {}, {"SPARKLE_BOOTSTRAPS": ADDRESS})
    assert load_config(tmp_path, {}, {"SPARKLE_UNRELATED": "1", "SPARKLE_NET": ""}).net == "main"


def test_a_bad_flag_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^--bootstrap is '/ip4/x', but must look like"):
        load_config(tmp_path, {"bootstrap": ["/ip4/x"]}, {})
    with pytest.raises(ConfigError, match=r"\(in '/ip4/x'\)"):
        load_config(tmp_path, {"bootstrap": [ADDRESS, "/ip4/x"]}, {})


def test_the_same_address_twice_counts_once(tmp_path: Path) -> None:
    assert load_config(tmp_path, {"bootstrap": [ADDRESS, ADDRESS]}, {}).bootstrap == (ADDRESS,)


def test_an_endless_list_of_addresses_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at most 32"):
        load_config(tmp_path, {"bootstrap": [ADDRESS] * 33}, {})


def test_trusted_peers_are_named_once_in_the_spelling_that_peers_are_known_by(tmp_path: Path) -> None:
    write(tmp_path, f'trusted = ["{PEER}", "{PEER} ", "{PEER}"]')
    assert load_config(tmp_path, {}, {}).trusted == (PEER,)
    with pytest.raises(ConfigError, match="--trust is 'me', but must be a whole peer id"):
        load_config(tmp_path, {"trusted": ["me"]}, {})
