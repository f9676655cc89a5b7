//! The options without a value: those of mount(8) that all file systems have, and our own.

use nix::mount::MsFlags;

/// How the kernel is to mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountOptions {
    pub flags: MsFlags,
    /// Other users may use the mount, as far as mode bits permit.
    pub allow_other: bool,
    /// Changes only the flags of an existing mount: all other options are ignored.
    pub remount: bool,
    /// Security labels, for the kernel.
    pub labels: Vec<String>,
}

impl Default for MountOptions {
    fn default() -> Self {
        let flags = MsFlags::MS_NODEV | MsFlags::MS_NOSUID;
        Self { flags, allow_other: false, remount: false, labels: Vec::new() }
    }
}

/// Options that set or clear a flag.
const FLAGS: [(&str, MsFlags, bool); 16] = [
    ("ro", MsFlags::MS_RDONLY, true),
    ("rw", MsFlags::MS_RDONLY, false),
    ("nodev", MsFlags::MS_NODEV, true),
    ("dev", MsFlags::MS_NODEV, false),
    ("nosuid", MsFlags::MS_NOSUID, true),
    ("suid", MsFlags::MS_NOSUID, false),
    ("noexec", MsFlags::MS_NOEXEC, true),
    ("exec", MsFlags::MS_NOEXEC, false),
    ("sync", MsFlags::MS_SYNCHRONOUS, true),
    ("async", MsFlags::MS_SYNCHRONOUS, false),
    ("dirsync", MsFlags::MS_DIRSYNC, true),
    ("noatime", MsFlags::MS_NOATIME, true),
    ("atime", MsFlags::MS_NOATIME, false),
    ("nodiratime", MsFlags::MS_NODIRATIME, true),
    ("diratime", MsFlags::MS_NODIRATIME, false),
    ("strictatime", MsFlags::MS_STRICTATIME, true),
];

/// Options that other programs handle, or that have no effect here, since there are no access times, links or versions.
const WITHOUT_EFFECT: [&str; 30] = [
    "defaults",
    "auto",
    "noauto",
    "_netdev",
    "nofail",
    "user",
    "nouser",
    "users",
    "owner",
    "group",
    "relatime",
    "norelatime",
    "nostrictatime",
    "lazytime",
    "nolazytime",
    "iversion",
    "noiversion",
    "mand",
    "nomand",
    "silent",
    "loud",
    "symfollow",
    "nosymfollow",
    "quiet",
    "bg",
    "fg",
    "nonempty",
    "default_permissions",
    "allow_root",
    "auto_unmount",
];

const PREFIXES_WITHOUT_EFFECT: [&str; 7] = ["x-", "X-", "comment=", "helper=", "uhelper=", "fsname=", "subtype="];

const LABELS: [&str; 4] = ["context=", "fscontext=", "defcontext=", "rootcontext="];

impl MountOptions {
    /// Takes one option; false if it is unknown.
    pub fn take(&mut self, option: &str) -> bool {
        if let Some((_, flag, on)) = FLAGS.iter().find(|(name, ..)| *name == option) {
            self.flags.set(*flag, *on);
            return true;
        }
        let begins = |names: &[&str]| names.iter().any(|name| option.starts_with(name));
        match option {
            "allow_other" => self.allow_other = true,
            "remount" => self.remount = true,
            _ if begins(&LABELS) => self.labels.push(option.to_owned()),
            _ => return option.is_empty() || WITHOUT_EFFECT.contains(&option) || begins(&PREFIXES_WITHOUT_EFFECT),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_two_contrary_options_wins() {
        let mut options = MountOptions::default();
        for option in ["ro", "rw", "rw", "ro", "noexec", "exec", "suid"] {
            assert!(options.take(option), "{option}");
        }
        assert_eq!(options.flags, MsFlags::MS_RDONLY | MsFlags::MS_NODEV);
    }

    #[test]
    fn unknown_options_are_refused() {
        for option in ["nosuch", "conf", "roo", "comment", "x", "rw "] {
            assert!(!MountOptions::default().take(option), "{option}");
        }
    }
}
