//! Access control lists, each kept once.
//!
//! A million nodes have a handful of different lists. A node holds a small number; the list itself is stored once, counted,
//! and forgotten with the last node that used it.

use corral_proto::AclList;
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;

/// The number of a list in its [`AclTable`]. Means nothing outside of this tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AclId(NonZeroU32);

impl AclId {
    fn new(slot: usize) -> AclId {
        AclId(NonZeroU32::new(slot as u32 + 1).expect("fewer than 2^32 - 1 lists"))
    }

    fn slot(self) -> usize {
        self.0.get() as usize - 1
    }
}

/// All lists that nodes have.
#[derive(Debug, Default)]
pub struct AclTable {
    ids: BTreeMap<Arc<[u8]>, AclId>,
    lists: Vec<Option<Shared>>,
    free: Vec<AclId>,
}

#[derive(Debug)]
struct Shared {
    encoded: Arc<[u8]>,
    users: u64,
}

impl AclTable {
    /// The number of `acl`, with one user more.
    pub fn intern(&mut self, acl: AclList<'_>) -> AclId {
        if let Some(id) = self.ids.get(acl.encoded()) {
            self.lists[id.slot()].as_mut().expect("has users").users += 1;
            return *id;
        }
        let encoded: Arc<[u8]> = acl.encoded().into();
        let shared = Some(Shared { encoded: encoded.clone(), users: 1 });
        let id = self.free.pop().unwrap_or(AclId::new(self.lists.len()));
        match self.lists.get_mut(id.slot()) {
            Some(slot) => *slot = shared,
            None => self.lists.push(shared),
        }
        self.ids.insert(encoded, id);
        id
    }

    /// One user less.
    pub fn release(&mut self, id: AclId) {
        let slot = &mut self.lists[id.slot()];
        let shared = slot.as_mut().expect("has users");
        shared.users -= 1;
        if shared.users == 0 {
            self.ids.remove(&shared.encoded);
            *slot = None;
            self.free.push(id);
        }
    }

    /// The list with that number.
    pub fn get(&self, id: AclId) -> AclList<'_> {
        AclList::from_encoded(self.shared(id)).expect("was a list when it was interned")
    }

    /// The list's bytes, to keep beyond the tree's lock.
    pub fn shared(&self, id: AclId) -> &Arc<[u8]> {
        &self.lists[id.slot()].as_ref().expect("has users").encoded
    }

    /// The bytes of all lists.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<[u8]>> {
        self.ids.keys()
    }

    /// How many different lists there are.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// True when no node has a list.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_lives_as_long_as_it_has_users() {
        let mut table = AclTable::default();
        let open = table.intern(AclList::OPEN);
        assert_eq!(table.intern(AclList::OPEN), open);
        let read = table.intern(AclList::READ_ONLY);
        assert_eq!((table.get(open), table.get(read), table.len()), (AclList::OPEN, AclList::READ_ONLY, 2));
        table.release(open);
        table.release(open);
        assert_eq!(table.len(), 1);
        assert_eq!(table.intern(AclList::OPEN), open, "its number is used again");
    }
}
