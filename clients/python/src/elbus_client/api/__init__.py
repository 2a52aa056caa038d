"""The public classes of the asyncio face. Owns their documentation; the work is done in ``connection``."""
