# Made by scripts/blocking_client.py of lorry/client/awaited: change it there.
"""The public API, called and waited for; made of `awaited`."""
