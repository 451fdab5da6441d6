"""Puts what happens and how things stand into plain sentences."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from sparkle_p2p.config import NodeConfig
from sparkle_p2p.net.overlay import Link, Overlay
from sparkle_p2p.node.diary import Diary, Level
from sparkle_p2p.view import Reason, Safety
from sparkle_protocol import effects as fx
from sparkle_protocol.ids import short_peer
from sparkle_protocol.presence import Clone
from sparkle_protocol.trust.parameters import TRUST_RULES
from sparkle_protocol.work.worker import WorkerAgent

NetworkState = Literal["starting", "alone", "connected", "down"]
NodeState = Literal["working", "idle", "paused", "stopping"]
Fields = Mapping[str, Any]
CERTIFYING_PEERS = 4  # three quarters of fewer would be everybody: nobody might lie or leave


CLONED = (
    "Another machine runs with a copy of this node's key, so this one takes on nothing: "
    "stop one of them, then start the other again."
)


def _job(fields: Fields) -> str:
    return str(fields["job"])[:8]


def why_keepers(reason: str) -> str:
    """Why others keep a job than before."""
    return _KEEPERS_CHANGED.get(reason, reason)


_KEEPERS_CHANGED = {
    "grown": "more nodes can",
    "agreed": "those that went were replaced",
    "recovered": "too few of them could be reached",
    "renewed": "they decide anew",
}

# what has become of this node's account in the ledger
ACCOUNT_STATES = {
    "learning": "Credit: other nodes are asked for the state of this account",
    "ready": "Credit: this node's account is ready",
    "lost": "Credit: entries that this account signed are missing here, and nobody who is linked has them",
    "forked": "Credit: this account signed two entries for one place and can spend no more",
    "revoked": "Credit: the key of this account was revoked",
    "cloned": "Credit: nothing more is signed here, as another node runs with the identity of this one",
}

# event -> (level, sentence); events that come too often for a log have none
_SENTENCES: dict[str, tuple[Level, Callable[[Fields], str]]] = {
    "job_submitted": ("info", lambda f: f"Job {_job(f)}: {f['kernel']} in {f['units']} units published"),
    "job_published": (
        "good",
        lambda f: f"Job {_job(f)} is held by {f['holding']} of {many(int(f['keepers']), 'keeper')}",
    ),
    "keepers_changed": (
        "info",
        lambda f: f"Job {_job(f)} is kept by {many(int(f['keepers']), 'node')} now: {why_keepers(str(f['reason']))}",
    ),
    "job_done": ("good", lambda f: f"Job {_job(f)} is done"),
    "job_cancelled": ("info", lambda f: f"Job {_job(f)} was cancelled"),
    "job_failed": ("error", lambda f: f"Job {_job(f)} failed: {f['error']}"),
    "result_rejected": ("warning", lambda f: f"Our result for unit {f['unit']} of {_job(f)} was rejected"),
    "worker_rejected": (
        "warning",
        lambda f: (
            f"{short_peer(f['peer'])} gave a wrong result for unit {f['unit']} of {_job(f)}; it gets no more of it"
        ),
    ),
    "trusted_failed": (
        "error",
        lambda f: (
            f"{short_peer(f['peer'])} is named as trusted, but a result of it was proven wrong: it is not believed "
            "any more. Ask its owner; to name it anew with --trust, start this node once without it, then with it"
        ),
    ),
    "workers_vouched": (
        "info",
        lambda f: (
            f"{short_peer(f['peer'])}, whom you named, knows {many(int(f['workers']), 'worker')} that count now"
        ),
    ),
    "keeper_away": ("warning", lambda f: f"Job {_job(f)}: nothing is heard of keeper {short_peer(f['peer'])}"),
    "keeper_back": ("info", lambda f: f"Job {_job(f)}: keeper {short_peer(f['peer'])} is back"),
    "keeper_refused": (
        "warning",
        lambda f: f"Job {_job(f)}: {short_peer(f['peer'])} does not keep it: {f['reason']}",
    ),
    "duty_taken": (
        "info",
        lambda f: f"Job {_job(f)}: its submitter {short_peer(f['peer'])} is away; this node hands out a part of it",
    ),
    "duty_returned": ("info", lambda f: f"Job {_job(f)}: its submitter {short_peer(f['peer'])} goes on with it"),
    "job_released": ("info", lambda f: f"Job {_job(f)} of {short_peer(f['peer'])} is over and kept no longer"),
    "class_excluded": (
        "warning",
        lambda f: f"Job {_job(f)}: devices of class {f['device']} get no more of it for now; {f['reason']}",
    ),
    "unit_failed": ("error", lambda f: f"Unit {f['unit']} of {_job(f)} failed here: {f['text']}"),
    "lease_expired": (
        "warning",
        lambda f: f"{short_peer(f['peer'])} did not finish unit {f['unit']} of {_job(f)} in time; others get it",
    ),
    "unit_dead": (
        "warning",
        lambda f: f"Nobody could compute unit {f['unit']} of {_job(f)}: {f['reason']}",
    ),
    "units_requeued": ("info", lambda f: f"Job {_job(f)}: {many(int(f['units']), 'dead unit')} begun anew"),
    "report_refused": ("warning", lambda f: f"The keeper of {_job(f)} wants no report: {f['text']}"),
    "peer_banned": (
        "warning",
        lambda f: f"{short_peer(f['peer'])} broke too many rules; ignored for {f['seconds']} s",
    ),
    "cloned": ("error", lambda f: f"{CLONED} {short_peer(f['told_by'])} showed it."),
    "peer_cloned": ("warning", lambda f: f"{short_peer(f['peer'])} runs twice: two machines have its key"),
    "own_id_elsewhere": (
        "warning",
        lambda f: (
            f"Somebody on the local network announces this node's identity at {f['address']}; "
            "if that is a machine of yours, its home directory is a copy of this one"
        ),
    ),
    "bootstrap_is_self": ("warning", lambda f: f"The bootstrap address {f['address']} is this node itself"),
    "bootstrap_unreachable": (
        "warning",
        lambda f: f"No connection to bootstrap {f['address']} (try {f['attempt']}): {f['reason']}",
    ),
    "clock_off": (
        "warning",
        lambda f: f"This machine's clock differs by {abs(int(f['seconds']))} s from that of {f['peers']} peers",
    ),
    "account_state": ("info", lambda f: ACCOUNT_STATES.get(str(f["state"]), f"Credit: {f['state']}")),
    "account_forked": (
        "warning",
        lambda f: (
            "This node's account signed two entries for one place and can spend no more; use a new identity"
            if f["own"]
            else f"Account {str(f['account'])[:8]} signed two entries for one place; nothing more of it counts"
        ),
    ),
    "pay_not_claimed": (
        "warning",
        lambda f: (
            f"Pay for {many(int(f['units']), 'unit')} of {_job(f)} could not be claimed: nobody shows the proof"
        ),
    ),
    "job_unfunded": (
        "warning",
        lambda f: f"No more work is taken of {_job(f)}: nobody shows that the pay for it was set aside",
    ),
    "storage_failed": ("error", lambda f: str(f["reason"])),
    "storage_restored": ("good", lambda f: "The database can be written again"),
}


def many(count: int, thing: str) -> str:
    """The count and its thing, in the plural where that is due: "1 peer", "2 peers"."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def tell(diary: Diary, effect: fx.Notify) -> None:
    """Publish an event and write its sentence, if it has one."""
    diary.publish(effect.event, effect.fields)
    sentence = _SENTENCES.get(effect.event)
    if sentence is not None:
        level, words = sentence
        diary.note(level, words(effect.fields))


def safety(peers: int, known: int = 0) -> Safety:
    """What is weaker with ``peers`` peers within reach, this node counted; ``known``: workers that count here."""
    if peers <= 1:
        sentence = (
            "Alone: only this node computes and accepts. Nobody else keeps your jobs, so closing it stops them."
        )
        return Safety("alone", sentence, max(1, peers))
    if peers < CERTIFYING_PEERS:
        sentence = (
            f"With {peers} nodes, this one included, only the submitter accepts: "
            "results found while it is away stay provisional until it is back."
        )
        return Safety("submitter_only", f"{sentence}{_strangers(known)}", peers)
    sentence = (
        f"{peers} nodes, this one included: keepers accept by certificate of three quarters, "
        "also while the submitter is away."
    )
    return Safety("certified", f"{sentence}{_strangers(known)}", peers)


def _strangers(known: int) -> str:
    """What it means that hardly anybody's answers count here."""
    if known >= TRUST_RULES.enough_known:
        return ""
    who = "Only one worker is" if known else "No worker is"
    return f" {who} known here by its work yet, so any two that agree decide a unit of your jobs."


def _stand(count: int) -> str:
    return "stands" if count == 1 else "stand"


def network_state(overlay: Overlay | None, links: Sequence[Link], ready: bool) -> NetworkState:
    """How the network stands."""
    if overlay is None or not ready:
        return "starting"
    if not overlay.addresses():
        return "down"
    return "connected" if links else "alone"


def node_state(
    worker: WorkerAgent, config: NodeConfig, network: NetworkState, peers: int, *, stopping: bool
) -> tuple[NodeState, Reason]:
    """What the node does, and why."""
    running = [*worker.begun]
    if stopping:
        return "stopping", Reason("stopping", "Handing back work and leaving the network.", {"running": len(running)})
    if worker.paused:
        sentence = "Paused by you."
        if running:
            sentence = f"Paused by you; {many(len(running), 'running unit')} {_stand(len(running))} still."
        return "paused", Reason("paused_by_user", sentence, {"suspended": len(running)})
    if running:
        job = running[0][0]
        kernel = worker.jobs[job].spec.kernel
        owner = worker.jobs[job].submitter
        whose = "your own job" if owner == worker.me else f"a job of {short_peer(owner)}"
        numbers = {"running": len(running), "held": len(worker.held)}
        return "working", Reason("computing", f"Computing {kernel} for {whose}.", numbers)
    return "idle", _idle_reason(worker, config, network, peers)


def cloned(clone: Clone) -> Reason:
    """Somebody else runs with our key."""
    return Reason("cloned", CLONED, {"statements": len(clone.statements)})


def storage_failed(failure: Exception) -> Reason:
    """Nothing can be kept, so nothing is promised either."""
    return Reason("storage_failed", f"Nothing can be stored: {failure}.")


def _idle_reason(worker: WorkerAgent, config: NodeConfig, network: NetworkState, peers: int) -> Reason:
    if not worker.kernels:
        flag = "--bootstrap-only" if config.bootstrap_only else "--no-work"
        return Reason("work_disabled", f"This node runs with {flag} and computes nothing.", {"peers": peers})
    if worker.held:
        numbers = {"held": len(worker.held)}
        return Reason("awaiting_decision", "Results are handed in; waiting for their check.", numbers)
    if network == "starting":
        return Reason("network_starting", "The network is starting.")
    if network == "down":
        return Reason("network_down", "The network service failed and is being restarted.")
    if network == "alone":
        hint = (
            "waiting for peers on the local network or a first connection" if config.mdns else "nobody connected yet"
        )
        if config.network_key is not None:
            hint += f"; only nodes with the key {config.network_key.fingerprint} of this private network can be"
        return Reason("no_peers", f"No other peers yet: {hint}.", {"bootstraps": len(config.bootstrap)})
    return Reason("no_work", f"{many(peers, 'peer')} connected; none has open work that fits.", {"peers": peers})
