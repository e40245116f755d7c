"""Metric catalogue, alert rules and notification channels."""
