//! Numbers without an order that a reader would see, and the same ones in each run.

/// A linear congruential generator; the same seed gives the same numbers.
#[derive(Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u32) -> Self {
        let mut dice = Self(seed.into());
        // The first numbers of neighbouring seeds are neighbours.
        dice.below(1);
        dice.below(1);
        dice
    }

    /// A number from 0 to `sides - 1`. `sides` is not 0.
    pub(crate) fn below(&mut self, sides: u32) -> u32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        // The lower bits have short periods.
        let upper = u32::try_from(self.0 >> 32).unwrap_or_default();
        upper % sides
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_side_comes_up_about_equally_often() {
        let mut counts = [0; 20];
        for seed in 0..24 {
            let mut dice = Dice::new(seed);
            for _ in 0..1000 {
                counts[dice.below(20) as usize] += 1;
            }
        }
        // 24 000 / 20, and six standard deviations to either side.
        assert!(
            counts.iter().all(|it| (1000..1400).contains(it)),
            "{counts:?}"
        );
    }
}
