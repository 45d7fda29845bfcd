"""Erasing a user everywhere: who walks the stores, what each of them does, and the disks of this composition."""
