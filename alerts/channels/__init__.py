"""Ways to reach people: what each is sent, and how."""
