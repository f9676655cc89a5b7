//! Who may use a mount: the user who mounted, and others only where they are let in, never its control files.

use crate::mounting::Mount;
use crate::programs::program;
use crate::scripting::{Setup, setup, setup_with};
use std::process::Command;

const NOBODY: &str = "65534";

/// Each line of `script`, which ends as the word before it says, is run by another user in the mount.
fn as_another_user(mount: &Mount, rows: &[(&str, &str)]) {
    for (expected, script) in rows {
        let output = Command::new("setpriv")
            .args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "bash", "-c"])
            .arg(format!("cd \"$M\" && {script}"))
            .env("M", mount.dir())
            .output()
            .expect("setpriv runs");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        let found = if output.status.success() { "ok" } else { "denied" };
        assert_eq!(found, *expected, "{script}: {told}");
        assert!(output.status.success() || told.contains("Permission denied"), "{script}: {told}");
    }
}

/// A cluster whose mount has these options, with some keys; `None` if this user cannot become another.
fn shared(options: &[&str]) -> Option<Setup> {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: not root, who alone can become another user");
        return None;
    }
    let setup = setup_with(2, &[1], options)?;
    let cluster = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
    std::fs::set_permissions(setup.cluster.dir(), cluster).unwrap();
    for key in ["0_k", "1_k", "0_own", "1_own"] {
        setup.put(&format!("b/{key}"), b"content");
    }
    setup.bash("chmod 400 b/?_own; stat .s4/nodes >/dev/null; ls -l b >/dev/null");
    Some(setup)
}

#[test]
fn a_mount_of_root_is_closed_to_other_users() {
    let Some(setup) = shared(&[]) else { return };
    // Also what the kernel has just been told of.
    setup.bash("cat b/0_k b/1_k b/0_own");
    let denied = ["true", "cat b/0_k", "ls .", "ls b", "stat b/0_k", "cat .s4/nodes", "rm -f b/0_k", "echo x > b/0_n"];
    as_another_user(&setup.mount, &denied.map(|script| ("denied", script)));
    assert!(setup.is_key("b/0_k") && !setup.is_key("b/0_n"));
}

#[test]
fn a_mount_that_is_open_to_others_is_so_by_mode_bits_and_its_control_files_never() {
    let Some(setup) = shared(&["-o", "allow_other"]) else { return };
    let rows = [
        ("ok", "ls -l b"),
        ("ok", "cat b/0_k b/1_k"),
        ("denied", "cat b/0_own"),
        ("denied", "cat b/1_own"),
        ("denied", "rm -f b/0_k"),
        ("denied", "rm -f b/1_own"),
        ("denied", "chmod 777 b/0_own 2>&1 | sed 's/Operation not permitted/Permission denied/' >&2; false"),
        ("denied", "echo x > b/0_n"),
        ("denied", "mv b/0_k b/2_k"),
        ("denied", "mkdir c"),
        ("denied", "ls .s4/"),
        ("denied", "cat .s4/nodes"),
        ("denied", "ls .s4/map"),
        ("denied", "echo 's4://b/ s4://o/ id' > .s4/map/x"),
        ("denied", "cat .s4/map/x"),
    ];
    as_another_user(&setup.mount, &rows);
    setup.bash("cat b/?_own .s4/nodes; echo 's4://b/ s4://o/ cat' > .s4/map/mine; cat .s4/map/mine; cat o/0_k");
    // Neither what root has just looked at.
    as_another_user(&setup.mount, &rows[10..]);
    assert!(!setup.is_key("o/x") && setup.is_key("b/0_k"));
}

/// A descriptor is the right to use what it is of, as on a disk.
#[test]
fn another_user_writes_to_a_file_that_was_handed_on() {
    let Some(setup) = shared(&[]) else { return };
    setup.bash("echo own > b/3_k; setpriv --reuid 65534 --clear-groups bash -c 'echo $BASHPID' > b/1_handed_on");
    assert!(!setup.key("b/1_handed_on").is_empty());
}

#[test]
fn the_mount_has_its_type_and_takes_what_every_file_system_takes() {
    let Some(mut setup) = setup() else { return };
    let line = |setup: &Setup| {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let dir = setup.mount.dir().to_str().unwrap();
        mounts.lines().find(|line| line.split(' ').nth(1) == Some(dir)).unwrap().to_owned()
    };
    assert!(line(&setup).contains(" fuse.s4 "), "{}", line(&setup));
    let every = "defaults,auto,noauto,nofail,_netdev,user,users,nouser,owner,group,async,sync,dirsync,atime,noatime,\
        diratime,nodiratime,relatime,norelatime,strictatime,nostrictatime,lazytime,nolazytime,iversion,noiversion,mand,\
        nomand,silent,loud,dev,nodev,suid,nosuid,exec,noexec,nosymfollow,symfollow,default_permissions,allow_other,rw,\
        comment=anything,x-systemd.automount,x-systemd.requires=a.service,X-mount.mkdir,x-gvfs-hide,helper=s4,uhelper=u";
    setup.mount = Mount::new(&setup.cluster, "every", &["-o", every]);
    assert!(line(&setup).contains("noexec"), "{}", line(&setup));
    setup.bash("echo x > b/0_k; cat b/0_k");
    let output = Command::new(program("s4-mount"))
        .args(["-c", setup.cluster.conf().to_str().unwrap(), "-o", "nosuchoption"])
        .arg(setup.cluster.dir().join("none"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_mount_is_remounted_with_other_options() {
    if !nix::unistd::geteuid().is_root() {
        return eprintln!("skipped: not root, who alone can remount");
    }
    let Some(setup) = setup() else { return };
    setup.bash("echo x > b/0_k");
    let remount = |options: &str| {
        let mut command = Command::new(program("s4-mount"));
        command.arg("s4").arg(setup.mount.dir()).args(["-o", options]).env_remove("S4_CONF_PATH").output().unwrap()
    };
    assert!(remount("remount,ro,noexec").status.success());
    assert!(setup.mount.fails("echo y > b/1_k").contains("Read-only"));
    setup.bash("cat b/0_k");
    assert!(remount("rw,remount").status.success());
    setup.bash("echo y > b/1_k");
    let nothing = Command::new(program("s4-mount")).args(["s4", "/proc", "-o", "remount"]).output().unwrap();
    let told = String::from_utf8_lossy(&nothing.stderr).into_owned();
    assert!(!nothing.status.success() && told.contains("no s4 cluster is mounted there"), "{told}");
}

#[test]
fn what_cannot_be_reached_as_it_is_meant_is_not_mounted() {
    let Some(setup) = setup() else { return };
    let wrong = setup.cluster.dir().join("wrong.conf");
    let text = std::fs::read_to_string(setup.cluster.conf()).unwrap();
    let (first, _) = text.split_once('\n').unwrap();
    std::fs::write(&wrong, format!("{first}\n127.0.0.1:1\n")).unwrap();
    let mount = |background: &[&str]| {
        let mut command = Command::new(program("s4-mount"));
        command.arg(setup.cluster.dir().join("no")).arg("-c").arg(&wrong).args(background).output().unwrap()
    };
    let output = mount(&[]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("another node list") && told.contains("127.0.0.1:1"), "{told}");
    assert_eq!(told.lines().count(), 1, "{told}");
    let output = mount(&["--background"]);
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("another node list"));
}

#[test]
fn a_mount_with_a_wrong_secret_is_refused() {
    if crate::scripting::skipped() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (right, wrong) = (dir.path().join("right"), dir.path().join("wrong"));
    std::fs::write(&right, "a secret of many characters\n").unwrap();
    std::fs::write(&wrong, "another one of many characters\n").unwrap();
    let cluster = crate::harness::Cluster::with_options(1, &["--reserve", "0", "--secret", right.to_str().unwrap()]);
    let output = Command::new(program("s4-mount"))
        .arg(cluster.dir().join("no"))
        .arg("-c")
        .arg(cluster.conf())
        .arg("--secret")
        .arg(&wrong)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && told.contains("secret") && told.lines().count() == 1, "{told}");
    drop(Mount::new(&cluster, "mnt", &["--secret", right.to_str().unwrap()]));
}

/// Seconds that are a number and still no time.
#[test]
fn times_that_nobody_can_wait_for_are_refused_everywhere() {
    let cluster = crate::harness::Cluster::start(1);
    cluster.put("s4://b/k", b"content");
    for seconds in ["1e19", "1e300", "inf", "NaN", "0", "-1"] {
        let deadline = format!("--deadline={seconds}");
        assert!(cluster.fails(2, &[&deadline, "ls"]).contains("seconds"), "{seconds}");
        let timeout = format!("--timeout={seconds}");
        assert!(cluster.fails(2, &["map", "s4://b/", "s4://o/", "cat", &timeout]).contains("seconds"), "{seconds}");
        for args in [vec![deadline.clone()], vec!["-o".to_owned(), format!("deadline={seconds}")]] {
            let output = Command::new(program("s4-mount"))
                .arg(cluster.dir().join("no"))
                .arg("-c")
                .arg(cluster.conf())
                .args(&args)
                .output()
                .unwrap();
            crate::harness::assert_no_crash(&output);
            assert_eq!(output.status.code(), Some(2), "{args:?}");
            assert!(String::from_utf8_lossy(&output.stderr).contains("seconds"), "{args:?}");
        }
        let output = cluster.command(&["ls"]).env("S4_DEADLINE", seconds).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "S4_DEADLINE={seconds}");
    }
    // Over HTTP, where a task's thread would panic.
    let spec = |timeout: &str| {
        format!(
            r#"{{"id":"20260101-000000-000-00000{}","kind":"map","indir":"b","outdir":"o","cmd":"cat","timeout":{timeout}}}"#,
            timeout.len() % 10
        )
    };
    for timeout in ["1e19", "1e300", "-1", "0"] {
        let body = spec(timeout);
        let request = format!(
            "POST /v1/jobs HTTP/1.1\r\nhost: 127.0.0.1\r\ns4-cluster: {}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            cluster.digest(),
            body.len()
        );
        let answer = cluster.raw(0, request.as_bytes());
        assert!(answer.contains(r#""kind":"usage""#) && answer.contains("seconds"), "{timeout}: {answer}");
    }
}
