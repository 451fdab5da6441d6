"""Views of a node as users meet them, with fixed data, for snapshots, pictures and the runnable fake."""

from dataclasses import replace
from typing import Protocol

from sparkle_p2p.ledger_view import BalancePoint, CreditView, EntryView, EscrowView, ForkView, PartnerView
from sparkle_p2p.view import (
    JobView,
    LogLine,
    NodeView,
    PeerView,
    Reason,
    Rejection,
    Safety,
    StandingView,
    UnitCounts,
    UnitView,
)

NOW = 1_790_000_000.0  # a fixed moment; its time of day is 14:13:20 UTC
ME = "12D3KooWQnZ8yLwxbJrS7cVtpM2aKdE5fGhUu3Xo9TqRk3Xy8Qp2"
PEERS = (
    "12D3KooWAbCdEfGhJkLmNpQrStUvWxYz123456789AbCdEf7mTq4Ws",
    "12D3KooWBbCdEfGhJkLmNpQrStUvWxYz123456789AbCdEfZp9Lk2Ha",
    "12D3KooWCbCdEfGhJkLmNpQrStUvWxYz123456789AbCdEfN5vRx8Ju",
    "12D3KooWDbCdEfGhJkLmNpQrStUvWxYz123456789AbCdEfBad1iArs",
)
ADDRESS = f"/ip4/192.168.1.23/tcp/41234/p2p/{ME}"
CPU = (3, 2, 4, 9, 22, 35, 44, 47, 46, 48, 45, 47, 38, 30, 24, 31, 39, 46, 48, 47, 44, 46, 47)


def log(*entries: tuple[float, str, str]) -> tuple[LogLine, ...]:
    """Log lines so many seconds before NOW."""
    return tuple(LogLine(NOW - ago, level, text) for ago, level, text in entries)  # type: ignore[arg-type]


def peer(number: int, **changes: object) -> PeerView:
    values: dict[str, object] = {
        "peer_id": PEERS[number],
        "addresses": (f"/ip4/192.168.1.{30 + number}/tcp/4001",),
        "direction": ("out", "in", "out", "in")[number],
        "latency_ms": (0.6, 12.4, 87.0, 31.0)[number],
        "agent": ("sparkle/0.1.0 linux", "sparkle/0.1.0 linux", "sparkle/0.1.1 linux", "sparkle/0.0.9")[number],
        "connected_s": 812.0,
        "units_accepted": (31, 22, 9, 3)[number],
    }
    return PeerView(**{**values, **changes})  # type: ignore[arg-type]


STARTING = NodeView(
    peer_id=ME,
    net="main",
    version="0.1.0",
    pid=4242,
    state="idle",
    reason=Reason("network_starting", "The network is starting; nothing to compute yet."),
    network="starting",
    uptime_s=0.4,
    addresses=(),
    api="http://127.0.0.1:41235",
    peers=(),
    units=(),
    jobs=(),
    units_done=0,
    units_verified=0,
    credit_micro=0,
    cpu_percent=3.0,
    pss_bytes=61_000_000,
    limits={"cpu_percent": 50, "memory_mb": 1024},
    log=log((0.3, "info", "Sparkle 0.1.0 starts; home is ~/.sparkle.")),
    safety=Safety("alone", "Alone: only this node computes and accepts.", 1),
)

ALONE = replace(
    STARTING,
    network="alone",
    reason=Reason("no_peers", "No peers are connected, so nobody has work for this computer."),
    uptime_s=34.0,
    addresses=(ADDRESS,),
    pss_bytes=118_000_000,
    cpu_percent=0.4,
    log=log(
        (34, "info", "Sparkle 0.1.0 starts; home is ~/.sparkle."),
        (33, "good", "The network is up: listening on port 41234."),
        (33, "warning", "No bootstrap peer is configured; looking on the local network."),
    ),
)

JOB = JobView(
    job="3fa2c17b" * 8,
    kernel="prime_count",
    params={"start": 0, "stop": 1_000_000_000},
    state="running",
    verify="final",
    units=UnitCounts(total=64, pending=11, leased=8, committed=4, final=41),
    replicas=84,
    rejected=0,
    workers={PEERS[0]: 31, PEERS[1]: 22, PEERS[2]: 9, ME: 20},
    rejections=(),
    result=None,
    error=None,
    age_s=95.0,
    eta_s=48.0,
)

WORKING = replace(
    ALONE,
    state="working",
    reason=Reason("units", "Computing 2 units for …f7mTq4Ws and handing in 1.", {"units": 3}),
    network="connected",
    uptime_s=8_043.0,
    peers=(peer(0), peer(1), peer(2)),
    units=(
        UnitView("3fa2c17b" * 8, 45, "prime_count", "running", 0.63, 12.0, PEERS[0]),
        UnitView("3fa2c17b" * 8, 52, "prime_count", "running", 0.18, 3.4, PEERS[0]),
        UnitView("c01d88aa" * 8, 7, "mandelbrot", "committed", 1.0, 21.0, PEERS[1]),
        UnitView("c01d88aa" * 8, 9, "mandelbrot", "queued", 0.0, 0.0, PEERS[1]),
    ),
    jobs=(
        JOB,
        replace(
            JOB,
            job="9b40d2e1" * 8,
            kernel="mandelbrot",
            state="done",
            units=UnitCounts(total=16, final=16),
            eta_s=None,
        ),
    ),
    units_done=124,
    units_verified=118,
    credit_micro=12_354_321,
    cpu_percent=47.0,
    pss_bytes=231_000_000,
    known_workers=3,
    standings=(
        StandingView(PEERS[2], "", "", "named", 10_000, 166.7, 0.05, 0),
        StandingView(PEERS[1], "cpu/x86_64", "exact", "newcomer", 4, 0.002, 1.0, 0),
        StandingView(PEERS[0], "cpu/x86_64", "exact", "known", 1480, 141.5, 0.056, 0),
        StandingView(PEERS[3], "gpu/x86_64", "exact", "known", 31, 0.4, 0.954, 0),
    ),
    log=log(
        (95, "info", "Job 3fa2c1 published: prime_count in 64 units."),
        (64, "info", "Peer …N5vRx8Ju connected (12 ms)."),
        (31, "good", "Unit 3fa2c1/38 accepted: two workers agree."),
        (22, "good", "Unit c01d88/3, computed here, was accepted by …Zp9Lk2Ha."),
        (12, "info", "Took unit 3fa2c1/45 of prime_count from …f7mTq4Ws."),
        (3, "info", "Took unit 3fa2c1/52 of prime_count from …f7mTq4Ws."),
    ),
)

PAUSED = replace(
    WORKING,
    state="paused",
    reason=Reason("paused_by_user", "Paused by you. Press space to compute again."),
    units=(replace(WORKING.units[0], state="paused"), replace(WORKING.units[1], state="paused")),
    cpu_percent=0.3,
    log=(*WORKING.log, LogLine(NOW - 1, "info", "Paused by you; 2 running units are suspended.")),
)

_LOST = StandingView(PEERS[3], "gpu/x86_64", "exact", "newcomer", 0, 0.0, 1.0, 1)
_LIE = Reason("quorum_disagrees", "Two other workers agree on a different result.")
REJECTED = replace(
    WORKING,
    peers=(*WORKING.peers, peer(3, units_rejected=2, violations=1, standing="rejected")),
    known_workers=2,
    standings=(*WORKING.standings[:3], _LOST),
    jobs=(replace(JOB, rejected=2, rejections=(Rejection(17, PEERS[3], _LIE),)), WORKING.jobs[1]),
    log=(
        *WORKING.log,
        LogLine(
            NOW - 1,
            "error",
            "Unit 3fa2c1/17 from …Bad1iArs is wrong: two others agree on another result.",
        ),
    ),
)

HOSTILE_TEXT = (
    "[bold red]own[/] [@click=app.quit]me[/]\x1b[2J\x1b]0;title\x07\u202e漢字漢字漢字 "
    "e\u0301\u0301\u0301 \U0001f469\u200d\U0001f467 \r\nnext"
)
HOSTILE = replace(
    WORKING,
    net="[b]net[/b]",
    reason=Reason("hostile", HOSTILE_TEXT),
    peers=(peer(0, agent=HOSTILE_TEXT, peer_id="[red]" + "漢" * 40), peer(1, agent="[/]" * 5000)),
    units=(UnitView("[x]" * 20, 1_000_000, "[red]漢字漢字漢字漢字", "running", 7.5, 1e9, "[/b]"),),
    jobs=(
        replace(JOB, kernel="漢字漢字漢字漢字漢字", state="failed", error=HOSTILE_TEXT),
        replace(JOB, kernel="[/]", units=UnitCounts(total=0)),
    ),
    standings=(StandingView("[b]" + "漢" * 40, HOSTILE_TEXT, "[/]", "known", 10**15, 1e12, 0.05, 10**15),),
    log=log((5, "warning", HOSTILE_TEXT), (4, "error", "[unclosed [tag=" + "x" * 300)),
)

_NOW_MS = int(NOW * 1000)
_BALANCES = (0, 3, 5, 4, 6, 9, 8, 11, 10, 12, 15, 14, 12, 13)
EARNING = CreditView(
    account="8d21f07c" * 8,
    peer_id=ME,
    own=True,
    state="ready",
    reason=Reason(
        "account_ready", "Ready: pay is claimed by itself, and 22.354321 credits can be set aside for jobs."
    ),
    balance_micro=12_354_321,
    held_micro=2_000_000,
    earned_micro=20_000_000,
    spent_micro=5_645_679,
    limit_micro=10_000_000,
    spendable_micro=22_354_321,
    pending_micro=1_144,
    unlimited=False,
    incarnation=0,
    entries=57,
    history=(
        *(BalancePoint(_NOW_MS - (14 - n) * 900_000, value * 1_000_000) for n, value in enumerate(_BALANCES)),
        BalancePoint(_NOW_MS, 12_354_321),
    ),
    partners=(
        PartnerView("c01d88aa" * 8, PEERS[0], 17_250_000, 0),
        PartnerView("3fa2c17b" * 8, PEERS[1], 2_750_000, 5_600_000),
        PartnerView("9b40d2e1" * 8, "", 0, 45_679),
    ),
    partner_count=3,
    escrows=(EscrowView("3fa2c17b" * 8, 2_000_000, 400_000, 0, 120_000, False),),
    escrow_count=1,
    pending=(
        EntryView(0, 56, _NOW_MS, "work", "c01d88aa" * 8, 1_144, "pending:hold",
                  "the hold that it is to be paid from is not known here"),
    ),
    pending_count=1,
    void=(),
    void_count=0,
    forks=(ForkView("77aa00ff" * 8, PEERS[3], 0, 12, _NOW_MS - 3_600_000),),
    fork_count=1,
)  # fmt: skip
UNOPENED = replace(
    EARNING,
    reason=Reason("account_unopened", "Not opened yet: it opens by itself with the first pay or job."),
    balance_micro=0, held_micro=0, earned_micro=0, spent_micro=0, spendable_micro=10_000_000, pending_micro=0,
    entries=0,
    history=(BalancePoint(_NOW_MS, 0),), partners=(), partner_count=0, escrows=(), escrow_count=0, pending=(),
    pending_count=0, forks=(), fork_count=0,
)  # fmt: skip
FORKED = replace(
    EARNING,
    state="forked",
    reason=Reason(
        "account_forked", "This account signed two entries for one place and can spend no more; use a new identity."
    ),
    balance_micro=-(2**80),
    spent_micro=2**80 + 18_000_000,
    spendable_micro=0,
    partners=(PartnerView("[b]" * 20, "[red]" + "漢" * 40, 2**70, -(2**80)),),
    pending=(EntryView(9, 2**39, (1 << 53) - 1, HOSTILE_TEXT, "[/]" * 20, 2**53, "[/b]", HOSTILE_TEXT),),
    void=(EntryView(0, 3, 0, "hold", "", 0, "void:forked", "the account signed two entries for one place"),),
    void_count=10**9,
    forks=(ForkView(EARNING.account, ME, 0, 3, 0), ForkView("[/]" * 20, "[/b]" * 9, 0, 2**39, -1)),
    fork_count=2,
)
ACCOUNTS = {"earning": EARNING, "unopened": UNOPENED, "forked": FORKED}

SCENES = {
    "starting": STARTING,
    "alone": ALONE,
    "working": WORKING,
    "paused": PAUSED,
    "rejected": REJECTED,
    "hostile": HOSTILE,
}


class Polled(Protocol):
    """The one thing that a scene needs of the app."""

    def poll(self) -> None: ...


class Pictured(Protocol):
    """A node whose picture can be set."""

    picture: NodeView


def live_through(app: Polled, node: Pictured, clock: "Moving") -> None:
    """Let the last half minute pass, second by second, so that the CPU curve and recent counts are there."""
    final = node.picture
    for second in range(40):
        load = CPU[second % len(CPU)] / max(CPU) * final.cpu_percent
        verified = max(0, final.units_verified - (39 - second) // 4)
        node.picture = replace(final, cpu_percent=float(load), units_verified=verified)
        clock.now = NOW - 40 + second
        app.poll()
    node.picture = final
    clock.now = NOW
    app.poll()


class Moving(Protocol):
    """A clock that can be set."""

    now: float
