"""What keeps the product going: schedulers and their jobs."""
"""What keeps a ledger safe while nobody looks."""
