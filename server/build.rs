//! When this version was made: the date of the commit that it is built from, or of `SOURCE_DATE_EPOCH`; none if neither is known.

use std::process::Command;

#[expect(clippy::disallowed_methods, reason = "this is what build scripts are told by")]
fn main() {
    println!("cargo::rerun-if-env-changed=SOURCE_DATE_EPOCH");
    println!("cargo::rerun-if-changed=src");
    let epoch = std::env::var("SOURCE_DATE_EPOCH").ok();
    let date = |program: &str, args: &[&str]| {
        let output = Command::new(program).env("TZ", "UTC").args(args).output().ok()?;
        String::from_utf8(output.stdout).ok().map(|date| date.trim().to_owned()).filter(|date| !date.is_empty())
    };
    let made = match epoch {
        Some(seconds) => date("date", &["-d", &format!("@{seconds}"), "+%Y-%m-%d %H:%M"]),
        None => date("git", &["log", "-1", "--format=%cd", "--date=format-local:%Y-%m-%d %H:%M"]),
    };
    let built = made.map(|date| format!(", built on {date} UTC")).unwrap_or_default();
    println!("cargo::rustc-env=CORRAL_BUILT={built}");
}
