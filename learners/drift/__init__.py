"""Drift: whether the present still looks like what a policy was trained on (docs/drift.md)."""
