//! An approximate LRU cache.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;

/// Keeps between half of its capacity and all of it. Forgets the entries that were not used.
pub(crate) struct Lru<K, V> {
    half: usize,
    new: HashMap<K, V>,
    old: HashMap<K, V>,
}

impl<K: Eq + Hash, V: Clone> Lru<K, V> {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            half: capacity / 2,
            new: HashMap::new(),
            old: HashMap::new(),
        }
    }

    pub(crate) fn get<Q>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        if let Some(value) = self.new.get(key) {
            return Some(value.clone());
        }
        let (key, value) = self.old.remove_entry(key)?;
        self.insert(key, value.clone());
        Some(value)
    }

    pub(crate) fn insert(&mut self, key: K, value: V) {
        if self.new.len() >= self.half {
            self.old = std::mem::take(&mut self.new);
        }
        self.old.remove(&key);
        self.new.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_looked_at_again_and_again_is_not_forgotten_and_the_rest_is() {
        let mut recent = Lru::new(10);
        recent.insert(0, 'a');
        for other in 1..100 {
            recent.insert(other, 'b');
            assert_eq!(recent.get(&0), Some('a'), "after {other} others");
            assert!(recent.new.len() + recent.old.len() <= 10);
        }
        assert_eq!(recent.get(&1), None);
    }

    #[test]
    fn of_two_values_of_a_key_the_later_is_found() {
        let mut recent = Lru::new(4);
        for value in 0..10 {
            recent.insert('a', value);
            recent.insert(char::from(b'b' + value), value);
            assert_eq!(recent.get(&'a'), Some(value));
        }
    }
}
