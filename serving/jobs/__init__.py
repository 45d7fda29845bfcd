"""Batch extraction: the profiles of many users as one durable job, worked off by any number of processes.

The queue is ours: a user in hand is a row with a lease, and whatever a worker finishes is one transaction.
"""
