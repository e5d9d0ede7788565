//! How often each of a few numeric codes came up: close codes, error codes.
//!
//! A sorted vector, because the codes are few and a worker's turn never walks them.

/// More kinds than the protocol has codes; a stranger code beyond it is counted under 0, so that nobody's invented
/// codes grow the table.
const CODES_MAX: usize = 64;

#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Codes(Vec<(u16, u64)>);

impl Codes {
    pub fn count(&mut self, code: u16) {
        self.add(code, 1);
    }

    pub fn get(&self, code: u16) -> u64 {
        self.0.binary_search_by_key(&code, |entry| entry.0).map_or(0, |at| self.0[at].1)
    }

    /// In order of code.
    pub fn iter(&self) -> impl Iterator<Item = (u16, u64)> + '_ {
        self.0.iter().copied()
    }

    pub fn total(&self) -> u64 {
        self.0.iter().map(|entry| entry.1).sum()
    }

    pub fn merge(&mut self, other: &Codes) {
        other.iter().for_each(|(code, n)| self.add(code, n));
    }

    fn add(&mut self, code: u16, n: u64) {
        match self.0.binary_search_by_key(&code, |entry| entry.0) {
            Ok(at) => self.0[at].1 += n,
            // One place is kept for code 0 itself.
            Err(_) if code != 0 && self.0.len() >= CODES_MAX - 1 => self.add(0, n),
            Err(at) => self.0.insert(at, (code, n)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_kept_in_order_and_added_up() {
        let mut codes = Codes::default();
        [3008, 3001, 3008, 3500].into_iter().for_each(|code| codes.count(code));
        assert_eq!(codes.iter().collect::<Vec<_>>(), [(3001, 1), (3008, 2), (3500, 1)]);
        assert_eq!(codes.get(3008), 2);
        assert_eq!(codes.get(1), 0);
        let mut other = codes.clone();
        other.merge(&codes);
        assert_eq!(other.total(), 8);
    }

    #[test]
    fn invented_codes_do_not_grow_the_table() {
        let mut codes = Codes::default();
        (1..=5000).for_each(|code| codes.count(code));
        assert_eq!(codes.0.len(), CODES_MAX);
        assert_eq!(codes.total(), 5000);
    }
}
