//! The broker's own address, .broker, on the bus.
