"""What the statistics promise, measured in seeded markets whose truth is known."""
