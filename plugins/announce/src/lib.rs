//! Announcements of ELBUS: who comes, who goes, when the broker ends.
