"""What a submitter states once its own job is done."""

from sparkle_ledger.evidence import JobRecord
from sparkle_protocol.facts import Cancel, FactCodec, Signer
from sparkle_protocol.work.kept_job import KeptJob


def say_done(record: JobRecord, kept: KeptJob, facts: FactCodec, signer: Signer) -> None:
    """Add the submitter's word that a job of its own needs no further work, once it is done.

    So that a few bytes show to anybody that what the job did not cost is free again, not all its verdicts.
    """
    if kept.mine and kept.outcome == "done" and record.complete and not record.cancelled:
        record.add(facts.seal(signer, Cancel(kept.state.id, "it is done")))
