//! A slab whose keys carry a generation: a key that outlived its entry finds nothing, never a stranger.
//!
//! Entries lie in chunks that never move. One growing array would be copied at each doubling, and what it leaves behind
//! stays resident: with ten thousand connections that was 0.4 KiB for each of them.

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

impl<T> Entry<T> {
    const fn generation(&self) -> u32 {
        match self {
            Entry::Vacant { generation, .. } | Entry::Occupied { generation, .. } => *generation,
        }
    }
}

const CHUNK: usize = 256;

pub struct Slab<T> {
    /// All but the last are full.
    chunks: Vec<Vec<Entry<T>>>,
    free: Option<u32>,
    len: usize,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Slab { chunks: Vec::new(), free: None, len: 0 }
    }
}

impl<T> Slab<T> {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn entry(&self, index: u32) -> Option<&Entry<T>> {
        self.chunks.get(index as usize / CHUNK)?.get(index as usize % CHUNK)
    }

    fn entry_mut(&mut self, index: u32) -> Option<&mut Entry<T>> {
        self.chunks.get_mut(index as usize / CHUNK)?.get_mut(index as usize % CHUNK)
    }

    pub fn insert(&mut self, value: T) -> Key {
        self.len += 1;
        if let Some(index) = self.free {
            let entry = self.entry_mut(index).expect("the free list holds entries");
            let Entry::Vacant { generation, next } = *entry else { unreachable!("the free list holds vacant entries") };
            *entry = Entry::Occupied { generation, value };
            self.free = next;
            return Key { index, generation };
        }
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        let before = (self.chunks.len() - 1) * CHUNK;
        let chunk = self.chunks.last_mut().expect("one was just made");
        let index = u32::try_from(before + chunk.len()).expect("fewer than 2^32 entries");
        chunk.push(Entry::Occupied { generation: 0, value });
        Key { index, generation: 0 }
    }

    pub fn remove(&mut self, key: Key) -> Option<T> {
        let vacant = Entry::Vacant { generation: key.generation.wrapping_add(1), next: self.free };
        let entry = match self.entry_mut(key.index)? {
            entry @ Entry::Occupied { .. } if entry.generation() == key.generation => std::mem::replace(entry, vacant),
            _ => return None,
        };
        self.free = Some(key.index);
        self.len -= 1;
        match entry {
            Entry::Occupied { value, .. } => Some(value),
            Entry::Vacant { .. } => unreachable!("checked above"),
        }
    }

    pub fn get(&self, key: Key) -> Option<&T> {
        match self.entry(key.index) {
            Some(Entry::Occupied { generation, value }) if *generation == key.generation => Some(value),
            _ => None,
        }
    }

    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        match self.entry_mut(key.index) {
            Some(Entry::Occupied { generation, value }) if *generation == key.generation => Some(value),
            _ => None,
        }
    }

    /// By index alone, for callers whose own invariant says that the entry lives.
    pub fn at(&self, index: u32) -> Option<&T> {
        match self.entry(index) {
            Some(Entry::Occupied { value, .. }) => Some(value),
            _ => None,
        }
    }

    pub fn at_mut(&mut self, index: u32) -> Option<&mut T> {
        match self.entry_mut(index) {
            Some(Entry::Occupied { value, .. }) => Some(value),
            _ => None,
        }
    }

    pub fn key_at(&self, index: u32) -> Option<Key> {
        match self.entry(index) {
            Some(Entry::Occupied { generation, .. }) => Some(Key { index, generation: *generation }),
            _ => None,
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.chunks.iter().flatten().enumerate().filter_map(|(index, entry)| match entry {
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

    #[test]
    fn keys_find_their_entries_beyond_one_chunk() {
        let mut slab = Slab::default();
        let keys: Vec<Key> = (0..3 * CHUNK).map(|number| slab.insert(number)).collect();
        for (number, &key) in keys.iter().enumerate() {
            assert_eq!(slab.get(key), Some(&number));
            assert_eq!(slab.key_at(key.index), Some(key));
        }
        assert_eq!(slab.iter().count(), 3 * CHUNK);
        assert_eq!(slab.remove(keys[CHUNK + 1]), Some(CHUNK + 1));
        assert_eq!(slab.insert(0).index, keys[CHUNK + 1].index);
    }
}
