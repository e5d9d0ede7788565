//! A slab whose keys carry a generation: a key that outlived its entry finds nothing, never a stranger.

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Key {
    pub index: u32,
    pub generation: u32,
}

impl Key {
    pub const fn as_u64(self) -> u64 {
        (self.generation as u64) << 32 | self.index as u64
    }

    pub const fn from_u64(bits: u64) -> Self {
        Key { index: bits as u32, generation: (bits >> 32) as u32 }
    }
}

enum Entry<T> {
    Vacant { generation: u32, next: Option<u32> },
    Occupied { generation: u32, value: T },
}

pub struct Slab<T> {
    entries: Vec<Entry<T>>,
    free: Option<u32>,
    len: usize,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Slab { entries: Vec::new(), free: None, len: 0 }
    }
}

impl<T> Slab<T> {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn insert(&mut self, value: T) -> Key {
        self.len += 1;
        if let Some(index) = self.free {
            let entry = &mut self.entries[index as usize];
            let Entry::Vacant { generation, next } = *entry else { unreachable!("the free list holds vacant entries") };
            self.free = next;
            *entry = Entry::Occupied { generation, value };
            return Key { index, generation };
        }
        let index = u32::try_from(self.entries.len()).expect("fewer than 2^32 entries");
        self.entries.push(Entry::Occupied { generation: 0, value });
        Key { index, generation: 0 }
    }

    pub fn remove(&mut self, key: Key) -> Option<T> {
        match self.entries.get(key.index as usize) {
            Some(Entry::Occupied { generation, .. }) if *generation == key.generation => {}
            _ => return None,
        }
        let vacant = Entry::Vacant { generation: key.generation.wrapping_add(1), next: self.free };
        let entry = std::mem::replace(&mut self.entries[key.index as usize], vacant);
        self.free = Some(key.index);
        self.len -= 1;
        match entry {
            Entry::Occupied { value, .. } => Some(value),
            Entry::Vacant { .. } => unreachable!("checked above"),
        }
    }

    pub fn get(&self, key: Key) -> Option<&T> {
        match self.entries.get(key.index as usize) {
            Some(Entry::Occupied { generation, value }) if *generation == key.generation => Some(value),
            _ => None,
        }
    }

    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        match self.entries.get_mut(key.index as usize) {
            Some(Entry::Occupied { generation, value }) if *generation == key.generation => Some(value),
            _ => None,
        }
    }

    /// By index alone, for callers whose own invariant says that the entry lives.
    pub fn at(&self, index: u32) -> Option<&T> {
        match self.entries.get(index as usize) {
            Some(Entry::Occupied { value, .. }) => Some(value),
            _ => None,
        }
    }

    pub fn at_mut(&mut self, index: u32) -> Option<&mut T> {
        match self.entries.get_mut(index as usize) {
            Some(Entry::Occupied { value, .. }) => Some(value),
            _ => None,
        }
    }

    pub fn key_at(&self, index: u32) -> Option<Key> {
        match self.entries.get(index as usize) {
            Some(Entry::Occupied { generation, .. }) => Some(Key { index, generation: *generation }),
            _ => None,
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.entries.iter().enumerate().filter_map(|(index, entry)| match entry {
            Entry::Occupied { generation, value } => {
                Some((Key { index: index as u32, generation: *generation }, value))
            }
            Entry::Vacant { .. } => None,
        })
    }

    pub fn keys(&self) -> Vec<Key> {
        self.iter().map(|(key, _)| key).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_key_finds_nothing() {
        let mut slab = Slab::default();
        let old = slab.insert('a');
        assert_eq!(slab.remove(old), Some('a'));
        let new = slab.insert('b');
        assert_eq!(new.index, old.index);
        assert_eq!(slab.get(old), None);
        assert_eq!(slab.remove(old), None);
        assert_eq!(slab.get(new), Some(&'b'));
        assert_eq!(Key::from_u64(new.as_u64()), new);
        assert_eq!(slab.len(), 1);
    }
}
