"""The wire protocol (docs/protocol.md): bytes and texts only. Never touches a socket or an event loop."""
