//! The one table of all keys: what each may say, and where this server stands on it.
//!
//! ZooKeeper turns a key that it does not know into a Java system property, so a misspelt one is silently without
//! effect. Here every key of Apache's is in the table, and what is not in the table is an error. A key's [`Standing`]
//! decides what happens when it is set. Four kinds of it need judgement:
//!
//! - *supported*: has its effect; the default stands here and nowhere else;
//! - *not yet*: without effect for now, which the operator is told in one line of warning;
//! - *ignored*: without effect and without a word, since nothing is lost: the key tunes the Java server's own parts,
//!   or speaks about a server's peers, and a server alone has none (a member of an ensemble is told as of *not yet*);
//! - *refused*: a server without that effect would be unsafe or another one than was asked for, so it does not start.
//!
//! **Invariants**: names are unique; a default is a value that its own kind accepts, unless it says in parentheses on
//! what it depends.
//!
//! **Not here**: what the values lead to, and what they may say beside each other (`resolve`).

use std::fmt;

/// A key, or a family of keys.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name; a family's name ends in `*`, which stands for at least one character.
    pub name: &'static str,
    /// What it may say.
    pub kind: Kind,
    /// What becomes of it.
    pub standing: Standing,
}

/// The values that a key may have. Displayed, it completes "allowed: …".
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// `yes` or `no`; as with Apache, anything but the opposite of the default is the default.
    YesNo,
    /// The number of a history, 16 hexadecimal digits, or `no`.
    History,
    /// A whole number, both ends included; decimal, or hexadecimal after `0x` as Java's properties allow.
    Int(i64, i64),
    /// Any number.
    Number,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A path: anything but nothing.
    Path,
    /// A host's name or address: anything but nothing.
    Host,
    /// Anything.
    Text,
}

/// What becomes of a key that is set.
#[derive(Clone, Copy, Debug)]
pub enum Standing {
    /// It has its effect.
    Supported {
        /// The value when it is not set.
        default: &'static str,
        /// One line on its meaning, with the unit.
        doc: &'static str,
    },
    /// It has no effect yet, and the operator is told.
    NotYet,
    /// It has no effect, and none is missed; the text says why.
    Ignored(&'static str),
    /// It is an error.
    Refused {
        /// Why.
        reason: &'static str,
        /// The one value that asks for nothing, and so is accepted.
        except: Option<&'static str>,
    },
}

impl Kind {
    /// What is wrong with `value`, if something is.
    pub fn wrong(self, value: &str) -> Option<&'static str> {
        let ok = match self {
            Kind::Bool => truth(value).is_some(),
            Kind::History => value == "no" || history(value).is_some(),
            Kind::Int(min, max) => match whole(value) {
                None => return Some("is not a whole number"),
                Some(number) if !(min..=max).contains(&number) => return Some("is out of range"),
                Some(_) => true,
            },
            Kind::Number => value.parse::<f64>().is_ok_and(f64::is_finite),
            Kind::OneOf(words) => words.contains(&value),
            Kind::Path | Kind::Host => !value.is_empty(),
            Kind::YesNo | Kind::Text => true,
        };
        (!ok).then_some("is none of the possible values")
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Bool => f.write_str("true or false"),
            Kind::YesNo => f.write_str("yes or no"),
            Kind::History => f.write_str("no, or the 16 hexadecimal digits that the server has named"),
            Kind::Int(i64::MIN, i64::MAX) => f.write_str("a whole number"),
            Kind::Int(min, max) => write!(f, "a whole number from {min} to {max}"),
            Kind::Number => f.write_str("a number"),
            Kind::OneOf(words) => f.write_str(&words.join(", ")),
            Kind::Path => f.write_str("a path"),
            Kind::Host => f.write_str("a host name or address"),
            Kind::Text => f.write_str("any text"),
        }
    }
}

/// A number as [`Kind::Int`] has it.
pub(super) fn whole(value: &str) -> Option<i64> {
    match value.strip_prefix("0x").or_else(|| value.strip_prefix("0X")) {
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_hexdigit()) => i64::from_str_radix(digits, 16).ok(),
        Some(_) => None,
        None => value.parse().ok(),
    }
}

/// True or false as [`Kind::Bool`] has it, in any case.
pub(super) fn truth(value: &str) -> Option<bool> {
    if value.eq_ignore_ascii_case("true") { Some(true) } else { value.eq_ignore_ascii_case("false").then_some(false) }
}

/// A history as [`Kind::History`] has it; `None` for `no`.
pub(super) fn history(value: &str) -> Option<u64> {
    let is_number = value.len() == 16 && value.bytes().all(|byte| byte.is_ascii_hexdigit());
    u64::from_str_radix(value, 16).ok().filter(|_| is_number)
}

/// The entry of `key`: the one of its own, or else that of its family.
pub fn find(key: &str) -> Option<&'static Key> {
    let family =
        |name: &str| name.strip_suffix('*').is_some_and(|stem| key.len() > stem.len() && key.starts_with(stem));
    KEYS.iter().find(|known| known.name == key).or_else(|| KEYS.iter().find(|known| family(known.name)))
}

/// The known key that whoever wrote the unknown `key` most likely meant.
pub fn nearest(key: &str) -> Option<&'static str> {
    let lower = key.to_ascii_lowercase();
    // The name of the system property is what guides and scripts of Apache's speak of.
    let lower = lower.strip_prefix("zookeeper.").unwrap_or(&lower);
    let near = |known: &&Key| strsim::jaro_winkler(lower, &known.name.to_ascii_lowercase());
    let best = KEYS.iter().max_by(|a, b| near(a).total_cmp(&near(b)))?;
    (near(&best) >= NEAR).then_some(best.name)
}

/// Similarity from which on a name is worth suggesting: the test below has what must be above and what below.
const NEAR: f64 = 0.91;

pub(super) const ALONE: &str = "speaks about peers, and a server alone has none";
const JAVA: &str = "tunes machinery of the Java server that does not exist here";
const DYNAMIC: &str = "dynamic configuration is not supported yet";
const LONE: &str = "a server alone that runs as an ensemble of one is not supported yet";
const TLS: &str = "TLS is not supported yet";
const SASL: &str = "SASL is not supported yet";

const INT: Kind = Kind::Int(i64::MIN, i64::MAX);
const COUNT: Kind = Kind::Int(0, I32);
const I32: i64 = i32::MAX as i64;

const fn supported(name: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Key {
    Key { name, kind, standing: Standing::Supported { default, doc } }
}

const fn not_yet(name: &'static str, kind: Kind) -> Key {
    Key { name, kind, standing: Standing::NotYet }
}

const fn alone(name: &'static str, kind: Kind) -> Key {
    Key { name, kind, standing: Standing::Ignored(ALONE) }
}

/// The value is not even looked at: it was written for a program that this is not.
const fn java(name: &'static str) -> Key {
    Key { name, kind: Kind::Text, standing: Standing::Ignored(JAVA) }
}

const fn refused(name: &'static str, reason: &'static str) -> Key {
    Key { name, kind: Kind::Text, standing: Standing::Refused { reason, except: None } }
}

const fn only(name: &'static str, kind: Kind, except: &'static str, reason: &'static str) -> Key {
    Key { name, kind, standing: Standing::Refused { reason, except: Some(except) } }
}

/// Every key. Those of Apache's are of release 3.9.5.
#[rustfmt::skip] // Wrapped one argument a line, nobody could read the table down.
pub const KEYS: &[Key] = &[
    // Corral's own: dotted, lower camel case.
    supported("coreThreads", Kind::Int(1, 1024), "(one for each core)",
        "threads that serve clients, the first of which orders all writes too"),
    supported("replica.ownCore", Kind::Bool, "false", "keeps clients off the thread that orders the writes"),
    supported("log.io", Kind::OneOf(&["auto", "uring-direct", "uring-buffered", "pwrite"]), "auto",
        "how the transaction log is written"),
    supported("log.sync", Kind::OneOf(&["auto", "dsync", "fdatasync", "fsync", "none"]), "auto",
        "how a log write is made durable; none is unsafe"),
    supported("snapshot.compression", Kind::OneOf(&["none", "zstd", "lz4"]), "none", "how snapshots are stored"),
    supported("snapshot.rateLimitMiB", Kind::Int(0, 1 << 20), "64", "MiB a second that a snapshot writes at most; 0: no limit"),
    supported("log.acceptLoss", Kind::History, "no",
        "start without the log or the data directory of this history, if it is missing, and lose what only that holds"),
    supported("log.pipelineDepth", Kind::Int(1, 8), "2", "log writes that may be in flight at once"),
    supported("log.blockBytes", Kind::OneOf(&["auto", "512", "1024", "2048", "4096"]), "auto",
        "bytes of the log's blocks: a write is whole blocks; auto is the physical block of the device, at most 4096"),
    supported("log.groupCommitDelayUs", Kind::Int(0, 1_000_000), "0",
        "microseconds that a log write waits for company"),

    // Core. A tick is at most so long that the longest default session timeout, 20 ticks, still is a jute int.
    supported("dataDir", Kind::Path, "./corral-data (must be set in a file)",
        "directory of snapshots, epochs and myid"),
    supported("dataLogDir", Kind::Path, "(dataDir)", "directory of the transaction log, at best on a disk of its own"),
    supported("clientPort", Kind::Int(0, 65_535), "2181 (must be set in a file)",
        "TCP port for clients; 0 is any free one"),
    supported("clientPortAddress", Kind::Host, "127.0.0.1 (with a file: all addresses)",
        "address to listen on for clients"),
    supported("tickTime", Kind::Int(1, I32 / 20), "3000", "milliseconds of one tick, the unit of session timeouts"),
    supported("minSessionTimeout", Kind::Int(-1, I32), "-1",
        "milliseconds, shortest session timeout a client gets; -1 is 2 ticks"),
    supported("maxSessionTimeout", Kind::Int(-1, I32), "-1",
        "milliseconds, longest session timeout a client gets; -1 is 20 ticks"),
    supported("maxClientCnxns", COUNT, "60", "connections from one client address; 0 is unlimited"),
    supported("maxCnxns", COUNT, "0", "connections in all; 0 is unlimited"),
    supported("clientPortListenBacklog", Kind::Int(-1, I32), "-1",
        "connections waiting to be accepted; -1 leaves it to the system"),
    supported("server.*", Kind::Text, "(none)",
        "a member of the ensemble, host:quorumPort:electionPort[:role][;[host:]clientPort]; one alone runs standalone"),
    supported("group.*", Kind::Text, "(none)", "servers of one group of a hierarchical quorum, separated by colons"),
    supported("weight.*", Kind::Text, "(1)", "what a server's vote counts in its group"),
    supported("peerType", Kind::OneOf(&["participant", "observer"]), "(as its server line says)",
        "whether this member votes; its server line must say the same"),
    supported("initLimit", Kind::Int(1, 1 << 20), "10", "ticks that a member has to connect to its leader and to catch up"),
    supported("syncLimit", Kind::Int(1, 1 << 20), "5", "ticks after which a member that was not heard of is given up"),
    supported("leaderServes", Kind::YesNo, "yes", "whether a leader serves clients itself"),
    supported("quorumListenOnAllIPs", Kind::Bool, "false",
        "listen for the other members on all addresses, not only on the one that is listed"),
    refused("dynamicConfigFile", DYNAMIC),
    only("electionAlg", INT, "3", "there is no other algorithm than 3, the fast leader election"),
    only("standaloneEnabled", Kind::Bool, "true", LONE), refused("secureClientPort", TLS),
    refused("secureClientPortAddress", TLS), alone("version", Kind::Text),
    alone("connectToLearnerMasterLimit", INT), alone("reconfigEnabled", Kind::Bool), alone("observerMasterPort", INT),
    alone("syncEnabled", Kind::Bool), alone("observer.syncEnabled", Kind::Bool), alone("oraclePath", Kind::Text),
    supported("autopurge.snapRetainCount", Kind::Int(1, i32::MAX as i64), "3",
        "snapshots that are kept, with the log that the oldest of them needs; below 3 is corrected to 3"),
    supported("autopurge.purgeInterval", Kind::Int(0, i32::MAX as i64), "1",
        "0 keeps every snapshot and the whole log; any other value removes what is not needed after each snapshot"),
    not_yet("localSessionsEnabled", Kind::Bool), not_yet("localSessionsUpgradingEnabled", Kind::Bool),
    java("quorum.cnxn.threads.size"),

    // Storage. A segment of 64 KiB has room for a few batches; above 16 GiB, preparing one takes minutes.
    supported("preAllocSize", Kind::Int(64, 2 << 20), "65536",
        "KiB of one segment of the transaction log; unless set, at most a sixteenth of its volume"),
    supported("forceSync", Kind::YesNo, "yes", "no is the same as log.sync=none, unsafe"),
    supported("fsync.warningthresholdms", Kind::Int(0, i64::MAX), "1000",
        "milliseconds from which on a log sync is reported as slow"),
    supported("datadir.autocreate", Kind::Bool, "true", "creates the data directories when they are missing"),
    supported("snapCount", Kind::Int(2, i32::MAX as i64), "100000",
        "transactions after which a snapshot is taken, at the latest; at random between half of them and all"),
    supported("snapSizeLimitInKb", Kind::Int(i32::MIN as i64, i32::MAX as i64), "4194304",
        "the same by KiB of log; 0 or less: however many; unless set, at most an eighth of the log's volume"),
    not_yet("txnLogSizeLimitInKb", INT),
    not_yet("flushDelay", INT), not_yet("maxWriteQueuePollTime", INT), not_yet("maxBatchSize", INT),
    not_yet("snapshot.compression.method", Kind::Text), not_yet("snapshot.trust.empty", Kind::Bool),
    not_yet("db.autocreate", Kind::Bool),
    supported("digest.enabled", Kind::Bool, "true",
        "transactions say the digest of the leader's tree, and the others compare it with theirs"),
    not_yet("closeSessionTxn.enabled", Kind::Bool), not_yet("serializeLastProcessedZxid.enabled", Kind::Bool),
    alone("commitLogCount", INT), alone("forceSnapshotSync", Kind::Bool),
    supported("snapshotSizeFactor", Kind::Number, "0.33",
        "a leader sends what is in its log up to this part of its newest snapshot's size; -1: always a snapshot"),
    alone("leader.maxConcurrentSnapSyncs", INT), alone("leader.maxConcurrentDiffSyncs", INT),

    // Data model and limits. Those that Java takes from its command line only are ordinary keys here.
    supported("jute.maxbuffer", Kind::Int(1024, I32), "1048575",
        "bytes of the longest request, and so of a node's data"),
    not_yet("jute.maxbuffer.extrasize", INT),
    supported("enforceQuota", Kind::Bool, "false",
        "refuses what is beyond a hard quota, and reports what is beyond another; setquota of zkCli.sh sets them"),
    supported("extendedTypesEnabled", Kind::Bool, "false",
        "nodes may be created that are deleted when they were not changed for a time"),
    supported("znode.container.checkIntervalMs", Kind::Int(1, I32), "60000",
        "milliseconds from one look at containers and nodes that live for a time to the next"),
    supported("znode.container.maxPerMinute", Kind::Int(1, I32), "10000", "how many of them are deleted in a minute at most"),
    supported("znode.container.maxNeverUsedIntervalMs", COUNT, "0",
        "milliseconds that a container without a child yet is kept; 0: for ever"),
    supported("skipACL", Kind::YesNo, "no", "everybody may do everything, whatever the lists of nodes say"),
    not_yet("enableEagerACLCheck", Kind::Bool), not_yet("readonlymode.enabled", Kind::Bool), not_yet("maxResponseCacheSize", INT),
    not_yet("maxGetChildrenResponseCacheSize", INT), not_yet("emulate353TTLNodes", Kind::Bool),
    java("watchManagerName"), java("watcherCleanThreadsNum"), java("watcherCleanThreshold"),
    java("watcherCleanIntervalInSeconds"), java("maxInProcessingDeadWatchers"), java("bitHashCacheSize"),

    // Admission.
    supported("globalOutstandingLimit", Kind::Int(1, I32), "1000",
        "requests in process on a core from which on no more are read; with more than two voters shared among all but one"),
    supported("nio.sessionlessCnxnTimeout", Kind::Int(1, I32), "10000",
        "milliseconds after which a connection without a session is closed"),
    supported("clientTcpKeepAlive", Kind::Bool, "false", "TCP keep-alive on clients' connections"),
    supported("request_throttle_max_requests", COUNT, "0",
        "requests in process from which on no more are read, if that is less than globalOutstandingLimit; 0: no such limit"),
    supported("throttled_op_wait_time", COUNT, "0",
        "milliseconds after which a request that has waited is refused (ThrottledOp, -127); 0: never"),
    not_yet("largeRequestMaxBytes", INT), not_yet("largeRequestThreshold", INT),
    java("request_throttle_stall_time"), not_yet("request_throttle_drop_stale", Kind::Bool),
    not_yet("request_stale_connection_check", Kind::Bool), not_yet("request_stale_latency_check", Kind::Bool),
    java("request_throttler.shutdownTimeout"),
    not_yet("connection_throttle_*", Kind::Text), not_yet("netty.server.outstandingHandshake.limit", INT),
    not_yet("netty.server.earlyDropSecureConnectionHandshakes", Kind::Bool), java("netty.advancedFlowControl.enabled"),
    java("nio.numSelectorThreads"), java("nio.numWorkerThreads"), java("nio.directBufferBytes"),
    java("nio.shutdownTimeout"), java("commitProcessor.numWorkerThreads"), java("commitProcessor.maxReadBatchSize"),
    java("commitProcessor.maxCommitBatchSize"), java("commitProcessor.shutdownTimeout"), java("serverCnxnFactory"),
    java("intBufferStartingSizeBytes"),

    // Ensemble, election, learners.
    alone("tcpKeepAlive", Kind::Bool), alone("cnxTimeout", INT), alone("quorumCnxnTimeoutMs", INT),
    alone("electionPortBindRetry", INT), alone("fastleader.minNotificationInterval", INT),
    alone("fastleader.maxNotificationInterval", INT), alone("leader.maxTimeToWaitForEpoch", INT),
    alone("leaderConnectDelayDuringRetryMs", INT), alone("leader.ackLoggingFrequency", INT),
    alone("observer.reconnectDelayMs", INT), alone("observer.election.DelayMs", INT),
    alone("observerMaster.sizeLimit", INT), alone("multiAddress.enabled", Kind::Bool),
    alone("multiAddress.reachabilityCheckTimeoutMs", INT), alone("multiAddress.reachabilityCheckEnabled", Kind::Bool),
    alone("leader.nodelay", Kind::Bool), alone("follower.nodelay", Kind::Bool), java("leader.closeSocketAsync"),
    java("learner.closeSocketAsync"), java("learner.asyncSending"),
    java("forward_learner_requests_to_commit_processor_disabled"), java("follower.skipLearnerRequestToNextProcessor"),

    // Authentication, TLS, audit. What is missing and fails closed is a warning; what would let somebody in is refused.
    supported("DigestAuthenticationProvider.enabled", Kind::Bool, "true",
        "clients may say who they are by user:password (addauth digest)"),
    supported("DigestAuthenticationProvider.digestAlg", Kind::OneOf(&["SHA1", "SHA-256", "SHA-512"]), "SHA1",
        "what hashes user:password; the same on all servers, and what is stored depends on it"),
    supported("DigestAuthenticationProvider.superDigest", Kind::Text, "(none)",
        "user:base64(hash of user:password) of whom may do everything"),
    supported("enforce.auth.enabled", Kind::Bool, "false",
        "turns away clients that ask for anything before an auth of one of enforce.auth.schemes"),
    supported("enforce.auth.schemes", Kind::Text, "(none)",
        "schemes that count for enforce.auth.enabled, separated by commas: digest, ip"),
    only("sessionRequireClientSASLAuth", Kind::Bool, "false", SASL),
    only("quorum.auth.enableSasl", Kind::Bool, "false", SASL),
    only("quorum.auth.serverRequireSasl", Kind::Bool, "false", SASL),
    only("quorum.auth.learnerRequireSasl", Kind::Bool, "false", SASL),
    alone("quorum.auth.learner.saslLoginContext", Kind::Text), alone("quorum.auth.server.saslLoginContext", Kind::Text),
    alone("quorum.auth.kerberos.servicePrincipal", Kind::Text),
    not_yet("IPAuthenticationProvider.usexforwardedfor", Kind::Bool),
    not_yet("X509AuthenticationProvider.superUser", Kind::Text), not_yet("superUser", Kind::Text),
    not_yet("zookeeper.superUser", Kind::Text), not_yet("authProvider", Kind::Text),
    not_yet("authProvider.*", Kind::Text), not_yet("ensembleAuthName", Kind::Text),
    not_yet("allowSaslFailedClients", Kind::Bool), not_yet("SASLAuthenticationProvider.superPassword", Kind::Text),
    java("sasl.serverconfig"), java("jaasLoginRenew"), java("requireClientAuthScheme"), java("requireKerberosConfig"), not_yet("letAnySaslUserDoX", Kind::Text),
    not_yet("kerberos.*", Kind::Text),
    not_yet("security.auth_to_local", Kind::Text), refused("ssl.*", TLS), only("sslQuorum", Kind::Bool, "false", TLS),
    only("sslQuorumReloadCertFiles", Kind::Bool, "false", TLS), only("portUnification", Kind::Bool, "false", TLS),
    only("client.portUnification", Kind::Bool, "false", TLS), only("client.certReload", Kind::Bool, "false", TLS),
    only("admin.portUnification", Kind::Bool, "false", TLS), only("admin.forceHttps", Kind::Bool, "false", TLS),
    only("admin.needClientAuth", Kind::Bool, "false", TLS), not_yet("audit.enable", Kind::Bool),
    java("audit.impl.class"), java("fips-mode"),

    // Administration, metrics, diagnostics.
    supported("4lw.commands.whitelist", Kind::Text, "srvr",
        "four-letter words that are answered, separated by commas, or *; srvr always is"),
    not_yet("admin.enableServer", Kind::Bool), not_yet("admin.serverAddress", Kind::Text),
    not_yet("admin.serverPort", INT), not_yet("admin.commandURL", Kind::Text), not_yet("admin.idleTimeout", INT),
    not_yet("admin.rateLimiterIntervalInMS", INT), not_yet("admin.snapshot.enabled", Kind::Bool),
    not_yet("admin.restore.enabled", Kind::Bool), java("admin.httpVersion"),
    // Apache hands everything under this prefix to the provider's class.
    not_yet("metricsProvider.*", Kind::Text), java("metricsProvider.exportJvmInfo"),
    java("metricsProvider.numWorkerThreads"), java("metricsProvider.maxQueueSize"),
    java("metricsProvider.workerShutdownTimeoutMs"), not_yet("jvm.pause.monitor", Kind::Bool),
    not_yet("jvm.pause.info-threshold.ms", INT), not_yet("jvm.pause.warn-threshold.ms", INT),
    not_yet("jvm.pause.sleep.time.ms", INT), not_yet("messageTracker.Enabled", Kind::Bool),
    not_yet("messageTracker.BufferSize", INT), not_yet("pathStats.enabled", Kind::Bool),
    not_yet("pathStats.slotCapacity", INT), not_yet("pathStats.slotDuration", INT), not_yet("pathStats.maxDepth", INT),
    not_yet("pathStats.sampleRate", Kind::Number), not_yet("pathStats.initialDelay", INT),
    not_yet("pathStats.delay", INT), not_yet("pathStats.topPathMax", INT),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// The first columns of the tables of the operations reference, families with an example of each member it spells
    /// out.
    const APACHE: &str = "
        dataDir dataLogDir clientPort clientPortAddress secureClientPort secureClientPortAddress tickTime initLimit
        syncLimit connectToLearnerMasterLimit minSessionTimeout maxSessionTimeout maxClientCnxns maxCnxns
        clientPortListenBacklog server.1 group.1 weight.1 peerType electionAlg leaderServes standaloneEnabled
        reconfigEnabled dynamicConfigFile quorumListenOnAllIPs observerMasterPort syncEnabled autopurge.snapRetainCount
        autopurge.purgeInterval localSessionsEnabled localSessionsUpgradingEnabled oraclePath quorum.cnxn.threads.size
        version observer.syncEnabled

        preAllocSize snapCount snapSizeLimitInKb txnLogSizeLimitInKb commitLogCount snapshotSizeFactor forceSync
        fsync.warningthresholdms flushDelay maxWriteQueuePollTime maxBatchSize snapshot.compression.method
        snapshot.trust.empty datadir.autocreate db.autocreate digest.enabled closeSessionTxn.enabled
        serializeLastProcessedZxid.enabled forceSnapshotSync leader.maxConcurrentSnapSyncs leader.maxConcurrentDiffSyncs

        jute.maxbuffer jute.maxbuffer.extrasize enforceQuota extendedTypesEnabled emulate353TTLNodes
        znode.container.checkIntervalMs znode.container.maxPerMinute znode.container.maxNeverUsedIntervalMs skipACL
        enableEagerACLCheck readonlymode.enabled watchManagerName watcherCleanThreadsNum watcherCleanThreshold
        watcherCleanIntervalInSeconds maxInProcessingDeadWatchers bitHashCacheSize maxResponseCacheSize
        maxGetChildrenResponseCacheSize

        globalOutstandingLimit request_throttle_max_requests request_throttle_stall_time request_throttle_drop_stale
        request_stale_connection_check request_stale_latency_check request_throttler.shutdownTimeout
        throttled_op_wait_time largeRequestMaxBytes largeRequestThreshold connection_throttle_tokens
        connection_throttle_fill_time connection_throttle_fill_count connection_throttle_freeze_time
        connection_throttle_drop_increase connection_throttle_drop_decrease connection_throttle_decrease_ratio
        connection_throttle_weight_enabled connection_throttle_global_session_weight
        connection_throttle_local_session_weight connection_throttle_renew_session_weight
        netty.advancedFlowControl.enabled netty.server.outstandingHandshake.limit
        netty.server.earlyDropSecureConnectionHandshakes nio.numSelectorThreads nio.numWorkerThreads
        nio.directBufferBytes nio.sessionlessCnxnTimeout nio.shutdownTimeout commitProcessor.numWorkerThreads
        commitProcessor.maxReadBatchSize commitProcessor.maxCommitBatchSize commitProcessor.shutdownTimeout
        serverCnxnFactory intBufferStartingSizeBytes tcpKeepAlive clientTcpKeepAlive

        cnxTimeout quorumCnxnTimeoutMs electionPortBindRetry fastleader.minNotificationInterval
        fastleader.maxNotificationInterval leader.maxTimeToWaitForEpoch leaderConnectDelayDuringRetryMs
        leader.closeSocketAsync learner.closeSocketAsync learner.asyncSending leader.ackLoggingFrequency
        forward_learner_requests_to_commit_processor_disabled follower.skipLearnerRequestToNextProcessor
        observer.reconnectDelayMs observer.election.DelayMs observerMaster.sizeLimit multiAddress.enabled
        multiAddress.reachabilityCheckTimeoutMs multiAddress.reachabilityCheckEnabled leader.nodelay follower.nodelay

        DigestAuthenticationProvider.enabled DigestAuthenticationProvider.superDigest
        DigestAuthenticationProvider.digestAlg IPAuthenticationProvider.usexforwardedfor
        X509AuthenticationProvider.superUser zookeeper.superUser superUser authProvider authProvider.1 ensembleAuthName
        sessionRequireClientSASLAuth enforce.auth.enabled enforce.auth.schemes allowSaslFailedClients letAnySaslUserDoX
        kerberos.removeHostFromPrincipal security.auth_to_local quorum.auth.enableSasl quorum.auth.serverRequireSasl
        quorum.auth.learnerRequireSasl quorum.auth.learner.saslLoginContext quorum.auth.server.saslLoginContext
        quorum.auth.kerberos.servicePrincipal sslQuorum portUnification sslQuorumReloadCertFiles client.portUnification
        client.certReload ssl.keyStore.location ssl.trustStore.password ssl.quorum.keyStore.passwordPath ssl.clientAuth
        ssl.authProvider ssl.sslProvider fips-mode audit.enable audit.impl.class

        4lw.commands.whitelist admin.enableServer admin.serverAddress admin.serverPort admin.commandURL
        admin.idleTimeout admin.httpVersion admin.portUnification admin.forceHttps admin.needClientAuth
        admin.rateLimiterIntervalInMS admin.snapshot.enabled admin.restore.enabled metricsProvider.className
        metricsProvider.httpHost metricsProvider.httpPort metricsProvider.exportJvmInfo metricsProvider.numWorkerThreads
        metricsProvider.maxQueueSize metricsProvider.workerShutdownTimeoutMs jvm.pause.monitor
        jvm.pause.info-threshold.ms jvm.pause.warn-threshold.ms jvm.pause.sleep.time.ms messageTracker.Enabled
        messageTracker.BufferSize pathStats.enabled pathStats.slotCapacity pathStats.slotDuration pathStats.maxDepth
        pathStats.sampleRate pathStats.initialDelay pathStats.delay pathStats.topPathMax";

    #[test]
    fn every_key_of_apaches_is_known() {
        let missing: Vec<&str> = APACHE.split_whitespace().filter(|key| find(key).is_none()).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }

    #[test]
    fn the_table_keeps_its_promises() {
        for (index, key) in KEYS.iter().enumerate() {
            assert!(KEYS[..index].iter().all(|other| other.name != key.name), "{} is there twice", key.name);
            match key.standing {
                Standing::Supported { default, doc } => {
                    assert!(default.contains('(') || key.kind.wrong(default).is_none(), "{}: {default}", key.name);
                    assert!(!doc.is_empty() && !doc.contains('\n') && !doc.ends_with('.'), "{}: {doc}", key.name);
                }
                Standing::Refused { except: Some(value), .. } => {
                    assert_eq!(key.kind.wrong(value), None, "{}", key.name)
                }
                _ => {}
            }
        }
    }

    #[test]
    fn a_family_needs_a_member_and_a_key_of_its_own_goes_first() {
        assert!(find("server.").is_none() && find("server").is_none() && find("ssl.").is_none());
        assert_eq!(find("server.12").unwrap().name, "server.*");
        assert_eq!(find("metricsProvider.httpPort").unwrap().name, "metricsProvider.*");
        assert_eq!(find("metricsProvider.maxQueueSize").unwrap().name, "metricsProvider.maxQueueSize");
    }

    #[test]
    fn values() {
        let port = Kind::Int(0, 65_535);
        for (kind, good) in [
            (Kind::Bool, "TRUE"),
            (Kind::YesNo, "No"),
            (port, "0xffff"),
            (Kind::Number, "-0.5"),
            (Kind::History, "no"),
            (Kind::History, "00ff00ff00ff00FF"),
        ] {
            assert_eq!(kind.wrong(good), None, "{good}");
        }
        for (kind, bad) in [
            (Kind::Bool, "yes"),
            (Kind::Number, "NaN"),
            (Kind::Path, ""),
            (Kind::History, "yes"),
            (Kind::History, "+0ff00ff00ff00ff"),
        ] {
            assert_eq!(kind.wrong(bad), Some("is none of the possible values"), "{bad}");
        }
        for bad in ["", "0x", "0x-1", "1.5", "1 2", "99999999999999999999"] {
            assert_eq!(port.wrong(bad), Some("is not a whole number"), "{bad}");
        }
        assert_eq!((port.wrong("-1"), port.wrong("65536")), (Some("is out of range"), Some("is out of range")));
    }

    #[test]
    fn what_was_meant() {
        for (key, meant) in [
            ("clientPrt", "clientPort"),
            ("clientport", "clientPort"),
            ("DATADIR", "dataDir"),
            ("dataDri", "dataDir"),
            ("datalogdir", "dataLogDir"),
            ("log.pipelinDepth", "log.pipelineDepth"),
            ("log.synch", "log.sync"),
            ("coreThread", "coreThreads"),
            ("maxClientCnxn", "maxClientCnxns"),
            ("maxClientConnections", "maxClientCnxns"),
            ("tick_time", "tickTime"),
            ("4lw.command.whitelist", "4lw.commands.whitelist"),
            ("zookeeper.forceSync", "forceSync"),
            ("server1", "server.*"),
        ] {
            assert_eq!(nearest(key), Some(meant), "{key}");
        }
        for key in "x threads heapSize com.example.thing log.compression snapshots initialConfig ÄÖÜ".split(' ') {
            assert_eq!(nearest(key), None, "{key}");
        }
    }
}
