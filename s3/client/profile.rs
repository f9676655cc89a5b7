//! Profiles of `~/.aws`: whose credentials are used, and where S3 is. Both files may describe a profile, and that of credentials
//! wins. Values are read as AWS's own programs read them: neither quotes nor backslashes mean anything.

use reqsign_core::{Env, OsEnv};
use s4::error::{Error, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The profile that is used if none is named. It need not be there.
const DEFAULT: &str = "default";

/// The sections of a file by their names, each with its values.
type Sections = BTreeMap<String, BTreeMap<String, String>>;

/// Both files, as they were read.
#[derive(Default)]
pub struct Profiles {
    config: Sections,
    credentials: Sections,
}

/// What the files say of a profile.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Profile {
    pub name: String,
    values: BTreeMap<String, String>,
}

impl Profiles {
    /// Reads the files; those that do not exist are empty. Errors: a file cannot be read, or is malformed.
    pub fn load() -> Result<Self> {
        Ok(Self {
            config: read(&place("AWS_CONFIG_FILE", "config"))?,
            credentials: read(&place("AWS_SHARED_CREDENTIALS_FILE", "credentials"))?,
        })
    }

    /// The profile of this name, else of `AWS_PROFILE`, else the default one. Errors: one that was named is not there.
    pub fn chosen(&self, name: Option<&str>) -> Result<Profile> {
        match name.map(str::to_owned).or_else(|| variable("AWS_PROFILE")) {
            Some(name) if name != DEFAULT => self.named(&name),
            _ => Ok(self.find(DEFAULT).unwrap_or_else(|| Profile { name: DEFAULT.to_owned(), ..Profile::default() })),
        }
    }

    /// Errors: there is no such profile.
    pub fn named(&self, name: &str) -> Result<Profile> {
        let [config, credentials] =
            [("AWS_CONFIG_FILE", "config"), ("AWS_SHARED_CREDENTIALS_FILE", "credentials")].map(|(v, f)| place(v, f));
        self.find(name).ok_or_else(|| {
            let (config, credentials) = (config.display(), credentials.display());
            Error::usage(format!("no profile '{}' in {config} or {credentials}", name.escape_debug()))
        })
    }

    fn find(&self, name: &str) -> Option<Profile> {
        let config = self.config.get(&format!("profile {name}")).or_else(|| self.config.get(name));
        let sections = [config, self.credentials.get(name)];
        let is_there = sections.iter().any(Option::is_some);
        let values = sections.into_iter().flatten().flatten().map(|(name, value)| (name.clone(), value.clone()));
        is_there.then(|| Profile { name: name.to_owned(), values: values.collect() })
    }

    /// A session of single sign-on, which several profiles may use.
    pub fn sso_session(&self, name: &str) -> Option<Profile> {
        let values = self.config.get(&format!("sso-session {name}"))?;
        Some(Profile { name: name.to_owned(), values: values.clone() })
    }
}

impl Profile {
    /// A value that is not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

/// A variable of the environment that is not empty.
pub fn variable(name: &str) -> Option<String> {
    OsEnv.var(name).filter(|value| !value.is_empty())
}

/// The file that the variable names, else this file of `~/.aws`.
fn place(name: &str, file: &str) -> PathBuf {
    let home = || OsEnv.home_dir().unwrap_or_default();
    let path = variable(name).unwrap_or_else(|| format!("~/.aws/{file}"));
    match path.strip_prefix("~/") {
        Some(below) => home().join(below),
        None => path.into(),
    }
}

fn read(file: &Path) -> Result<Sections> {
    match std::fs::read_to_string(file) {
        // The line itself is not told: it may hold a key.
        Ok(text) => parse(&text).map_err(|line| Error::usage(format!("{}: line {line}: malformed", file.display()))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Sections::default()),
        Err(e) => Err(Error::io(file.display(), &e)),
    }
}

/// Errors: the number of a line that is malformed.
fn parse(text: &str) -> std::result::Result<Sections, usize> {
    let (mut sections, mut current, mut indented) = (Sections::default(), None, None);
    for (number, line) in (1_usize..).zip(text.lines()) {
        let (plain, indent) = (line.trim(), line.len() - line.trim_start().len());
        if plain.is_empty() || plain.starts_with(['#', ';']) {
            continue;
        }
        if let Some(header) = plain.strip_prefix('[') {
            let name = header.split_once(']').ok_or(number)?.0.trim();
            // A kind, and a name that may be quoted.
            let parts = name.split_once(char::is_whitespace);
            let parts = parts.map(|(kind, name)| format!("{kind} {}", name.trim().trim_matches(['"', '\''])));
            let name = parts.unwrap_or_else(|| name.to_owned());
            (current, indented) = (Some(sections.entry(name).or_default()), None);
            continue;
        }
        // What is indented more belongs to the value before it.
        if indented.is_some_and(|before| indent > before) {
            continue;
        }
        let (name, value) = plain.split_once(['=', ':']).ok_or(number)?;
        let section: &mut BTreeMap<String, String> = current.as_mut().ok_or(number)?;
        section.insert(name.trim().to_ascii_lowercase(), value.trim().to_owned());
        indented = Some(indent);
    }
    Ok(sections)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profiles(config: &str, credentials: &str) -> Profiles {
        Profiles { config: parse(config).unwrap(), credentials: parse(credentials).unwrap() }
    }

    #[test]
    fn both_files_describe_a_profile_and_the_credentials_win() {
        let config = "[default]\nregion = r0\n\n# a comment\n[profile work]\nRegion=r1\naws_secret_access_key = old\ns3 =\n  \
                      max_queue_size = 5\nendpoint_url = http://h:1\n[sso-session s]\nsso_region = r2\n";
        let credentials = "[work]\naws_access_key_id = id\naws_secret_access_key = a\\n\"/+='#;b\n";
        let profiles = profiles(config, credentials);
        let work = profiles.named("work").unwrap();
        assert_eq!(work.get("aws_secret_access_key"), Some("a\\n\"/+='#;b"));
        let found = [work.get("region"), work.get("endpoint_url"), work.get("s3"), work.get("absent")];
        assert_eq!(found, [Some("r1"), Some("http://h:1"), None, None]);
        assert_eq!(profiles.named("default").unwrap().get("region"), Some("r0"));
        assert_eq!(profiles.sso_session("s").unwrap().get("sso_region"), Some("r2"));
        assert!(profiles.sso_session("work").is_none());
    }

    #[test]
    fn a_profile_that_was_named_must_be_there() {
        let none = Profiles::default();
        assert_eq!(none.chosen(Some("default")).unwrap().name, "default");
        let refused = none.chosen(Some("a\nb")).unwrap_err().to_string();
        assert!(refused.starts_with("no profile 'a\\nb' in ") && refused.lines().count() == 1, "{refused}");
    }

    #[test]
    fn files_are_read_as_others_read_them() {
        let text = "[ default ]\n  a = 1\n  b=2\n\t# no\n[profile \"my work\"] ; more\na: 3\n; no\n nested = 4\n\nb =\n[default]\nc = 5\n";
        let sections = parse(text).unwrap();
        let of =
            |section: &str| sections[section].iter().map(|(a, b)| format!("{a}={b}")).collect::<Vec<_>>().join(" ");
        assert_eq!((of("default"), of("profile my work")), ("a=1 b=2 c=5".to_owned(), "a=3 b=".to_owned()));
        for (text, line) in [("[a]\nx = 1\nsecret\n\ny = 2\n", 3), ("x = 1\n", 1), ("\n[a\n", 2)] {
            assert_eq!(parse(text), Err(line), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_has_a_malformed_line(text in "(\\[?[a-z =\"]{0,4}\\]?|\\PC{0,6}|\n){0,9}") {
            if let Err(line) = parse(&text) {
                proptest::prop_assert!(line <= text.lines().count());
            }
        }
    }
}
