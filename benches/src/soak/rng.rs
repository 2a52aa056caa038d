//! Numbers by chance that are the same for the same seed (xorshift64*). Owns nothing else: no secret depends on them.

#[derive(Debug, Clone)]
pub(super) struct Chance(u64);

impl Chance {
    /// A sequence of its own for each `part` of the same seed.
    pub(super) fn new(seed: u64, part: u64) -> Self {
        Chance((seed ^ part.wrapping_mul(0x9E37_79B9_7F4A_7C15)) | 1)
    }

    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32) % end.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_is_the_same_sequence_and_each_part_another() {
        let of = |seed, part| {
            let mut chance = Chance::new(seed, part);
            (0..8).map(|_| chance.below(1000)).collect::<Vec<_>>()
        };
        assert_eq!(of(1, 2), of(1, 2));
        assert_ne!(of(1, 2), of(1, 3));
        assert_ne!(of(1, 2), of(3, 2));
        assert!(of(0, 0).iter().any(|number| *number > 0));
    }
}
