"""The domain and its ledger: what decides, and what is remembered."""

__version__ = "0.1.0"
"""Code version stored with every decision; the same as the distribution's."""
