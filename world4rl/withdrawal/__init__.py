"""Withdrawal of consent: what it would remove and what was made from it, and how it is carried out in the workspace."""
