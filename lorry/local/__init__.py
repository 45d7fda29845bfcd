"""The real parts as child processes on one machine."""
