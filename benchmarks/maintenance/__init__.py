"""What keeps the product going: schedulers and their jobs, backups and restores."""
