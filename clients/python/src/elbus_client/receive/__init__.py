"""Received frames on their way to consumers. Never touches a socket."""
