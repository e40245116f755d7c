"""Claims about the core of the service."""
