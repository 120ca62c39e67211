//! From settings as written to a [`Config`]: every key is looked up, every value is judged, then the defaults are
//! filled in.
//!
//! Settings are judged alone first, in the order in which they were written, and only then beside each other. Where two
//! keys speak about the same thing (`forceSync` and `log.sync`, `clientPort` and a `server.N` line) and disagree, the
//! command line beats the file, and within one source it is an error: nobody can know which of them was meant.
//!
//! **Invariants**: pure; a key whose effect is missing is either in the one line of warning or an error, unless the
//! table says that nothing is lost; numbers are read by [`Given`] only after their kind has accepted them, hence its
//! `expect`s.
//!
//! **Not here**: the keys' names, kinds and defaults (`keys`); servers and the client's address (`member`); reading
//! files.

use super::access::access;
use super::file::Setting;
use super::given::{Given, bad, missing};
use super::keys::{self, Standing};
use super::member;
use super::{
    Config, ConfigError, Defaults, FourLetterWords, LogConfig, LogIo, LogSync, Members, Share, SnapshotConfig,
};
use crate::requests::reaper::Reaping;
use crate::requests::sequencer::Rules;
use corral_engine::disk::BlockSize;
use corral_engine::snapshot::format::Compression;
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// As many snapshots are kept at least, as with Apache: the newest may turn out to be unreadable.
const SNAP_RETAIN_MIN: u32 = 3;

/// Judges `settings` and fills in defaults; the later of two equal keys counts. `file` is the file they came from, if
/// any; `read` reads `myid`. With the configuration come warnings, one line each.
pub(super) fn resolve(
    settings: Vec<Setting>,
    file: Option<&Path>,
    defaults: &Defaults,
    read: impl Fn(&Path) -> io::Result<String>,
) -> Result<(Config, Vec<String>), ConfigError> {
    let given = Given::new(settings);
    let listed = member::listed(&given)?;
    let mut warnings = given.judge(listed.len() > 1)?;

    let data_dir = match (given.get("dataDir"), file) {
        (Some(setting), _) => PathBuf::from(&setting.value),
        (None, None) => PathBuf::from("./corral-data"),
        (None, Some(file)) => return Err(missing(file, "dataDir")),
    };
    let log_dir = given.get("dataLogDir").map_or_else(|| data_dir.clone(), |setting| PathBuf::from(&setting.value));
    for setting in ["dataDir", "dataLogDir"].into_iter().filter_map(|key| given.get(key)) {
        if !["/", "./", "../"].iter().any(|start| setting.value.starts_with(start)) {
            let (key, value) = (&setting.key, &setting.value);
            warnings.push(format!("{key}: {value:?} is relative. Prepend ./ to indicate that you're sure!"));
        }
    }

    let (me, members) = member::members(&given, &listed, &data_dir, read, &mut warnings)?;
    let mine = listed.iter().find(|member| me == Some(member.id) || listed.len() == 1);
    let (client_address, client_port) = member::client(&given, file, mine)?;
    let tick_ms: u32 = given.int("tickTime");
    let (min_session_timeout_ms, max_session_timeout_ms) = session_timeouts(&given, tick_ms)?;

    let sync = log_sync(&given)?;
    if sync == LogSync::None {
        warnings.push("log.sync is none: acknowledged writes can be lost when the machine or its power fails".into());
    }
    let io = given.text("log.io");
    let log = LogConfig {
        io: LogIo::ALL.into_iter().find(|known| known.name() == io).expect("the table has the same words"),
        sync,
        pipeline_depth: given.int("log.pipelineDepth"),
        group_commit_delay_us: given.int("log.groupCommitDelayUs"),
        block: given.text("log.blockBytes").parse().ok().and_then(BlockSize::new),
        segment_bytes: share(&given, "preAllocSize", 16),
        slow_sync_ms: given.int("fsync.warningthresholdms"),
    };

    if given.int::<u32>("autopurge.snapRetainCount") < SNAP_RETAIN_MIN {
        warnings.push(format!("autopurge.snapRetainCount is corrected to {SNAP_RETAIN_MIN}, the fewest that are kept"));
    }
    let compression = given.text("snapshot.compression");
    let snapshots = SnapshotConfig {
        count: given.int("snapCount"),
        log_bytes: share(&given, "snapSizeLimitInKb", 8),
        compression: Compression::ALL
            .into_iter()
            .find(|known| known.name() == compression)
            .expect("the table has the same words"),
        rate_limit: given.int::<u64>("snapshot.rateLimitMiB") << 20,
        retain: (given.int::<u32>("autopurge.purgeInterval") > 0)
            .then(|| given.int::<u32>("autopurge.snapRetainCount").max(SNAP_RETAIN_MIN) as usize),
    };

    let core_threads = given.get("coreThreads").map_or(defaults.cores.max(1), |_| given.int("coreThreads"));
    let replica_own_core = given.flag("replica.ownCore");
    if let Some(setting) = given.get("replica.ownCore").filter(|_| replica_own_core && core_threads < 2) {
        let wrong = "leaves no thread for clients, coreThreads is 1".to_owned();
        return Err(bad(setting, wrong, "false, or coreThreads of at least 2"));
    }

    let outstanding_max = outstanding_max(&given, members.as_ref());
    let config = Config {
        server_id: me.unwrap_or(0),
        members,
        init_limit: given.int("initLimit"),
        sync_limit: given.int("syncLimit"),
        leader_serves: given.flag("leaderServes"),
        snapshot_size_factor: snapshot_size_factor(&given, &mut warnings),
        quorum_listen_on_all: given.flag("quorumListenOnAllIPs"),
        data_dir,
        log_dir,
        datadir_autocreate: given.flag("datadir.autocreate"),
        accept_loss: keys::history(given.text("log.acceptLoss")),
        client_address,
        client_port,
        client_backlog: given.positive("clientPortListenBacklog"),
        client_keep_alive: given.flag("clientTcpKeepAlive"),
        max_client_cnxns: given.positive("maxClientCnxns"),
        max_cnxns: given.positive("maxCnxns"),
        sessionless_cnxn_timeout_ms: given.int("nio.sessionlessCnxnTimeout"),
        frame_bytes_max: given.int("jute.maxbuffer"),
        outstanding_max,
        throttled_after_ms: given.positive("throttled_op_wait_time"),
        access: access(&given, &mut warnings)?,
        rules: Rules {
            takes_ttl: given.flag("extendedTypesEnabled"),
            says_digests: given.flag("digest.enabled"),
            enforces_quotas: given.flag("enforceQuota"),
        },
        reaping: reaping(&given),
        tick_ms,
        min_session_timeout_ms,
        max_session_timeout_ms,
        log,
        snapshots,
        core_threads,
        replica_own_core,
        words: words(given.text("4lw.commands.whitelist"), &mut warnings),
    };
    Ok((config, warnings))
}

fn reaping(given: &Given) -> Reaping {
    Reaping {
        every: Duration::from_millis(given.int("znode.container.checkIntervalMs")),
        gap: Duration::from_millis(60_000 / given.int::<u64>("znode.container.maxPerMinute")),
        unused_ms: given.positive("znode.container.maxNeverUsedIntervalMs").map(i64::from),
    }
}

/// KiB that are at most such a part of the log's volume unless they were set. So what is kept of the log, which is what three snapshots
/// need, and two segments ready for more, take about half of a small volume.
fn share(given: &Given, key: &str, part: u64) -> Share {
    let bytes = given.int::<i64>(key).max(0) as u64 * 1024;
    Share { bytes, part: given.get(key).is_none().then_some(part) }
}

fn session_timeouts(given: &Given, tick_ms: u32) -> Result<(u32, u32), ConfigError> {
    let timeout = |key: &str, ticks: u32| match (given.int::<i64>(key), given.get(key)) {
        (0, Some(setting)) => Err(bad(setting, "a session of no time".into(), "-1 or a positive number")),
        _ => Ok(given.positive(key).unwrap_or(ticks * tick_ms)),
    };
    let (min, max) = (timeout("minSessionTimeout", 2)?, timeout("maxSessionTimeout", 20)?);
    // With neither of them set, 2 ticks are less than 20.
    if let Some(setting) = given.get("minSessionTimeout").or(given.get("maxSessionTimeout")).filter(|_| min > max) {
        let wrong = format!("minSessionTimeout ({min} ms) is larger than maxSessionTimeout ({max} ms)");
        return Err(bad(setting, wrong, "minSessionTimeout not above maxSessionTimeout"));
    }
    Ok((min, max))
}

/// Below zero it is off, and what is above one is none, as with Apache.
fn snapshot_size_factor(given: &Given, warnings: &mut Vec<String>) -> Option<f64> {
    let key = "snapshotSizeFactor";
    let factor: f64 = given.text(key).parse().expect("its kind was checked");
    if factor > 1.0 {
        let Some(Standing::Supported { default, .. }) = keys::find(key).map(|known| known.standing) else {
            unreachable!("it is supported");
        };
        warnings
            .push(format!("{key} is corrected to {default}: more than the whole snapshot is never sent instead of it"));
        return default.parse().ok();
    }
    (factor >= 0.0).then_some(factor)
}

/// Requests in process from which on a core reads no more. Of the limit of an ensemble a server has its share (Apache's
/// `getGlobalOutstandingLimit`).
fn outstanding_max(given: &Given, members: Option<&Members>) -> u32 {
    let voters = members.map_or(1, |members| members.all.values().filter(|member| !member.is_observer).count() as u32);
    let share = given.int::<u32>("globalOutstandingLimit") / if voters > 2 { voters - 1 } else { 1 };
    let throttle = given.positive("request_throttle_max_requests");
    throttle.map_or(share, |throttle| throttle.min(share)).max(1)
}

/// `forceSync` is Apache's name for one half of `log.sync`: they may both be there, but not against each other.
fn log_sync(given: &Given) -> Result<LogSync, ConfigError> {
    let (force, name) = (given.flag("forceSync"), given.text("log.sync"));
    let sync = LogSync::ALL.into_iter().find(|known| known.name() == name).expect("the table has the same words");
    let (Some(by), Some(own)) = (given.get("forceSync"), given.get("log.sync")) else {
        return Ok(if force { sync } else { LogSync::None });
    };
    match (force, sync) {
        _ if own.origin.outranks(&by.origin) => Ok(sync),
        (true, LogSync::None) if by.origin.outranks(&own.origin) => Ok(LogSync::Auto),
        (false, _) if by.origin.outranks(&own.origin) => Ok(LogSync::None),
        (false, LogSync::Auto | LogSync::None) => Ok(LogSync::None),
        (false, _) | (true, LogSync::None) => {
            Err(bad(by, format!("{:?} contradicts log.sync={name}", by.value), "only one of the two"))
        }
        (true, _) => Ok(sync),
    }
}

fn words(list: &str, warnings: &mut Vec<String>) -> FourLetterWords {
    let listed: BTreeSet<&str> = list.split(',').map(str::trim).filter(|word| !word.is_empty()).collect();
    if listed.contains("*") {
        return FourLetterWords::All;
    }
    for word in listed.iter().filter(|word| !FourLetterWords::KNOWN.contains(word)) {
        warnings.push(format!("4lw.commands.whitelist: there is no word {word:?}"));
    }
    FourLetterWords::Listed(listed.into_iter().chain(["srvr"]).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::*;

    const BASE: &str = "dataDir=/d\nclientPort=2181\n";

    /// Resolves a file of this text and the arguments of `-o`.
    fn with(text: &str, overrides: &[&str]) -> Result<(Config, Vec<String>), ConfigError> {
        let path = Path::new("zoo.cfg");
        let mut settings = file::parse(path, text)?;
        settings.extend(overrides.iter().map(|argument| file::parse_override(argument).unwrap()));
        resolve(settings, Some(path), &Defaults { cores: 4 }, |_| Err(io::ErrorKind::NotFound.into()))
    }

    /// What two lines of base and then `text` come to.
    fn ok(text: &str) -> Config {
        with(&format!("{BASE}{text}"), &[]).unwrap().0
    }

    fn warnings(text: &str) -> Vec<String> {
        with(&format!("{BASE}{text}"), &[]).unwrap().1
    }

    /// The error of `text` after two lines of base.
    #[track_caller]
    fn refused(text: &str, error: &str) {
        assert_eq!(with(&format!("{BASE}{text}"), &[]).unwrap_err().to_string(), error);
    }

    #[test]
    fn apaches_sample_file() {
        let sample = "\
# The number of milliseconds of each tick
tickTime=2000
# The number of ticks that the initial
# synchronization phase can take
initLimit=10
# The number of ticks that can pass between
# sending a request and getting an acknowledgement
syncLimit=5
# do not use /tmp for storage, /tmp here is just
# example sakes.
dataDir=/tmp/zookeeper
# the port at which the clients will connect
clientPort=2181
#maxClientCnxns=60
#autopurge.snapRetainCount=3
## Metrics Providers
# https://prometheus.io Metrics Exporter
#metricsProvider.className=org.apache.zookeeper.metrics.prometheus.PrometheusMetricsProvider
";
        let (config, warnings) = with(sample, &[]).unwrap();
        assert_eq!(warnings, [""; 0]);
        assert_eq!((config.init_limit, config.sync_limit, config.members.is_none()), (10, 5, true));
        assert_eq!(
            (config.tick_ms, config.min_session_timeout_ms, config.max_session_timeout_ms),
            (2000, 4000, 40_000)
        );
        assert_eq!((config.data_dir.as_path(), &config.log_dir), (Path::new("/tmp/zookeeper"), &config.data_dir));
        assert_eq!((config.client_address, config.client_port, config.client_backlog), (None, 2181, None));
        assert_eq!((config.max_client_cnxns, config.max_cnxns), (Some(60), None));
        assert_eq!((config.frame_bytes_max, config.outstanding_max), (1_048_575, 1000));
        assert_eq!((config.core_threads, config.replica_own_core, config.datadir_autocreate), (4, false, true));
        assert!(config.words.allows("srvr") && !config.words.allows("ruok"));
        let expected = LogConfig {
            io: LogIo::Auto,
            sync: LogSync::Auto,
            pipeline_depth: 2,
            group_commit_delay_us: 0,
            block: None,
            segment_bytes: Share { bytes: 64 << 20, part: Some(16) },
            slow_sync_ms: 1000,
        };
        assert_eq!(config.log, expected);
    }

    #[test]
    fn every_class_of_error() {
        refused("clientPrt=1", "zoo.cfg:3: clientPrt: unknown key; did you mean clientPort?");
        refused("a=b", "zoo.cfg:3: a: unknown key; no known key is similar");
        refused("a\\nb=c", "zoo.cfg:3: a\\nb: unknown key; no known key is similar");
        refused(
            "\nlog.pipelineDepth=9",
            "zoo.cfg:4: log.pipelineDepth: \"9\" is out of range; allowed: a whole number from 1 to 8",
        );
        refused(
            "tickTime=2 s",
            "zoo.cfg:3: tickTime: \"2 s\" is not a whole number; allowed: a whole number from 1 to 107374182",
        );
        refused(
            "reconfigEnabled=maybe",
            "zoo.cfg:3: reconfigEnabled: \"maybe\" is none of the possible values; allowed: true or false",
        );
        refused(
            "log.sync=async",
            "zoo.cfg:3: log.sync: \"async\" is none of the possible values; allowed: auto, dsync, fdatasync, fsync, none",
        );
        refused("dataDir=", "zoo.cfg:3: dataDir: \"\" is none of the possible values; allowed: a path");
        let error = with("clientPort=1", &[]).unwrap_err().to_string();
        assert_eq!(error, "zoo.cfg: dataDir: is not set; allowed: a path");
        let error = with("dataDir=/d", &[]).unwrap_err().to_string();
        assert_eq!(error, "zoo.cfg: clientPort: is not set; allowed: a whole number from 0 to 65535");
        let error = with(BASE, &["log.pipelinDepth=2"]).unwrap_err().to_string();
        assert_eq!(error, "-o: log.pipelinDepth: unknown key; did you mean log.pipelineDepth?");
    }

    #[test]
    fn what_must_not_be_ignored_is_refused() {
        refused(
            "secureClientPort=2281",
            "zoo.cfg:3: secureClientPort: TLS is not supported yet; allowed: only without this key",
        );
        refused(
            "ssl.keyStore.password=secret",
            "zoo.cfg:3: ssl.keyStore.password: TLS is not supported yet; allowed: only without this key",
        );
        refused("sslQuorum=true", "zoo.cfg:3: sslQuorum: TLS is not supported yet; allowed: false");
        refused(
            "electionAlg=0",
            "zoo.cfg:3: electionAlg: there is no other algorithm than 3, the fast leader election; allowed: 3",
        );
        for (key, bad, good) in [
            ("standaloneEnabled", "false", "true"),
            ("sessionRequireClientSASLAuth", "true", "False"),
            ("quorum.auth.enableSasl", "true", "false"),
        ] {
            let error = with(&format!("{BASE}{key}={bad}"), &[]).unwrap_err();
            assert!(matches!(error, ConfigError::Refused { .. }), "{error}");
            assert_eq!(warnings(&format!("{key}={good}")), [""; 0], "{key}");
        }
    }

    #[test]
    fn one_line_of_warning_for_all_that_is_not_there_yet() {
        let text = "maxResponseCacheSize=1\nadmin.serverPort=1\nauthProvider.1=x.Y\nmaxResponseCacheSize=2\nnio.numWorkerThreads=many\nsyncLimit=5";
        assert_eq!(
            warnings(text),
            ["not supported yet, ignored: admin.serverPort, authProvider.1, maxResponseCacheSize"]
        );
    }

    #[test]
    fn the_part_of_a_snapshot_that_the_log_may_be_instead_of_it_is_at_most_all_of_it() {
        for (text, factor) in
            [("", Some(0.33)), ("snapshotSizeFactor=0.5", Some(0.5)), ("snapshotSizeFactor=0", Some(0.0))]
        {
            assert_eq!((ok(text).snapshot_size_factor, warnings(text)), (factor, vec![]), "{text}");
        }
        assert_eq!(ok("snapshotSizeFactor=-1").snapshot_size_factor, None);
        assert_eq!(ok("snapshotSizeFactor=1.5").snapshot_size_factor, Some(0.33));
        assert!(warnings("snapshotSizeFactor=1.5")[0].starts_with("snapshotSizeFactor is corrected to 0.33"));
    }

    #[test]
    fn session_timeouts_follow_the_tick_unless_they_are_set() {
        let both = |text: &str| (ok(text).min_session_timeout_ms, ok(text).max_session_timeout_ms);
        assert_eq!(both(""), (6000, 60_000));
        assert_eq!(both("tickTime=100\nmaxSessionTimeout=900\nminSessionTimeout=-1"), (200, 900));
        assert_eq!(both("tickTime=107374182"), (214_748_364, 2_147_483_640));
        refused(
            "tickTime=2000\nminSessionTimeout=40001",
            "zoo.cfg:4: minSessionTimeout: minSessionTimeout (40001 ms) is larger than maxSessionTimeout (40000 ms); \
             allowed: minSessionTimeout not above maxSessionTimeout",
        );
        refused(
            "maxSessionTimeout=0",
            "zoo.cfg:3: maxSessionTimeout: a session of no time; allowed: -1 or a positive number",
        );
    }

    #[test]
    fn force_sync_and_log_sync() {
        let sync = |text: &str, overrides: &[&str]| {
            with(&format!("{BASE}{text}"), overrides).map(|(config, _)| config.log.sync).ok()
        };
        for (text, overrides, expected) in [
            ("forceSync=no", &[][..], Some(LogSync::None)),
            ("forceSync=YES\nlog.sync=fsync", &[], Some(LogSync::Fsync)),
            ("forceSync=NO\nlog.sync=fsync", &[], Some(LogSync::Fsync)),
            ("forceSync=false", &[], Some(LogSync::Auto)),
            ("forceSync=no\nlog.sync=auto", &[], Some(LogSync::None)),
            ("forceSync=no\nlog.sync=dsync", &[], None),
            ("forceSync=yes\nlog.sync=none", &[], None),
            ("forceSync=no", &["log.sync=dsync"], Some(LogSync::Dsync)),
            ("forceSync=no", &["log.sync=auto"], Some(LogSync::Auto)),
            ("log.sync=dsync", &["forceSync=no"], Some(LogSync::None)),
            ("log.sync=none", &["forceSync=yes"], Some(LogSync::Auto)),
            ("", &["forceSync=no", "log.sync=dsync"], None),
        ] {
            assert_eq!(sync(text, overrides), expected, "{text:?} {overrides:?}");
        }
        assert!(warnings("forceSync=no")[0].starts_with("log.sync is none: acknowledged writes can be lost"));
        let taken = "zoo.cfg:3: forceSync: \"false\" is taken for yes; allowed: yes or no";
        assert_eq!(warnings("forceSync=false")[0], taken);
        assert!(!ok("skipACL=true").access.skip, "as with Apache: only yes is yes");
    }

    /// Three kept snapshots, and so three times as much log as leads to one, leave room for new segments.
    #[test]
    fn the_log_fits_a_small_volume_unless_its_sizes_were_set() {
        let on = |text: &str, volume| {
            let config = ok(text);
            (config.log.segment_bytes.of(volume), config.snapshots.log_bytes.of(volume))
        };
        let (mib, small) = (1 << 20, Some(128 << 20));
        assert_eq!(on("", None), (64 * mib, 4096 * mib));
        assert_eq!(on("", Some(100 << 30)), (64 * mib, 4096 * mib));
        assert_eq!(on("", Some(8 << 30)), (64 * mib, 1024 * mib));
        assert_eq!(on("", small), (8 * mib, 16 * mib));
        assert_eq!(on("preAllocSize=65536\nsnapSizeLimitInKb=4194304", small), (64 * mib, 4096 * mib));
        assert_eq!(on("snapSizeLimitInKb=0", small), (8 * mib, 0));
    }

    #[test]
    fn blocks_are_those_of_the_device_unless_they_were_set() {
        assert_eq!((ok("").log.block, ok("log.blockBytes=auto").log.block), (None, None));
        for block in BlockSize::ALL {
            assert_eq!(ok(&format!("log.blockBytes={block}")).log.block, Some(block));
        }
        refused(
            "log.blockBytes=8192",
            "zoo.cfg:3: log.blockBytes: \"8192\" is none of the possible values; allowed: auto, 512, 1024, 2048, 4096",
        );
    }

    #[test]
    fn limits_of_zero_are_no_limits() {
        let config = ok("maxClientCnxns=0\nmaxCnxns=7\nclientPortListenBacklog=100\njute.maxbuffer=0x9fffff");
        assert_eq!((config.max_client_cnxns, config.max_cnxns, config.client_backlog), (None, Some(7), Some(100)));
        assert_eq!(config.frame_bytes_max, 0x9f_ffff);
    }

    #[test]
    fn a_core_of_its_own_leaves_one_for_clients() {
        assert!(ok("replica.ownCore=true").replica_own_core);
        refused(
            "coreThreads=1\nreplica.ownCore=true",
            "zoo.cfg:4: replica.ownCore: leaves no thread for clients, coreThreads is 1; \
             allowed: false, or coreThreads of at least 2",
        );
    }

    #[test]
    fn words_and_relative_paths() {
        assert_eq!(ok("4lw.commands.whitelist=ruok, *").words, FourLetterWords::All);
        let words = ok("4lw.commands.whitelist= stat, ruok ,").words;
        assert!(["stat", "ruok", "srvr"].iter().all(|word| words.allows(word)) && !words.allows("mntr"));
        let warning = "4lw.commands.whitelist: there is no word \"rouk\"";
        assert_eq!(warnings("4lw.commands.whitelist=rouk,stat"), [warning]);
        let warning = "dataLogDir: \"logs\" is relative. Prepend ./ to indicate that you're sure!";
        assert_eq!(warnings("dataDir=./data\ndataLogDir=logs"), [warning]);
    }

    #[test]
    fn the_table_and_the_modes_of_the_log_have_the_same_words() {
        let allowed = |key| keys::find(key).unwrap().kind.to_string();
        assert_eq!(allowed("log.io"), LogIo::ALL.map(LogIo::name).join(", "));
        assert_eq!(allowed("log.sync"), LogSync::ALL.map(LogSync::name).join(", "));
    }
}
