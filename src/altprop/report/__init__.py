"""What people see: the leaderboard in the terminal, the figures, and the page."""

from altprop.report.page import write

__all__ = ["write"]
