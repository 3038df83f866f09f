"""Schema changes of results.db, in order; applied by evo.record only."""
