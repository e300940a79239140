"""The benchmark: plan, worker processes, scenarios, timing, cells, self-test."""
