//! The servers that are listed, `server.N=…`: who belongs to the ensemble, where its members are reached, which of them this server
//! is, and where it serves clients, which its line may say too.
//!
//! One line that lists a single server is accepted and means a server alone, as with Apache's: deployments write it also for a
//! single server, and the official container image has the client port nowhere else.
//!
//! **Invariants**: a member of an ensemble knows its own number, and its own line is there.
//!
//! **Not here**: resolving host names, what a quorum is ([`crate::consensus::ensemble`]).

use super::file::{Origin, Setting};
use super::given::{Given, bad, missing};
use super::{ConfigError, MemberAddress, Members};
use crate::consensus::Ensemble;
use crate::consensus::ensemble::Voter;
use corral_proto::ServerId;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// A server's line: `host:quorumPort:electionPort[:role][;[clientHost:]clientPort]`.
pub(super) struct Member<'a> {
    /// Its number.
    pub(super) id: u8,
    setting: &'a Setting,
    address: MemberAddress,
    /// There are more addresses than the first.
    has_more: bool,
    /// Where it serves clients, if the line says so. The address may be missing.
    client: Option<(Option<String>, u16)>,
}

/// The servers that are listed, by their numbers.
pub(super) fn listed(given: &Given) -> Result<Vec<Member<'_>>, ConfigError> {
    let mut listed: Vec<Member<'_>> = given.family("server.").map(member).collect::<Result<_, _>>()?;
    listed.sort_by_key(|member| member.id);
    Ok(listed)
}

fn member(setting: &Setting) -> Result<Member<'_>, ConfigError> {
    let Ok(id) = setting.key["server.".len()..].parse() else {
        return Err(bad(setting, "is no server's number".into(), "server.0 to server.255"));
    };
    let (peer, client) = match setting.value.split_once(';') {
        Some((peer, client)) => (peer, Some(client)),
        None => (setting.value.as_str(), None),
    };
    let client = client.map(host_and_port);
    let addresses: Option<Vec<MemberAddress>> = peer.split('|').map(address).collect();
    match (addresses, &client) {
        (None, _) | (_, Some(None)) => {
            let allowed = "host:port:port[:participant|:observer][;[host:]port]";
            Err(bad(setting, format!("{:?} is not a server's line", setting.value), allowed))
        }
        (Some(mut addresses), _) => {
            let has_more = addresses.len() > 1;
            Ok(Member { id, setting, address: addresses.swap_remove(0), has_more, client: client.flatten() })
        }
    }
}

/// `host:port:port[:role]`.
fn address(text: &str) -> Option<MemberAddress> {
    let end = if text.starts_with('[') { text.find(']')? + 1 } else { text.find(':')? };
    let mut rest = text[end..].strip_prefix(':')?.split(':');
    let mut port = || rest.next()?.parse::<u16>().ok().filter(|port| *port > 0);
    let (quorum_port, election_port) = (port()?, port()?);
    let is_observer = match rest.next() {
        None | Some("participant") => false,
        Some("observer") => true,
        Some(_) => return None,
    };
    let host = bare(&text[..end])?;
    rest.next().is_none().then_some(MemberAddress { host, quorum_port, election_port, is_observer })
}

/// What `myid` says; nothing if it is not there. Of a server alone it need not be.
fn my_id(path: &Path, text: io::Result<String>, listed: &[Member<'_>]) -> Result<Option<u8>, ConfigError> {
    let text = match text {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(ConfigError::Read { path: path.into(), source }),
    };
    let value = text.lines().next().unwrap_or("").trim();
    let numbers: Vec<String> = listed.iter().map(|member| member.id.to_string()).collect();
    let wrong = match value.parse() {
        Ok(id) if listed.iter().any(|member| member.id == id) => return Ok(Some(id)),
        Ok::<u8, _>(id) => format!("this is server {id}, which is not among those that are listed"),
        Err(_) => format!("{value:?} is no server's number"),
    };
    let origin = Origin::File { path: path.into(), line: 1 };
    Err(ConfigError::BadValue { origin, key: "myid".into(), wrong, allowed: numbers.join(", ") })
}

/// Which of the `listed` servers this is, and the ensemble, if it is one. `read` reads `<dataDir>/myid`.
pub(super) fn members(
    given: &Given,
    listed: &[Member<'_>],
    data_dir: &Path,
    read: impl Fn(&Path) -> io::Result<String>,
    warnings: &mut Vec<String>,
) -> Result<(Option<u8>, Option<Members>), ConfigError> {
    let path = data_dir.join("myid");
    let me = match listed {
        [] => None,
        listed => my_id(&path, read(&path), listed)?,
    };
    let Some(last) = listed.last() else { return Ok((None, None)) };
    let voters = listed.iter().filter(|member| !member.address.is_observer).count();
    if voters < 2 {
        if let Some(observer) = listed.iter().find(|member| member.address.is_observer) {
            let wrong = "an observer needs an ensemble to observe".to_owned();
            return Err(bad(observer.setting, wrong, "beside at least two participants"));
        }
        warnings.push(format!(
            "only one server is configured (server.{}): running standalone, without an ensemble",
            last.id
        ));
        return Ok((me, None));
    }
    let Some(me) = me else {
        let wrong = "is not there, and says which of the listed servers this is".to_owned();
        let numbers: Vec<String> = listed.iter().map(|member| member.id.to_string()).collect();
        let origin = Origin::File { path, line: 1 };
        return Err(ConfigError::BadValue { origin, key: "myid".into(), wrong, allowed: numbers.join(", ") });
    };
    for member in listed {
        let twice = |other: &&Member<'_>| other.id < member.id && other.address.collides_with(&member.address);
        if let Some(other) = listed.iter().find(twice) {
            let wrong = format!("{:?} has a host and a port that server.{} has, too", member.setting.value, other.id);
            return Err(bad(member.setting, wrong, "ports of its own for each server of a host"));
        }
        if member.address.quorum_port == member.address.election_port {
            let wrong = "the two ports are the same".to_owned();
            return Err(bad(member.setting, wrong, "host:quorumPort:electionPort"));
        }
        if member.has_more {
            let wrong = "several addresses of one server are not supported yet".to_owned();
            return Err(bad(member.setting, wrong, "one address"));
        }
    }
    if voters % 2 == 0 {
        warnings.push(format!(
            "{voters} participants tolerate no more failures than {}: consider an odd number",
            voters - 1
        ));
    }
    let role = |observer: bool| if observer { "observer" } else { "participant" };
    let mine = listed.iter().find(|member| member.id == me).expect("checked when it was read");
    if let Some(setting) = given.get("peerType").filter(|setting| setting.value != role(mine.address.is_observer)) {
        let listed = role(mine.address.is_observer);
        warnings.push(format!("peerType={} is overruled: server.{me} is listed as {listed}", setting.value));
    }
    let (groups, weights) = (groups(given, listed)?, weights(given, listed)?);
    let voter = |member: &Member<'_>| {
        let weight = weights.get(&member.id).copied().unwrap_or(1);
        (number(member.id), Voter { weight, group: groups.get(&member.id).copied() })
    };
    let (observers, voters): (Vec<_>, Vec<_>) = listed.iter().partition(|member| member.address.is_observer);
    let ensemble = Ensemble::new(voters.into_iter().map(voter), observers.into_iter().map(|member| number(member.id)));
    let ensemble = ensemble.map_err(|why| {
        let setting = given.family("group.").chain(given.family("weight.")).next().unwrap_or(last.setting);
        bad(setting, why.to_string(), "each participant in one group, and weights above 0")
    })?;
    let text = text(listed, given);
    let all = listed.iter().map(|member| (member.id, member.address.clone())).collect();
    Ok((Some(me), Some(Members { me, all, ensemble: Arc::new(ensemble), text })))
}

fn number(id: u8) -> ServerId {
    ServerId(id.into())
}

/// The group that each server is in, where there are groups: `group.G=1:2:3`.
fn groups(given: &Given, listed: &[Member<'_>]) -> Result<BTreeMap<u8, u32>, ConfigError> {
    let mut groups = BTreeMap::new();
    for setting in given.family("group.") {
        let allowed = "group.G=server:server…, each server in one group";
        let Ok(group) = setting.key["group.".len()..].parse() else {
            return Err(bad(setting, "is no group's number".into(), allowed));
        };
        for text in setting.value.split(':') {
            let id = text.parse().ok().filter(|id| listed.iter().any(|member| member.id == *id));
            let Some(id) = id else { return Err(bad(setting, format!("{text:?} is not listed"), allowed)) };
            if groups.insert(id, group).is_some() {
                return Err(bad(setting, format!("server.{id} is in another group, too"), allowed));
            }
        }
    }
    Ok(groups)
}

fn weights(given: &Given, listed: &[Member<'_>]) -> Result<BTreeMap<u8, u32>, ConfigError> {
    let weight = |setting: &Setting| {
        let allowed = "weight.N=a whole number, of a server N that is listed";
        let id = setting.key["weight.".len()..].parse().ok();
        let id = id.filter(|id| listed.iter().any(|member| member.id == *id));
        match (id, setting.value.parse()) {
            (Some(id), Ok(weight)) => Ok((id, weight)),
            _ => Err(bad(setting, format!("{:?} is no server's weight", setting.value), allowed)),
        }
    };
    given.family("weight.").map(weight).collect()
}

/// The ensemble as members tell it each other (Apache's `QuorumVerifier.toString`); it was never changed, so its version is 0.
fn text(listed: &[Member<'_>], given: &Given) -> String {
    let mut text = String::new();
    for Member { id, address: MemberAddress { host, quorum_port, election_port, is_observer }, .. } in listed {
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let role = if *is_observer { "observer" } else { "participant" };
        let _ = writeln!(text, "server.{id}={host}:{quorum_port}:{election_port}:{role}");
    }
    for setting in given.family("group.").chain(given.family("weight.")) {
        let _ = writeln!(text, "{}={}", setting.key, setting.value);
    }
    text + "version=0"
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
        let none = |_: &Path| Err(io::ErrorKind::NotFound.into());
        resolve::resolve(settings, path, &Defaults { cores: 1 }, none).map_err(|error| error.to_string())
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

    const THREE: &str = "clientPort=2181\nserver.1=a:2888:3888\nserver.2=b:2888:3888;2182\nserver.3=[::1]:2888:3888";

    /// As [`with`] a file, of the server with this number.
    fn member(id: &str, text: &str) -> Result<(Config, Vec<String>), String> {
        let settings = file::parse(Path::new("zoo.cfg"), &format!("dataDir=/d\n{text}")).unwrap();
        let read = |path: &Path| {
            assert_eq!(path, Path::new("/d/myid"));
            Ok(id.to_owned())
        };
        let path = Some(Path::new("zoo.cfg"));
        resolve::resolve(settings, path, &Defaults { cores: 1 }, read).map_err(|error| error.to_string())
    }

    #[test]
    fn the_members_of_an_ensemble_and_which_of_them_this_is() {
        let (config, warnings) =
            member("3\n", &format!("{THREE}\nserver.9=d:2888:3888:observer\nsyncLimit=7")).unwrap();
        let members = config.members.unwrap();
        assert_eq!((config.server_id, members.me, config.sync_limit, config.client_port), (3, 3, 7, 2181));
        assert_eq!(members.all[&3].election_address(), "[::1]:3888");
        assert!(members.ensemble.is_voter(ServerId(2)) && !members.ensemble.is_voter(ServerId(9)));
        assert_eq!(
            members.text,
            "server.1=a:2888:3888:participant\nserver.2=b:2888:3888:participant\n\
             server.3=[::1]:2888:3888:participant\nserver.9=d:2888:3888:observer\nversion=0"
        );
        assert_eq!(warnings, [""; 0]);
        // The line of another server says nothing of where this one serves clients.
        assert_eq!(
            member("1", &format!("{THREE}\nserver.4=e:1:2")).unwrap().1.len(),
            1,
            "four are not better than three"
        );
    }

    #[test]
    fn groups_and_weights() {
        let text = format!("{THREE}\ngroup.1=1:2\ngroup.2=3\nweight.2=0");
        let members = member("1", &text).unwrap().0.members.unwrap();
        assert!(
            members.ensemble.is_quorum(|id| id != ServerId(2)) && !members.ensemble.is_quorum(|id| id == ServerId(1))
        );
        assert!(
            members.text.contains("participant\ngroup.1=1:2\ngroup.2=3\nweight.2=0\nversion=0"),
            "{}",
            members.text
        );
        for (line, error) in [
            ("group.1=1:2:7", "group.1: \"7\" is not listed"),
            ("group.1=1:2:3\ngroup.2=3", "group.2: server.3 is in another group, too"),
            ("group.1=1:2", "group.1: server.3 is in no group, but others are"),
            ("group.x=1", "group.x: is no group's number"),
            ("weight.7=1", "weight.7: \"1\" is no server's weight"),
            ("weight.1=-1", "weight.1: \"-1\" is no server's weight"),
        ] {
            let refused = member("1", &format!("{THREE}\n{line}")).unwrap_err();
            assert!(refused.contains(error), "{refused}");
        }
    }

    #[test]
    fn what_makes_no_ensemble() {
        let none = with(Some(THREE), &[]).unwrap_err();
        assert_eq!(
            none,
            "/d/myid:1: myid: is not there, and says which of the listed servers this is; allowed: 1, 2, 3"
        );
        for (id, text, error) in [
            (
                "4",
                THREE,
                "/d/myid:1: myid: this is server 4, which is not among those that are listed; allowed: 1, 2, 3",
            ),
            ("one", THREE, "/d/myid:1: myid: \"one\" is no server's number; allowed: 1, 2, 3"),
            (
                "1",
                "clientPort=1\nserver.1=a:1:2\nserver.2=a:3:2",
                "zoo.cfg:4: server.2: \"a:3:2\" has a host and a port that server.1 has, too; \
                 allowed: ports of its own for each server of a host",
            ),
            (
                "1",
                "clientPort=1\nserver.1=a:1:1\nserver.2=b:1:2",
                "zoo.cfg:3: server.1: the two ports are the same; allowed: host:quorumPort:electionPort",
            ),
            (
                "1",
                "clientPort=1\nserver.1=a:1:2|b:1:2\nserver.2=b:3:4",
                "zoo.cfg:3: server.1: several addresses of one server are not supported yet; allowed: one address",
            ),
            (
                "1",
                "clientPort=1\nserver.1=a:1:2:observer",
                "zoo.cfg:3: server.1: an observer needs an ensemble to observe; allowed: beside at least two participants",
            ),
        ] {
            assert_eq!(member(id, text).unwrap_err(), error);
        }
        refused(
            "dynamicConfigFile=/conf/zoo.cfg.dynamic",
            "zoo.cfg:2: dynamicConfigFile: dynamic configuration is not supported yet; allowed: only without this key",
        );
    }

    #[test]
    fn what_speaks_about_peers_is_told_of_only_where_there_are_any() {
        let text = "clientPort=2181\nobserverMasterPort=2222\ncommitLogCount=600";
        assert_eq!(with(Some(text), &[]).unwrap().1, [""; 0]);
        let (_, warnings) = member("1", &format!("{THREE}\nobserverMasterPort=2222")).unwrap();
        assert_eq!(warnings, ["not supported yet, ignored: observerMasterPort"]);
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
