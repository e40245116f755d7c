"""Speed claims, each measured beside its yardstick in the same run (README.md)."""
