//! Sorts values by a number.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Returns the values in the order of their numbers, which are all different.
///
/// Only the numbers are sorted, on a heap. So the program has the code of one small sort for all
/// values, where the sorts of the standard library are 4 kB for each type.
pub(crate) fn in_order<T>(values: Vec<T>, number: impl Fn(&T) -> u64) -> impl Iterator<Item = T> {
    let mut order = Order::default();
    for value in &values {
        order.add(number(value));
    }
    let mut values: Vec<_> = values.into_iter().map(Some).collect();
    std::iter::from_fn(move || values[order.next()?].take())
}

/// The numbers with the places of their values. Its methods are never inlined, so they exist once.
#[derive(Default)]
struct Order(BinaryHeap<Reverse<(u64, usize)>>);

impl Order {
    #[inline(never)]
    fn add(&mut self, number: u64) {
        let index = self.0.len();
        self.0.push(Reverse((number, index)));
    }

    #[inline(never)]
    fn next(&mut self) -> Option<usize> {
        let Reverse((_, index)) = self.0.pop()?;
        Some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_in_the_order_of_their_numbers() {
        let values = vec!["c", "a", "d", "b"];
        let number = |value: &&str| u64::from(value.as_bytes()[0]);
        assert_eq!(
            in_order(values, number).collect::<Vec<_>>(),
            ["a", "b", "c", "d"]
        );
        assert_eq!(in_order(Vec::<u64>::new(), |n| *n).count(), 0);
    }
}
