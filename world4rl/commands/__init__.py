"""The commands for people, a module a subject; each adds its own to the command line and imports what is heavy late."""
