"""Where demonstrations arrive: a folder that people copy datasets into, and the book of what became of each."""
