"""The key of a private network: its file, and what is said of one that cannot be used."""

import json
import os
from pathlib import Path

import pytest

from sparkle_p2p.cli.main import main
from sparkle_p2p.config import load_config
from sparkle_p2p.network_key import NetworkKey, make_network_key, read_network_key
from sparkle_protocol.errors import ConfigError

DIGITS = "0123456789abcdef" * 4
TEXT = f"/key/swarm/psk/1.0.0/\n/base16/\n{DIGITS}\n"


def write(path: Path, text: str = TEXT, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_a_key_of_other_libp2p_programs_is_understood(tmp_path: Path) -> None:
    expected = NetworkKey(bytes.fromhex(DIGITS))
    for text in (
        TEXT,
        TEXT.rstrip("\n"),
        TEXT.replace("\n", "\r\n"),
        TEXT.upper().replace("/KEY/SWARM/PSK", "/key/swarm/psk").replace("/BASE16/", "/base16/"),
    ):
        assert read_network_key(write(tmp_path / "swarm.key", text)) == expected


def test_a_new_key_comes_back_from_its_file_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "network.key"
    made = make_network_key(path)
    assert read_network_key(path) == made
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_text().splitlines()[:2] == ["/key/swarm/psk/1.0.0/", "/base16/"]
    assert make_network_key(tmp_path / "other.key") != made


def test_a_file_that_is_there_is_never_overwritten(tmp_path: Path) -> None:
    path = write(tmp_path / "network.key", "somebody's letters")
    with pytest.raises(ConfigError, match="stays as it is"):
        make_network_key(path)
    assert path.read_text() == "somebody's letters"


def test_the_secret_is_not_shown() -> None:
    key = NetworkKey(bytes.fromhex(DIGITS))
    assert DIGITS not in f"{key!r} {key} {key.fingerprint}"
    assert key.fingerprint in repr(key)
    assert key.fingerprint != NetworkKey.generate().fingerprint


def test_what_is_derived_differs_by_purpose_and_salt() -> None:
    key = NetworkKey(bytes.fromhex(DIGITS))
    made = {key.derive(b"a", 32), key.derive(b"b", 32), key.derive(b"a", 32, b"salt"), key.secret}
    assert len(made) == 4
    assert key.derive(b"a", 32) == key.derive(b"a", 32)


BAD = {
    "empty": ("", "no network key"),
    "prose": ("my secret", "no network key"),
    "short": (TEXT.rstrip("\n")[:-2], "no network key"),
    "long": (TEXT.rstrip("\n") + "00", "no network key"),
    "no digits": (TEXT.replace("0", "x"), "no network key"),
    "base64": (TEXT.replace("base16", "base64"), "no network key"),
    "another version": (TEXT.replace("1.0.0", "2.0.0"), "no network key"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_is_named_in_one_sentence(tmp_path: Path, kind: str) -> None:
    text, complaint = BAD[kind]
    path = write(tmp_path / "swarm.key", text)
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path, {"network_key": str(path)}, {})
    sentence = str(caught.value)
    assert sentence.startswith(f"--network-key is '{path}', but ")
    assert complaint in sentence
    assert "\n" not in sentence
    assert text.strip()[-10:] not in sentence or not text


def test_a_file_that_cannot_be_read_as_a_secret_is_refused(tmp_path: Path) -> None:
    open_to_all = write(tmp_path / "open.key", mode=0o644)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path, complaint in (
        (open_to_all, "chmod 600"), (fifo, "regular file"), (tmp_path, "regular file"), (tmp_path / "no", "no such"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=complaint):
            load_config(tmp_path, {"network_key": str(path)}, {})


def test_file_environment_and_flag_name_the_key(tmp_path: Path) -> None:
    """A path in the file is seen from the file, so that a home directory can be moved as a whole."""
    key = make_network_key(tmp_path / "network.key")
    (tmp_path / "config.toml").write_text('network_key = "network.key"\n')
    assert load_config(tmp_path, {}, {}).network_key == key
    other = make_network_key(tmp_path / "other.key")
    environ = {"SPARKLE_NETWORK_KEY": str(tmp_path / "other.key")}
    assert load_config(tmp_path, {}, environ).network_key == other
    assert load_config(tmp_path, {"network_key": str(tmp_path / "network.key")}, environ).network_key == key
    (tmp_path / "config.toml").write_text("network_key = 3\n")
    with pytest.raises(ConfigError, match="must be the path"):
        load_config(tmp_path, {}, {})


def test_the_command_makes_a_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "network.key"
    assert main(["network-key", str(path), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document == {"file": str(path), "fingerprint": read_network_key(path).fingerprint}
    assert main(["network-key", str(path)]) == 2
    assert "stays as it is" in capsys.readouterr().err
    assert main(["network-key", str(tmp_path / "no" / "network.key")]) == 2
    assert "cannot write" in capsys.readouterr().err
