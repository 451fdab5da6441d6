"""The signed credit ledger: feeds, double-entry book, fork proofs."""
