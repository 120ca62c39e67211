//! What a watch tells a client.

use crate::jute::{Decoder, Jute, JuteError, put_string, string_len};
use bytes::BufMut;

/// The events that a server sends. Others (session state, removed watches) are made up inside clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i32)]
#[allow(missing_docs, reason = "the names are the protocol's own")]
pub enum EventType {
    NodeCreated = 1,
    NodeDeleted = 2,
    NodeDataChanged = 3,
    NodeChildrenChanged = 4,
}

/// The body of a notification. Its state field is always 3, SyncConnected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatcherEvent<'a> {
    /// What happened.
    pub kind: EventType,
    /// To which node.
    pub path: &'a str,
}

const SYNC_CONNECTED: i32 = 3;

impl<'a> WatcherEvent<'a> {
    /// Reads one (a client does).
    pub fn decode(d: &mut Decoder<'a>) -> Result<WatcherEvent<'a>, JuteError> {
        let kind = match d.int()? {
            1 => EventType::NodeCreated,
            2 => EventType::NodeDeleted,
            3 => EventType::NodeDataChanged,
            4 => EventType::NodeChildrenChanged,
            value => return Err(JuteError::Unknown { what: "an event type", value }),
        };
        let _state = d.int()?;
        Ok(WatcherEvent { kind, path: d.string("the path of an event")? })
    }
}

impl Jute for WatcherEvent<'_> {
    fn encoded_len(&self) -> usize {
        8 + string_len(self.path)
    }

    fn encode<B: BufMut>(&self, out: &mut B) {
        out.put_i32(self.kind as i32);
        out.put_i32(SYNC_CONNECTED);
        put_string(out, self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::response::ReplyHeader;
    use crate::{Xid, Zxid};

    /// The example of the protocol reference: NodeDataChanged on /a by zxid 0x2a.
    #[test]
    fn a_notification_has_the_documented_bytes() {
        let mut out = Vec::new();
        ReplyHeader { xid: Xid::NOTIFICATION, zxid: Zxid(0x2a), error: 0 }.encode(&mut out);
        WatcherEvent { kind: EventType::NodeDataChanged, path: "/a" }.encode(&mut out);
        let hex: String = out.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, "ffffffff000000000000002a000000000000000300000003000000022f61");
    }
}
