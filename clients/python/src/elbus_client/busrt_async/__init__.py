"""The most used names of the package busrt-async, on top of this client: programs only change their imports.

    from elbus_client import busrt_async

docs/python-migration.md describes what they cover, and the names of this client.
"""

from elbus_client.busrt_async import client, rpc

__all__ = ["client", "rpc"]
