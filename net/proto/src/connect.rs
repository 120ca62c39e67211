//! The handshake: the first frame in each direction, the only ones without a header.

use crate::ids::{SessionId, Zxid};
use crate::jute::{Decoder, Jute, JuteError, buffer_len, put_buffer};
use bytes::BufMut;

/// What a client sends first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectRequest<'a> {
    /// 0 from every client; ignored.
    pub protocol_version: i32,
    /// The newest state this client has seen; a server that is behind it must not serve it.
    pub last_zxid_seen: Zxid,
    /// Wished session timeout in ms; the server clamps it.
    pub timeout_ms: i32,
    /// The session to go on with, or [`SessionId::NONE`].
    pub session_id: SessionId,
    /// The password of that session; anything (or nothing) for a new one.
    pub password: Option<&'a [u8]>,
    /// Whether a read-only server will do. `None` from clients that do not know the flag: they are answered without it.
    pub read_only: Option<bool>,
}

impl<'a> ConnectRequest<'a> {
    /// Reads one; the flag at the end may be missing.
    pub fn decode(bytes: &'a [u8]) -> Result<ConnectRequest<'a>, JuteError> {
        let mut d = Decoder::new(bytes);
        Ok(ConnectRequest {
            protocol_version: d.int()?,
            last_zxid_seen: Zxid(d.long()?),
            timeout_ms: d.int()?,
            session_id: SessionId(d.long()?),
            password: d.buffer()?,
            read_only: if d.is_empty() { None } else { Some(d.bool()?) },
        })
    }
}

impl Jute for ConnectRequest<'_> {
    fn encoded_len(&self) -> usize {
        24 + buffer_len(self.password) + usize::from(self.read_only.is_some())
    }

    fn encode<B: BufMut>(&self, out: &mut B) {
        out.put_i32(self.protocol_version);
        out.put_i64(self.last_zxid_seen.0);
        out.put_i32(self.timeout_ms);
        out.put_i64(self.session_id.0);
        put_buffer(out, self.password);
        if let Some(flag) = self.read_only {
            out.put_u8(flag.into());
        }
    }
}

/// What the server answers. A refused or expired session is answered with [`ConnectResponse::REFUSED`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectResponse {
    /// The negotiated timeout in ms; 0 says that the session is gone.
    pub timeout_ms: i32,
    /// The session.
    pub session_id: SessionId,
    /// What proves the session to any server of the ensemble.
    pub password: [u8; 16],
    /// Sent only to clients that sent the flag themselves (the C client needs it, go-zookeeper chokes on it;
    /// ZOOKEEPER-4814).
    pub read_only: Option<bool>,
}

impl ConnectResponse {
    /// The only sign of expiry that clients know: zero timeout, zero id, zero password.
    pub const REFUSED: ConnectResponse =
        ConnectResponse { timeout_ms: 0, session_id: SessionId::NONE, password: [0; 16], read_only: None };

    /// Reads one. A password of another length than 16 is an error.
    pub fn decode(bytes: &[u8]) -> Result<ConnectResponse, JuteError> {
        let mut d = Decoder::new(bytes);
        let _protocol_version = d.int()?;
        Ok(ConnectResponse {
            timeout_ms: d.int()?,
            session_id: SessionId(d.long()?),
            password: {
                let password = d.buffer()?.ok_or(JuteError::Null("the password"))?;
                password.try_into().map_err(|_| JuteError::BadLength(password.len() as i32))?
            },
            read_only: if d.is_empty() { None } else { Some(d.bool()?) },
        })
    }
}

impl Jute for ConnectResponse {
    fn encoded_len(&self) -> usize {
        36 + usize::from(self.read_only.is_some())
    }

    fn encode<B: BufMut>(&self, out: &mut B) {
        out.put_i32(0);
        out.put_i32(self.timeout_ms);
        out.put_i64(self.session_id.0);
        put_buffer(out, Some(&self.password));
        if let Some(flag) = self.read_only {
            out.put_u8(flag.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes that the reference gives for a typical new session.
    #[test]
    fn connect_request_has_the_documented_bytes() {
        let request = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: Zxid::ZERO,
            timeout_ms: 10_000,
            session_id: SessionId::NONE,
            password: Some(&[0; 16]),
            read_only: Some(false),
        };
        let bytes = request.to_vec();
        assert_eq!(bytes.len(), 45);
        assert_eq!(&bytes[12..16], [0, 0, 0x27, 0x10]);
        assert_eq!(ConnectRequest::decode(&bytes), Ok(request));
        assert_eq!(ConnectRequest::decode(&bytes[..44]).unwrap().read_only, None);
        assert!(ConnectRequest::decode(&bytes[..43]).is_err());
    }

    #[test]
    fn connect_response_carries_the_flag_only_when_asked() {
        let answer = ConnectResponse { read_only: Some(false), ..ConnectResponse::REFUSED };
        assert_eq!((ConnectResponse::REFUSED.to_vec().len(), answer.to_vec().len()), (36, 37));
        assert_eq!(ConnectResponse::decode(&answer.to_vec()), Ok(answer));
    }
}
