"""Exports of the ledger and of policy state."""
