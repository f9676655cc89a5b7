//! The command lines of `s4 mount` and `s4 umount`.

use super::text::examples;
use clap::{Args, ValueHint};
use std::ffi::OsString;
use std::path::PathBuf;

#[derive(Args)]
#[command(long_about = MOUNT_LONG, after_help = MOUNT)]
pub struct MountArgs {
    /// Where to mount
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub dir: PathBuf,
    /// Options of s4-mount, which does the work; 's4-mount --help' tells them
    #[arg(value_name = "MOUNT OPTIONS", trailing_var_arg = true, allow_hyphen_values = true)]
    pub options: Vec<OsString>,
}

const MOUNT_LONG: &str = "\
Show the whole cluster as a directory: this runs s4-mount(8) with these options. A directory that is not empty is refused without \
'-o nonempty', since the mount would hide what is in it.";

const MOUNT: &str = "\
Runs s4-mount, which stays until it is ended with Ctrl-C or the directory is unmounted.

Examples:
  s4 mount /s4
  s4 mount /s4 --background
  s4 umount /s4";

#[derive(Args)]
#[command(long_about = UMOUNT_LONG, after_help = UMOUNT, after_long_help = examples(UMOUNT))]
pub struct UmountArgs {
    /// Where the cluster is mounted
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub dir: PathBuf,
    /// Unmount also while it is in use: programs that have files open continue until they close them
    #[arg(short, long)]
    pub lazy: bool,
}

const UMOUNT_LONG: &str = "\
Take away a mount that 's4 mount' has made, also one whose s4-mount(8) was killed. A mount that is in use is refused; with --lazy it is taken away all the \
same, and programs that have files open continue until they close them.

's4 umount' returns once all files that were closed in the mount are published. It fails if they could not be published, or if that \
takes longer than 65 seconds. It does not wait for an s4-mount in another network namespace.";

const UMOUNT: &str = "\
Takes a mount away, also that of an s4-mount that was killed, and returns once all that was closed in it is published; it fails \
if that could not be, or takes longer than 65 seconds. It waits for no s4-mount in another network namespace.

Example:
  s4 umount /s4";
