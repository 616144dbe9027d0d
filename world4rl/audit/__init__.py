"""Answers an auditor's questions from the records alone; `provenance` keeps them, nothing here writes any."""
