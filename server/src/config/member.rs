//! The servers that are listed, `server.N=…`, and what such a line has a say in: where clients are served.
//!
//! So far a server is alone. One line that lists it is accepted, as Apache's server does with one participant:
//! deployments write it also for a single server, and the official container image has the client port nowhere else.
//!
//! **Invariants**: more than one server, or an observer, is an error: a member of an ensemble that answered alone would
//! promise what its peers know nothing of.
//!
//! **Not here**: `myid` (`resolve::my_id`), resolving host names, the peers' own ports.

use super::ConfigError;
use super::file::Setting;
use super::resolve::{Given, bad, missing};
use std::path::Path;

/// A server's line: `host:quorumPort:electionPort[:role][;[clientHost:]clientPort]`. Of the part before the semicolon
/// only the form matters to a server alone.
pub(super) struct Member<'a> {
    /// Its number.
    pub(super) id: u8,
    setting: &'a Setting,
    /// Where it serves clients, if the line says so. The address may be missing.
    client: Option<(Option<String>, u16)>,
}

/// The one server that may be listed.
pub(super) fn listed(given: &Given) -> Result<Option<Member<'_>>, ConfigError> {
    let mut listed = given.family("server.");
    let (Some(setting), second) = (listed.next(), listed.next()) else { return Ok(None) };
    if let Some(second) = second {
        let wrong = format!("an ensemble ({} servers) is not supported yet by this version", 2 + listed.count());
        return Err(bad(second, wrong, "one server at most"));
    }
    let Ok(id) = setting.key["server.".len()..].parse() else {
        return Err(bad(setting, "is no server's number".into(), "server.0 to server.255"));
    };
    let (peer, client) = match setting.value.split_once(';') {
        Some((peer, client)) => (peer, Some(client)),
        None => (setting.value.as_str(), None),
    };
    let client = client.map(host_and_port);
    let roles: Option<Vec<&str>> = peer.split('|').map(role).collect();
    match (roles, &client) {
        (None, _) | (_, Some(None)) => {
            let allowed = "host:port:port[:participant|:observer][;[host:]port]";
            Err(bad(setting, format!("{:?} is not a server's line", setting.value), allowed))
        }
        (Some(roles), _) if roles.contains(&"observer") => {
            Err(bad(setting, "an observer needs an ensemble, which is not supported yet".into(), "a participant"))
        }
        (Some(_), _) => Ok(Some(Member { id, setting, client: client.flatten() })),
    }
}

/// The role in `host:port:port[:role]`, if that is what it is.
fn role(address: &str) -> Option<&str> {
    let end = if address.starts_with('[') { address.find(']')? + 1 } else { address.find(':')? };
    let mut rest = address[end..].strip_prefix(':')?.split(':');
    let ports = [rest.next()?, rest.next()?];
    let fine = end > 0 && ports.iter().all(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    let role = rest.next().unwrap_or("participant");
    (fine && rest.next().is_none() && ["participant", "observer"].contains(&role)).then_some(role)
}

/// `port`, `host:port` or `[address]:port`.
fn host_and_port(text: &str) -> Option<(Option<String>, u16)> {
    match text.rsplit_once(':') {
        None => Some((None, text.parse().ok()?)),
        Some((host, port)) => Some((Some(bare(host)?), port.parse().ok()?)),
    }
}

/// A host without the brackets of an IPv6 address.
fn bare(host: &str) -> Option<String> {
    let inner = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?,
        None => host,
    };
    (!inner.is_empty()).then(|| inner.to_owned())
}

/// Where to serve clients. As with Apache's, a server's line may say it (the official container image writes it there),
/// and must agree with `clientPort` and `clientPortAddress` then.
pub(super) fn client(
    given: &Given,
    file: Option<&Path>,
    member: Option<&Member<'_>>,
) -> Result<(Option<String>, u16), ConfigError> {
    let port = given.get("clientPort").map(|setting| (setting, given.int::<u16>("clientPort")));
    let mut address = None;
    if let Some(setting) = given.get("clientPortAddress") {
        let Some(host) = bare(&setting.value) else {
            return Err(bad(setting, format!("{:?} is not an address", setting.value), "a host name or address"));
        };
        address = Some((setting, host));
    }
    let line = member.and_then(|member| member.client.clone().map(|client| (member, client)));
    if let Some((member, (line_host, line_port))) = line {
        let differs = |setting: &Setting| {
            let wrong = format!("{:?} differs from the client address in server.{}", setting.value, member.id);
            bad(setting, wrong, "the same, or only one of the two")
        };
        let wins = |setting: &Setting| setting.origin.outranks(&member.setting.origin);
        let port = match port {
            Some((setting, port)) if port != line_port && !wins(setting) => return Err(differs(setting)),
            Some((_, port)) => port,
            None => line_port,
        };
        let address = match (address, line_host) {
            (Some((setting, host)), Some(line_host)) if host != line_host && !wins(setting) => {
                return Err(differs(setting));
            }
            (Some((_, host)), _) => Some(host),
            (None, line_host) => line_host,
        };
        return Ok((address, port));
    }
    match (port, file) {
        (Some((_, port)), Some(_)) => Ok((address.map(|(_, host)| host), port)),
        (None, Some(file)) => Err(missing(file, "clientPort")),
        (port, None) => {
            let host = address.map_or_else(|| "127.0.0.1".to_owned(), |(_, host)| host);
            Ok((Some(host), port.map_or(2181, |(_, port)| port)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Defaults, file, resolve};
    use super::*;

    /// Resolves a file with these lines after a `dataDir`, or no file at all, and the arguments of `-o`.
    fn with(text: Option<&str>, overrides: &[&str]) -> Result<(Config, Vec<String>), String> {
        let path = text.map(|_| Path::new("zoo.cfg"));
        let mut settings = match text {
            Some(text) => file::parse(Path::new("zoo.cfg"), &format!("dataDir=/d\n{text}")).unwrap(),
            None => vec![],
        };
        settings.extend(overrides.iter().map(|argument| file::parse_override(argument).unwrap()));
        let resolved = resolve::resolve(settings, path, &Defaults { cores: 1 }).map_err(|error| error.to_string())?;
        Ok((resolved.config, resolved.warnings))
    }

    #[track_caller]
    fn serves(text: Option<&str>, overrides: &[&str], address: Option<&str>, port: u16) {
        let (config, _) = with(text, overrides).unwrap();
        assert_eq!((config.client_address.as_deref(), config.client_port), (address, port));
    }

    #[track_caller]
    fn refused(text: &str, error: &str) {
        assert_eq!(with(Some(text), &[]).unwrap_err(), error);
    }

    #[test]
    fn where_clients_are_served() {
        serves(None, &["tickTime=100"], Some("127.0.0.1"), 2181);
        serves(None, &["clientPort=0"], Some("127.0.0.1"), 0);
        serves(None, &["clientPortAddress=0.0.0.0"], Some("0.0.0.0"), 2181);
        serves(Some("clientPort=2181"), &[], None, 2181);
        serves(Some(""), &["clientPort=2182"], None, 2182);
        serves(Some("clientPort=2181\nclientPortAddress=[::1]"), &[], Some("::1"), 2181);
        refused(
            "clientPort=1\nclientPortAddress=[]",
            "zoo.cfg:3: clientPortAddress: \"[]\" is not an address; allowed: a host name or address",
        );
    }

    #[test]
    fn one_server_is_standalone() {
        let (config, warnings) = with(Some("server.3=localhost:2888:3888;2181"), &[]).unwrap();
        assert_eq!((config.client_address, config.client_port, config.server_id), (None, 2181, 0));
        assert_eq!(warnings, ["only one server is configured (server.3): running standalone, without an ensemble"]);
        for line in ["h:2888:3888", "[::1]:2888:3888:participant", "10.0.0.1:2888:3888|10.0.0.2:2889:3889"] {
            serves(Some(&format!("clientPort=2181\nserver.0={line}")), &[], None, 2181);
        }
        serves(Some("server.1=h:1:2:participant;[::1]:2181"), &[], Some("::1"), 2181);
    }

    #[test]
    fn what_a_servers_line_and_other_keys_say_must_agree() {
        let line = "server.1=h:2888:3888;10.0.0.1:2181";
        serves(Some(&format!("{line}\nclientPort=2181\nclientPortAddress=10.0.0.1")), &[], Some("10.0.0.1"), 2181);
        serves(Some(line), &["clientPort=0", "clientPortAddress=::1"], Some("::1"), 0);
        let error = "differs from the client address in server.1; allowed: the same, or only one of the two";
        refused(&format!("{line}\nclientPort=2182"), &format!("zoo.cfg:3: clientPort: \"2182\" {error}"));
        refused(
            &format!("clientPortAddress=10.0.0.2\n{line}"),
            &format!("zoo.cfg:2: clientPortAddress: \"10.0.0.2\" {error}"),
        );
    }

    #[test]
    fn an_ensemble_is_refused() {
        refused(
            "server.1=a:2888:3888\nserver.2=b:2888:3888\nserver.3=c:2888:3888",
            "zoo.cfg:3: server.2: an ensemble (3 servers) is not supported yet by this version; \
             allowed: one server at most",
        );
        refused(
            "server.1=a:2888:3888:observer",
            "zoo.cfg:2: server.1: an observer needs an ensemble, which is not supported yet; allowed: a participant",
        );
        refused(
            "dynamicConfigFile=/conf/zoo.cfg.dynamic",
            "zoo.cfg:2: dynamicConfigFile: an ensemble is not supported yet by this version; \
             allowed: only without this key",
        );
    }

    #[test]
    fn a_servers_line_has_its_form() {
        for line in
            ["", "h", "h:1", ":1:2", "h:1:2:leader", "h:1:2:observer:3", "h:0:2", "h:1:2;", "h:1:2;:5", "::1:2:3"]
        {
            let error = with(Some(&format!("server.1={line}")), &[]).unwrap_err();
            assert!(
                error.starts_with(&format!("zoo.cfg:2: server.1: {line:?} is not a server's line; allowed: ")),
                "{error}"
            );
        }
        for id in ["x", "256", "-1"] {
            let error = with(Some(&format!("server.{id}=h:1:2")), &[]).unwrap_err();
            assert!(error.starts_with(&format!("zoo.cfg:2: server.{id}: is no server's number")), "{error}");
        }
    }
}
