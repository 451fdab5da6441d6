"""What a run is about, as it stands in a TOML file (``simulations/scenarios``).

Times end in ``_s`` and count from the beginning of the run, in virtual seconds. Peers are numbers from 0; the first
ones submit jobs and are honest. A part that a file leaves out has the values that stand here.
"""

from typing import Annotated

from msgspec import Meta, Struct, field

Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Positive = Annotated[float, Meta(gt=0.0)]
Seconds = Annotated[float, Meta(ge=0.0)]
Count = Annotated[int, Meta(ge=0)]
Several = Annotated[int, Meta(ge=1)]


class Part(Struct, frozen=True, forbid_unknown_fields=True):
    """A table of the file."""


class Machines(Part, frozen=True):
    """What the nodes run on.

    Speeds are lognormal around a median: home computers differ by an order of magnitude (Anderson and Fedak 2006,
    "The computational and storage potential of volunteer computing").
    """

    gigaflops: Positive = 2.0  # of one slot, median
    spread: Annotated[float, Meta(ge=0.0, le=3.0)] = 0.5  # sigma of its logarithm
    slots: Annotated[int, Meta(ge=1, le=256)] = 1  # units that a node computes at a time
    noise: Annotated[float, Meta(ge=0.0, le=3.0)] = 0.1  # sigma of the logarithm of a unit's time
    slow_share: Share = 0.0  # of nodes that are slower by ``slow_factor``
    slow_factor: Positive = 10.0  # how many times slower those are
    blobs_mb: Positive = 20480.0  # what blobs may take on the disk of a node, in MiB
    skew_s: Seconds = 1.0  # wall clocks are off by up to so much
    drift: Annotated[float, Meta(ge=0.0, le=1e-3)] = 2e-5  # clocks run fast or slow by up to this share


class Churn(Part, frozen=True):
    """How nodes come and go: sessions and absences, each drawn anew."""

    kind: Annotated[str, Meta(pattern="^(none|exponential|weibull|trace)$")] = "none"  # distribution of sessions
    session_s: Positive = 3600.0  # mean time that a node stays
    absence_s: Positive = 3600.0  # mean time that it is away
    shape: Positive = 0.5  # of Weibull sessions; below 1 who has stayed long stays longer
    share: Share = 1.0  # of nodes that come and go at all
    gone_share: Share = 0.0  # of departures after which a node does not come back
    silent_share: Share = 0.3  # of departures that nobody is told of: the machine is switched off, or the line cut
    trace: str = ""  # CSV with peer,up_s,down_s
    begin_s: Seconds = 60.0  # until then everybody is there
    end_s: Seconds = 0.0  # from then on everybody is, but for those gone for good; 0: they come and go to the end


class Schedule(Part, frozen=True):
    """When home users let their machine work: hours of the day where they live."""

    share: Share = 0.0  # of nodes that have a schedule
    from_h: Annotated[float, Meta(ge=0.0, lt=24.0)] = 20.0  # hour at which it begins
    to_h: Annotated[float, Meta(ge=0.0, lt=24.0)] = 8.0  # hour at which it ends, perhaps of the next day


class Peers(Part, frozen=True):
    """Who takes part."""

    count: Annotated[int, Meta(ge=1, le=10_000_000)] = 50  # how many
    arrive_s: Seconds = 10.0  # they start within this time
    machines: Machines = Machines()  # what they run on
    churn: Churn = Churn()  # how they come and go
    schedule: Schedule = Schedule()  # when they work


class Region(Part, frozen=True):
    """A part of the world."""

    name: str  # by which distances and faults name it
    share: Share  # of the peers; shares of all regions make one
    inside_ms: Positive = 20.0  # round trip between two of its peers
    utc_offset_h: Annotated[float, Meta(ge=-12.0, le=14.0)] = 0.0  # of its clocks


class Distance(Part, frozen=True):
    """How far two regions are from each other."""

    between: Annotated[list[str], Meta(min_length=2, max_length=2)]  # names of two regions
    round_trip_ms: Positive  # of a message and its answer


class Wires(Part, frozen=True):
    """The network between them."""

    regions: list[Region] = field(default_factory=lambda: [Region("here", 1.0)])  # where peers are
    distances: list[Distance] = []  # those that are not named: ``far_ms``
    far_ms: Positive = 120.0  # round trip between two regions whose distance is not said
    jitter: Annotated[float, Meta(ge=0.0, le=2.0)] = 0.2  # sigma of the logarithm of a delay
    loss: Share = 0.0  # of messages that never come
    twice: Share = 0.0  # of messages that come twice
    nat_share: Share = 0.0  # of peers behind a NAT that can be punched
    symmetric_share: Share = 0.0  # of peers behind one that hardly can
    upload_mbps: Positive = 20.0  # of a peer's line, in millions of bits per second; all that it sends shares it
    download_mbps: Positive = 100.0  # the same for all that it receives


class JobPlan(Part, frozen=True):
    """Jobs that peers submit."""

    at_s: Seconds = 20.0  # when the first one is submitted
    submitter: Count = 0  # the peer that submits them
    units: Annotated[int, Meta(ge=1, le=1 << 20)] = 100  # of each job
    unit_s: Positive = 30.0  # reference work of a unit: on a machine of the median speed
    quorum: Annotated[int, Meta(ge=1, le=16)] = 2  # workers that must agree on a result
    audit_permille: Annotated[int, Meta(ge=0, le=1000)] = 0  # of known workers' results at least; 0: nobody is known
    result_bytes: Annotated[int, Meta(ge=1, le=65536)] = 8  # of each unit
    unit_price_micro: Annotated[int, Meta(ge=0, le=1 << 40)] = 0  # of each result, with credit; 0: free
    inputs: Annotated[int, Meta(ge=1, le=1024)] = 1  # blobs of each job, with ``input_mb``; units need them in turn
    input_mb: Annotated[float, Meta(ge=0.0, le=65536.0)] = 0.0  # size of each of these; 0: the job has no inputs
    result_mb: Annotated[float, Meta(ge=0.0, le=65536.0)] = 0.0  # of each unit, as a blob instead of ``result_bytes``
    check: Annotated[str, Meta(pattern="^(exact|algebraic)$")] = "exact"  # results are compared, or each is checked
    check_share: Share = 0.04  # of a unit's reference work that an algebraic check of it costs
    repeat: Several = 1  # so many jobs
    every_s: Seconds = 0.0  # apart


class Fault(Part, frozen=True):
    """Something that goes wrong, and when it is over; what ``kind`` means is said in ``faults.py``."""

    kind: str  # what goes wrong
    at_s: Seconds  # when it begins
    for_s: Seconds = 0.0  # 0: until the end of the run
    peers: list[int] = []  # whom it hits
    share: Share = 0.0  # or: so many, drawn at random among all but the submitters
    regions: list[str] = []  # or: all of these regions
    factor: Positive = 1.0  # how many times slower
    amount_s: float = 0.0  # by how much clocks jump


class Adversaries(Part, frozen=True):
    """Peers that do not keep to the rules; what ``kind`` means is said in ``adversaries``."""

    kind: str  # what they do; or FILE.py:CLASS of your own
    share: Share = 0.0  # of the peers
    peers: list[int] = []  # or these
    rate: Share = 1.0  # of the occasions at which they do it


class Trust(Part, frozen=True):
    """Whom submitters know from earlier jobs, before the run begins."""

    known: Share = 0.0  # of the other peers, whatever they do from now on
    passes: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000  # comparisons that each of them passed
    unit_s: Positive = 30.0  # reference work of the units that these were about


class Credit(Part, frozen=True):
    """Whether work is paid for, and how much of it on trust."""

    enabled: bool = False  # each node has an account; jobs with a price are paid for
    starter_micro: Annotated[int, Meta(ge=0, le=1 << 52)] = 10_000_000  # how far below zero anybody may go
    limit_max_micro: Annotated[int, Meta(ge=0, le=1 << 52)] = 10_000_000_000  # and beyond, by what it earned
    settle_s: Seconds = 120.0  # how long a run goes on for payments once its jobs are over
    close_after_s: Seconds = 604_800.0  # the age at which a settled job is closed; a planned one is as old as the run
    keep_entries: Several = 64  # of each account's newest entries, which are never folded


class Checks(Part, frozen=True):
    """What is watched during the run."""

    names: list[str] = []  # empty: all that apply
    own: list[str] = []  # and yours, as FILE.py:CLASS
    scan_every_s: Positive = 30.0  # how often everything is looked at
    lost_keepers: Annotated[int, Meta(ge=0, le=8)] = 3  # of eight, that a view is to survive
    lying_keepers: Annotated[int, Meta(ge=0, le=8)] = 3  # of eight, that must not change what is accepted


class Scenario(Part, frozen=True):
    """A file."""

    name: str  # of the scenario; its file is called so
    title: str = ""  # what it is about
    engine: Annotated[str, Meta(pattern="^(full|population)$")] = "full"  # each message, or a model of the whole
    seconds: Positive = 600.0  # the longest that it runs
    seed: Count = 1  # decides all that is random, unless ``--seed`` does
    until_done: bool = True  # end when all jobs are, if that is earlier
    policy: str = "production"  # how the cores decide what they may decide; or FILE.py:CLASS of your own
    peers: Peers = Peers()  # who takes part
    wires: Wires = Wires()  # what lies between them
    jobs: list[JobPlan] = field(default_factory=lambda: [JobPlan()])  # what there is to do
    faults: list[Fault] = []  # what goes wrong
    adversaries: list[Adversaries] = []  # who does not keep to the rules
    credit: Credit = Credit()  # whether work is paid for
    trust: Trust = Trust()  # what submitters think of workers at the beginning
    checks: Checks = Checks()  # what is watched
