"""Operation: the only place that knows time, schedules, HTTP and terminals."""
