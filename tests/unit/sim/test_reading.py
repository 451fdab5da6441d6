"""Scenario files: what the shipped ones are, and that every mistake gets one sentence that names the key."""

from pathlib import Path

import pytest

from sparkle_protocol.errors import ConfigError
from sparkle_sim.reading import Override, parse_override, parse_value, read_scenario
from sparkle_sim.scenario import Scenario

ROOT = Path(__file__).resolve().parents[3]
SHIPPED = sorted((ROOT / "simulations" / "scenarios").glob("*.toml"))
WORLD = """
name = "small"
seconds = 100.0
[peers]
count = 10
[[wires.regions]]
name = "here"
share = 0.5
[[wires.regions]]
name = "there"
share = 0.5
[[jobs]]
at_s = 20.0
"""


def read(folder: Path, text: str, *overrides: str, seconds: float | None = None) -> Scenario:
    path = folder / "my.toml"
    path.write_text(text)
    return read_scenario(path, [parse_override(one) for one in overrides], seconds=seconds)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_scenarios_can_be_read_and_say_what_they_are(path: Path) -> None:
    scenario = read_scenario(path)
    assert scenario.name == path.stem
    assert scenario.title
    assert path.read_text().startswith("# "), "begin with a comment: what question does it answer?"


def test_all_kinds_of_scenarios_are_shipped() -> None:
    names = {path.stem for path in SHIPPED}
    assert names >= {
        "calm", "churn", "partition", "mass-kill", "slow-tail", "cheaters", "colluders", "flash-crowd", "time-zones",
        "inputs",
    }  # fmt: skip
    crowd = read_scenario(ROOT / "simulations" / "scenarios" / "flash-crowd.toml")
    assert sum(plan.units * plan.repeat for plan in crowd.jobs) == 1_000_000


def test_values_of_the_command_line_stand_in_for_those_of_the_file(tmp_path: Path) -> None:
    scenario = read(
        tmp_path, WORLD, "peers.count=20", "peers.churn.kind=weibull", "jobs.0.units=7", "wires.regions.1.name=far"
    )
    assert scenario.peers.count == 20
    assert scenario.peers.churn.kind == "weibull"
    assert scenario.jobs[0].units == 7
    assert [region.name for region in scenario.wires.regions] == ["here", "far"]
    assert scenario.seconds == 100.0


def test_a_run_can_be_cut_short_without_its_faults(tmp_path: Path) -> None:
    text = WORLD + "[[faults]]\nkind = 'kill'\nshare = 0.1\nat_s = 60.0\nfor_s = 30.0\n"
    assert read(tmp_path, text, seconds=40.0).seconds == 40.0
    with pytest.raises(ConfigError, match="ends the run before its first job"):
        read(tmp_path, text, seconds=10.0)


@pytest.mark.parametrize(
    ("text", "value"),
    [("3", 3), ("0.5", 0.5), ("true", True), ("weibull", "weibull"), ("'a b'", "a b"), ("[1, 2]", [1, 2])],
)
def test_values_are_as_in_toml_and_words_need_no_quotes(text: str, value: object) -> None:
    assert parse_value(text) == value


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("peers.cuont=3", "peers.cuont is not known; did you mean 'count'?"),
        ("peers.count=many", "peers.count must be a whole number from 1 to 10_000_000, not 'many'"),
        ("peers.count=0", "peers.count must be a whole number from 1 to 10_000_000, not 0"),
        ("peers.churn.kind=weibul", "must be one of none, exponential, weibull or trace, not 'weibul'; did you mean"),
        ("peers.churn.share=1.5", "peers.churn.share must be a number from 0 to 1, not 1.5"),
        ("peers=3", "peers must be a table, not 3"),
        ("seconds=nan", "seconds must be a number above 0, not nan"),
        ("seconds=inf", "seconds must be a number above 0, not inf"),
        ("seconds.x=1", "seconds is 100.0, so it has no keys of its own"),
        ("jobs.4.units=1", "jobs.4 names no part of this list of the file, which has only part 0"),
        ("jobs.0.submitter=10", "jobs.0.submitter is 10, but the peers are 0 to 9"),
        ("jobs.0.quorum=11", "jobs.0.quorum is 11, but there are only 10 peers to agree"),
        ("jobs.0.at_s=100", "jobs.0.at_s is 100, but the run ends at 100 s"),
        ("jobs.0.repeat=5000", "more than 1024 jobs at once"),
        ("wires.regions.0.share=0.2", "wires.regions have shares that make 0.7; together they must make 1"),
        ("wires.regions.0.name=there", "wires.regions.1.name is 'there', as that of an earlier region"),
        ("wires.distances=[{between=['here','ther'],round_trip_ms=9}]", "no region; did you mean 'there'?"),
        ("wires.distances=[{between=['here'],round_trip_ms=9}]", "between must be a list of 2 texts"),
        ("wires.nat_share=0.9", None),
        ("wires.loss=1", "wires.loss must be less than 1, or nothing ever arrives"),
        ("faults=[{kind='restart',at_s=3,share=0.1}]", "'kill' with for_s starts them again"),
        ("faults=[{kind='kil',at_s=3,share=0.1}]", "not 'kil'; did you mean 'kill'?"),
        ("faults=[{kind='kill',at_s=3}]", "faults.0 does not say whom it hits: give peers, share or regions"),
        ("faults=[{kind='kill',at_s=3,share=0.1,peers=[1]}]", "faults.0.share stands beside peers"),
        ("faults=[{kind='kill',at_s=3,peers=[10]}]", "faults.0.peers names peer 10, but the peers are 0 to 9"),
        ("faults=[{kind='kill',at_s=200,peers=[1]}]", "faults.0.at_s is 200, but the run ends at 100 s"),
        ("faults=[{kind='kill',at_s=90,for_s=20,peers=[1]}]", "faults.0.for_s ends the fault at 110 s"),
        ("faults=[{kind='kill',share=0.1}]", "faults.0.at_s is missing: a number of at least 0"),
        ("faults=[{kind='partition',at_s=3,regions=['here','there']}]", "nobody is on the other side"),
        ("faults=[{kind='slow-link',at_s=3,share=0.1}]", "faults.0.factor must be given for 'slow-link'"),
        ("adversaries=[{kind='cheet',share=0.1}]", "not 'cheet'; did you mean 'cheat'?"),
        ("adversaries=[{kind='cheat',peers=[0]}]", "names peer 0, which submits jobs"),
        ("adversaries=[{kind='cheat',share=0.7},{kind='copy',share=0.7}]", "have shares that make 1.4"),
        ("peers.churn.end_s=90", "peers.churn.end_s has no effect with kind = 'none'"),
        ("peers.churn.trace=x.csv", "peers.churn.trace has no effect with kind = 'none'"),
        ("peers.arrive_s=100", "peers.arrive_s must be less than seconds (100)"),
        ("adversaries=[{kind='cheat',share=0.1,rate=0.5}]", "adversaries.0.rate has no effect with kind = 'cheat'"),
        ("jobs.0.unit_price_micro=5", "jobs.0.unit_price_micro has no effect without credit.enabled = true"),
        ("checks.names=['endings']", "checks.names must be one of"),
        ("jobs.0.inputs=3", "jobs.0.inputs has no effect without input_mb"),
        ("jobs.0={input_mb=4,inputs=20,units=10}", "jobs.0.inputs is 20, but the 10 units need one each"),
        ("jobs.0.check=algebraic", "jobs.0.check needs result_mb"),
        ("jobs.0.check=freivalds", "jobs.0.check must be one of exact or algebraic, not 'freivalds'"),
        ("jobs.0={input_mb=6000}", "makes 6000 MB of inputs, and a keeper has 5368.71 MB for one submitter"),
        ("engine=fast", "engine must be one of full or population, not 'fast'"),
    ],
)
def test_a_mistake_gets_a_sentence_that_names_the_key(tmp_path: Path, override: str, sentence: str | None) -> None:
    if sentence is None:
        read(tmp_path, WORLD, override)
        return
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, WORLD, override)
    assert sentence in str(caught.value)
    assert "--set" in str(caught.value), "the file by itself is right"
    assert "\n" not in str(caught.value)


def test_too_many_peers_for_the_full_engine_are_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="set engine = 'population'"):
        read(tmp_path, WORLD, "peers.count=1_000_000")
    assert read(tmp_path, WORLD, "peers.count=1_000_000", "engine=population").peers.count == 1_000_000


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("seconds = 3", "my.toml: name is missing: text in quotes"),
        ("name = ", "my.toml is not TOML: "),
        ("name = 'x'\n[[peers]]\ncount = 3", "my.toml: peers must be a table"),
        ("name = 'x'\nnmae = 'y'", "my.toml: nmae is not known; did you mean 'name'?"),
    ],
)
def test_the_file_is_named(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    assert sentence in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "huge.toml").write_bytes(b"#" * (1 << 21))
    for name, sentence in (
        ("none.toml", "there is no scenario file"),
        (".", "is a directory"),
        ("binary.toml", "is no text in UTF-8"),
        ("huge.toml", "has more than 1 MiB"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            read_scenario(tmp_path / name)


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (None, "cannot be read"),
        ("", "peer,up_s,down_s"),
        ("peer,up_s,down_s\n1,5,3\n", "line 2"),
        ("peer,up_s,down_s\n99,1,3\n", "peers are 0 to 9"),
    ],
)
def test_a_trace_of_churn_is_looked_at_before_the_run(tmp_path: Path, rows: str | None, sentence: str) -> None:
    if rows is not None:
        (tmp_path / "up.csv").write_text(rows)
    with pytest.raises(ConfigError, match=sentence):
        read(tmp_path, WORLD, "peers.churn.kind=trace", "peers.churn.trace=up.csv")


def test_a_trace_is_seen_from_the_file(tmp_path: Path) -> None:
    (tmp_path / "up.csv").write_text("peer,up_s,down_s\n1,5,30\n")
    scenario = read(tmp_path, WORLD, "peers.churn.kind=trace", "peers.churn.trace=up.csv")
    assert scenario.peers.churn.trace == str(tmp_path / "up.csv")


def test_the_flag_that_holds_a_wrong_value_is_named(tmp_path: Path) -> None:
    (tmp_path / "my.toml").write_text(WORLD + "submitter = 5\n")
    with pytest.raises(ConfigError) as caught:
        read_scenario(tmp_path / "my.toml", [Override("peers.count", 3, "--peers")])
    assert "jobs.0.submitter is 5, but the peers are 0 to 2" in str(caught.value)
