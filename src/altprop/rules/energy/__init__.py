"""Rules that relax states down an energy."""
