//! The settings that count, and what they say: each key once, with its default where nothing is set.
//!
//! **Not here**: what settings mean together (`resolve`), which keys there are ([`super::keys`]).

use super::ConfigError;
use super::file::{Setting, one_line};
use super::keys::{self, Key, Kind, Standing};
use std::path::Path;

/// The settings that count.
pub(super) struct Given(Vec<Setting>);

impl Given {
    pub(super) fn new(settings: Vec<Setting>) -> Given {
        let mut counting: Vec<Setting> = Vec::with_capacity(settings.len());
        for setting in settings {
            counting.retain(|earlier| earlier.key != setting.key);
            counting.push(setting);
        }
        Given(counting)
    }

    /// Holds each setting against the table. Returns the warnings. Where there are `peers`, keys that speak about them and have no
    /// effect are missed.
    pub(super) fn judge(&self, peers: bool) -> Result<Vec<String>, ConfigError> {
        let (mut not_yet, mut warnings) = (Vec::new(), Vec::new());
        for setting in &self.0 {
            let (origin, key) = (setting.origin.clone(), setting.key.clone());
            let Some(known) = keys::find(&key) else {
                return Err(ConfigError::UnknownKey { origin, nearest: keys::nearest(&key), key });
            };
            if let Some(wrong) = known.kind.wrong(&setting.value) {
                return Err(bad(setting, format!("{:?} {wrong}", setting.value), &known.kind.to_string()));
            }
            if let (Kind::YesNo, Standing::Supported { default, .. }) = (known.kind, known.standing)
                && !matches!(&*setting.value, "yes" | "no")
            {
                warnings.push(format!(
                    "{}: {key}: {:?} is taken for {default}; allowed: yes or no",
                    setting.origin, setting.value
                ));
            }
            match known.standing {
                Standing::NotYet => not_yet.push(one_line(&key)),
                Standing::Ignored(why) if why == keys::ALONE && peers => not_yet.push(one_line(&key)),
                Standing::Supported { .. } | Standing::Ignored(_) => {}
                Standing::Refused { except: Some(value), .. } if value.eq_ignore_ascii_case(&setting.value) => {}
                Standing::Refused { reason, except: allowed } => {
                    return Err(ConfigError::Refused { origin, key, reason, allowed });
                }
            }
        }
        if !not_yet.is_empty() {
            warnings.push(format!("not supported yet, ignored: {}", not_yet.join(", ")));
        }
        Ok(warnings)
    }

    /// The setting itself, if it was made.
    pub(super) fn get(&self, key: &str) -> Option<&Setting> {
        debug_assert!(keys::find(key).is_some(), "{key} is not in the table");
        self.0.iter().find(|setting| setting.key == key)
    }

    /// The settings of a family of keys, in order.
    pub(super) fn family(&self, prefix: &'static str) -> impl Iterator<Item = &Setting> {
        self.0.iter().filter(move |setting| setting.key.starts_with(prefix))
    }

    /// The value, or else the default of the table.
    pub(super) fn text(&self, key: &str) -> &str {
        match (self.get(key), keys::find(key).expect("the key is in the table").standing) {
            (Some(setting), _) => &setting.value,
            (None, Standing::Supported { default, .. }) => default,
            (None, standing) => panic!("{key} has no default: {standing:?}"),
        }
    }

    /// A number, or else the default of the table.
    pub(super) fn int<T: TryFrom<i64>>(&self, key: &str) -> T {
        let number = keys::whole(self.text(key)).and_then(|number| T::try_from(number).ok());
        number.unwrap_or_else(|| panic!("the range of {key} fits its type"))
    }

    /// A number of which 0 and -1 mean that there is none.
    pub(super) fn positive(&self, key: &str) -> Option<u32> {
        u32::try_from(self.int::<i64>(key)).ok().filter(|number| *number > 0)
    }

    pub(super) fn flag(&self, key: &str) -> bool {
        let text = self.text(key);
        match keys::find(key).expect("the key is in the table") {
            Key { kind: Kind::YesNo, standing: Standing::Supported { default: "yes", .. }, .. } => text != "no",
            Key { kind: Kind::YesNo, .. } => text == "yes",
            _ => keys::truth(text).expect("its kind was checked"),
        }
    }
}

/// The error that `setting` is.
pub(super) fn bad(setting: &Setting, wrong: String, allowed: &str) -> ConfigError {
    let (origin, key) = (setting.origin.clone(), setting.key.clone());
    ConfigError::BadValue { origin, key, wrong, allowed: allowed.into() }
}

/// The error that `file` has no such setting.
pub(super) fn missing(file: &Path, key: &'static str) -> ConfigError {
    let allowed = keys::find(key).expect("the key is in the table").kind.to_string();
    ConfigError::Missing { path: file.into(), key, allowed }
}
