"""The ledger under load: durable decisions and outcomes."""
