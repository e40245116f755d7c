"""What keeps the product going: schedulers and their jobs."""
