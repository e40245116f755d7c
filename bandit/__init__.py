"""The domain and its ledger: what decides, and what is remembered."""
