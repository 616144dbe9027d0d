"""Generations of the world model: refreshed with rollouts of the policy that was refined in it, and compared."""
