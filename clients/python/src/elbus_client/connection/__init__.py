"""The connection of a client: connecting, writing, reading, reconnecting. Never the public interface."""
