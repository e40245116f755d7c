"""Claims about what lies between a bot and the service."""
