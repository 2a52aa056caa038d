//! What the transports of ELBUS that carry byte streams share.
