"""Who may use which adapter when: leases, admission and bounded tiers.

Pure: no vLLM, no I/O, no threads. One event loop, nothing polls; time comes from a clock that is passed in.
"""
