//! Who may do what, and how clients say who they are: `skipACL`, `DigestAuthenticationProvider.*`, `enforce.auth.*`.
//!
//! **Not here**: what follows from it ([`crate::requests::acl`]).

use super::ConfigError;
use super::given::{Given, bad};
use crate::requests::acl::Access;
use crate::requests::scheme::{DigestOptions, Hash, Scheme};

const SUPER_DIGEST: &str = "DigestAuthenticationProvider.superDigest";

pub(super) fn access(given: &Given, warnings: &mut Vec<String>) -> Result<Access, ConfigError> {
    let skip = given.flag("skipACL");
    if skip {
        warnings.push("skipACL is yes: everybody who can connect may read and change everything".into());
    }
    let name = given.text("DigestAuthenticationProvider.digestAlg");
    let hash = Hash::ALL.into_iter().find(|known| known.name() == name).expect("the table has the same words");
    let super_digest = given.get(SUPER_DIGEST).map(|setting| setting.value.clone());
    if super_digest.as_ref().is_some_and(|digest| !hash.can_make(digest)) {
        warnings.push(format!("{SUPER_DIGEST}: no client is that; allowed: user:base64({name} of user:password)"));
    }
    let has_digest = given.flag("DigestAuthenticationProvider.enabled");
    let digest = has_digest.then_some(DigestOptions { hash, super_digest });
    Ok(Access { skip, digest, enforced: enforced(given, has_digest)? })
}

/// The schemes of which clients must have one. As with Apache's, a server that is told none, or one that it has not, does not start.
fn enforced(given: &Given, has_digest: bool) -> Result<Vec<Scheme>, ConfigError> {
    let Some(by) = given.get("enforce.auth.enabled").filter(|_| given.flag("enforce.auth.enabled")) else {
        return Ok(Vec::new());
    };
    let Some(setting) = given.get("enforce.auth.schemes") else {
        return Err(bad(by, "enforce.auth.schemes is not set".into(), "true only with enforce.auth.schemes"));
    };
    let scheme = |name: &str| {
        let known = Scheme::from_name(name).filter(|scheme| has_digest || *scheme != Scheme::Digest);
        known.ok_or_else(|| bad(setting, format!("there is no scheme {name:?}"), "digest and ip, if they are on"))
    };
    setting.value.split(',').map(|name| scheme(name.trim())).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{Defaults, file, keys, resolve};
    use super::*;
    use std::io;
    use std::path::Path;

    /// What a file with these lines after two others comes to, and its warnings.
    fn with(text: &str) -> Result<(Access, Vec<String>), String> {
        let path = Path::new("zoo.cfg");
        let settings = file::parse(path, &format!("dataDir=/d\nclientPort=2181\n{text}")).unwrap();
        let none = |_: &Path| Err(io::ErrorKind::NotFound.into());
        let resolved = resolve::resolve(settings, Some(path), &Defaults { cores: 1 }, none);
        resolved.map(|(config, warnings)| (config.access, warnings)).map_err(|error| error.to_string())
    }

    #[test]
    fn access_is_apaches_unless_it_is_set() {
        assert_eq!(with(""), Ok((Access::default(), vec![])));
        let (access, warnings) = with("skipACL=yes").unwrap();
        assert!(access.skip && warnings[0].starts_with("skipACL is yes: everybody"));
        assert_eq!(with("DigestAuthenticationProvider.enabled=false").unwrap().0.digest, None);
        let text = format!("{SUPER_DIGEST}=super:lK75jTNcA+U9vtVEw5vB51mj/w4=");
        let digest = DigestOptions { hash: Hash::Sha1, super_digest: Some(text[SUPER_DIGEST.len() + 1..].to_owned()) };
        assert_eq!(with(&text), Ok((Access { digest: Some(digest), ..Access::default() }, vec![])));
        let (access, warnings) = with(&format!("{text}\nDigestAuthenticationProvider.digestAlg=SHA-256")).unwrap();
        assert_eq!(access.digest.map(|digest| digest.hash), Some(Hash::Sha256));
        let warning = "no client is that; allowed: user:base64(SHA-256 of user:password)";
        assert_eq!(warnings, [format!("{SUPER_DIGEST}: {warning}")]);
    }

    #[test]
    fn what_is_enforced_must_be_there() {
        let on = |text: &str| with(&format!("enforce.auth.enabled=true\n{text}")).map(|(access, _)| access.enforced);
        assert_eq!(on("enforce.auth.schemes=digest"), Ok(vec![Scheme::Digest]));
        assert_eq!(on("enforce.auth.schemes=ip, digest"), Ok(vec![Scheme::Ip, Scheme::Digest]));
        assert_eq!(with("enforce.auth.schemes=digest").unwrap().0.enforced, []);
        let error = "zoo.cfg:3: enforce.auth.enabled: enforce.auth.schemes is not set; allowed: true only with \
                     enforce.auth.schemes";
        assert_eq!(on(""), Err(error.to_owned()));
        for (text, missing) in [
            ("enforce.auth.schemes=digest,sasl", "sasl"),
            ("enforce.auth.schemes=", ""),
            ("enforce.auth.schemes=digest\nDigestAuthenticationProvider.enabled=false", "digest"),
        ] {
            let why = format!("there is no scheme {missing:?}; allowed: digest and ip, if they are on");
            assert_eq!(on(text), Err(format!("zoo.cfg:4: enforce.auth.schemes: {why}")));
        }
    }

    #[test]
    fn the_table_has_the_same_words() {
        let allowed = keys::find("DigestAuthenticationProvider.digestAlg").unwrap().kind.to_string();
        assert_eq!(allowed, Hash::ALL.map(Hash::name).join(", "));
    }
}
