"""Whether the tests of the alert rules notice a rule that is spoilt."""
"""What alerts do, through the real Prometheus and Alertmanager."""
