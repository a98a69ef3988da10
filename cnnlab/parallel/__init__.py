"""Several processes: those of one run, and those of many."""
