"""The most used names of the package busrt, on top of this client: programs only change their imports.

    from elbus_client import busrt

docs/python-migration.md describes what they cover, and the names of this client.
"""

from elbus_client.busrt import client, rpc

__all__ = ["client", "rpc"]
