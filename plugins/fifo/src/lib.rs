//! The FIFO server of ELBUS: commands as lines of text.
