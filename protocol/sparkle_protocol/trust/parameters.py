"""The numbers of the trust policy, each with where it comes from.

They are judgements of one submitter about its own jobs, so a network need not agree on them; a study replaces them.
The law behind them (docs/explanation/policies.md): whoever is audited with probability a per result, and cheats when
it likes, has 1/a - 1 wrong results accepted before it is found out, however it chooses them. So what matters is how
much honest work it has to do for that.
"""

from dataclasses import dataclass

REFERENCE_FLOPS_PER_S = 2e9  # of the worker that ``work/leasing.py`` compares resources by


@dataclass(frozen=True, slots=True)
class TrustRules:
    """How trust is earned and what it saves."""

    # D: a worker with capital L (reference work that it was found right about) is audited with probability
    # D·w / (D·w + L) for a unit of work w. So a cheater gains L / (D·w) wrong results for L of honest work: one in D,
    # whenever it strikes. 500 keeps 20 % of such peers, who pass each other's audits, under 6e-4 wrong results.
    discount: float = 500.0
    # Units longer than a minute of the reference worker count as a minute, or nobody would ever be trusted with one.
    longest_unit_flops: float = 60.0 * REFERENCE_FLOPS_PER_S
    # Comparisons passed until a worker's answer counts at all, and it may check others. With 20, newcomers that lie
    # half of the time, and accusers, cost more than a quarter of the work where they are a fifth of the peers.
    passes_to_count: int = 60
    # Of known units so many are given to a newcomer as well while newcomers' answers prove right; the share falls
    # with those that do, to the least. A wave of liars costs twice that; one of honest peers is known in days.
    vetting_share: float = 0.12
    least_vetting_share: float = 0.01
    vetting_memory: int = 200  # answers of newcomers that the share is worked out from
    first_vettings: int = 4  # of each job, before it has known units
    # Passes of a candidate: one that would be known soon. While fewer than two thirds of the candidates are known,
    # plain voting goes on, or a network of newcomers would all at once have to wait for the first two of it. To bring
    # that about later takes honest work for half as many keys as there are known workers.
    candidate_passes: int = 15
    known_share: float = 2 / 3
    # What a result by an unknown peer is worth: one in five is wrong (Sarmenta 2001 takes the same).
    prior_wrong: float = 0.2
    # Nobody is believed more than this in a dispute, since peers may lie together: three more must agree than differ.
    most_credible: float = 0.95
    # Credibility that settles a dispute (TRUST).
    theta: float = 0.999
    # The same where nobody else can be asked: a majority.
    theta_of_few: float = 0.9
    # Passes that another submitter's jobs may contribute to a worker's capital: nobody vouches for a peer alone.
    passes_from_one_submitter: int = 15
    # How long a unit waits for workers that count before everybody does.
    patience_s: float = 60.0
    # One more of the workers drawn for an audit may take it after each of these.
    next_auditor_s: float = 1.0
    # Who asked for work or reported within ten minutes can be counted on (as in ``work/exclusion.py``).
    present_s: float = 600.0
    # Keepers of a view that draw honestly, with which audits are as frequent as the floor says (TRUST).
    honest_keepers: int = 3
    # Peers that count that must be known before newcomers' agreement stops being enough.
    enough_known: int = 2


TRUST_RULES = TrustRules()
