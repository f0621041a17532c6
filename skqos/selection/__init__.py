"""From predictions to a choice: the best services of each user."""

from skqos.selection._rank_services import rank_services

__all__ = ["rank_services"]
