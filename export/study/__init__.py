"""Study: every method beside the dense baseline, with the same data, schedule and seeds."""
