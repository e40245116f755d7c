"""Schema of the ledger, one small additive step a file."""
