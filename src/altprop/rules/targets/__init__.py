"""Rules that tell every block what its units should have been: a target, or a pair of nudged states."""
