//! Bytes pass as they are: in commands, in what commands print, and in keys of any size.

use crate::harness::{Cluster, assert_no_crash, peak_kib, text};
use crate::programs::program;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::process::{Output, Stdio};

const MIB: usize = 1 << 20;

/// Runs `s4 ARGS CMD`, where CMD is any bytes.
fn run_bytes(cluster: &Cluster, args: &[&str], cmd: &[u8]) -> Output {
    let output = cluster.command(args).arg(OsString::from_vec(cmd.to_vec())).output().expect("s4 runs");
    assert_no_crash(&output);
    output
}

/// Commands, and what bash prints for each.
fn commands() -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut commands: Vec<(Vec<u8>, Vec<u8>)> = [
        ("echo %d %s 100%", "%d %s 100%\n"),
        ("printf '%s %d %%' 100% 7", "100% 7 %"),
        (r#"printf %s "a 'b' \"c\"" '"d"'"#, r#"a 'b' "c""d""#),
        (r"printf %s 'it'\''s'", "it's"),
        ("echo one\necho two\n\n# three\n", "one\ntwo\n"),
        ("cat <<'END'\n$HOME \\n `x`\nEND", "$HOME \\n `x`\n"),
        (r#"x=7; echo $x "$x" '$x' \$x "${x}0" $((x * 6))"#, "7 7 $x $x 70 42\n"),
        (r"printf %s '\' '\\' '\n' \\", r"\\\\n\"),
        ("printf %s 'zażółć 日本 🛫'", "zażółć 日本 🛫"),
        ("echo a\\\nb; echo '\t' ' '", "ab\n\t  \n"),
        ("printf 'a\\r\\nb'", "a\r\nb"),
        ("echo '{}' '[*]' '?' '!' '#'", "{} [*] ? ! #\n"),
    ]
    .map(|(cmd, printed)| (cmd.as_bytes().to_vec(), printed.as_bytes().to_vec()))
    .to_vec();
    commands.push((b"printf %s '\xff\xfe\x80' $'\\xc3'".to_vec(), b"\xff\xfe\x80\xc3".to_vec()));
    let all: Vec<u8> = (1..=255).filter(|&byte| byte != b'\'').collect();
    commands.push(([b"printf %s '", all.as_slice(), b"'"].concat(), all));
    commands
}

#[test]
fn eval_passes_a_command_and_what_it_prints_byte_for_byte() {
    let cluster = Cluster::start(2);
    cluster.put("s4://b/1_key", b"");
    for (cmd, printed) in commands() {
        let output = run_bytes(&cluster, &["eval", "s4://b/1_key"], &cmd);
        assert!(output.status.success(), "{}: {}", text(&cmd), text(&output.stderr));
        assert_eq!(output.stdout, printed, "{}", text(&cmd));
        assert_eq!(text(&output.stderr), "", "{}", text(&cmd));
    }
}

#[test]
fn map_passes_a_command_and_what_it_prints_byte_for_byte() {
    let cluster = Cluster::start(2);
    cluster.put("s4://b/1_key", b"");
    for (number, (cmd, printed)) in commands().into_iter().enumerate() {
        let outdir = format!("s4://out{number}/");
        let output = run_bytes(&cluster, &["map", "s4://b/", &outdir], &cmd);
        assert!(output.status.success(), "{}: {}", text(&cmd), text(&output.stderr));
        assert_eq!(cluster.get(&format!("{outdir}1_key")), printed, "{}", text(&cmd));
    }
}

#[test]
fn every_byte_of_a_key_comes_through_eval_and_map() {
    let cluster = Cluster::start(2);
    let all: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    cluster.put("s4://b/0_key", &all);
    assert_eq!(cluster.run(&["eval", "s4://b/0_key", "cat"]).stdout, all);
    assert_eq!(cluster.run(&["eval", "s4://b/0_key", "cat >&2"]).stderr, all);
    cluster.ok(&["map", "s4://b/", "s4://out/", "cat"]);
    assert_eq!(cluster.get("s4://out/0_key"), all);
}

#[test]
fn a_command_that_begins_with_a_dash_is_a_command() {
    let cluster = Cluster::start(1);
    cluster.put("s4://b/0_key", b"");
    let cmd = "-greet() { echo hello; }; -greet";
    assert_eq!(cluster.ok(&["eval", "--", "s4://b/0_key", cmd]), "hello\n");
    cluster.ok(&["map", "--", "s4://b/", "s4://out/", cmd]);
    assert_eq!(cluster.get("s4://out/0_key"), b"hello\n");
    // Not an option of bash, which would leave it with no command and call that done.
    assert!(cluster.fails(127, &["eval", "--", "s4://b/0_key", "-e"]).contains("command not found"));
}

#[test]
fn the_exit_status_of_eval_is_the_commands_own() {
    let cluster = Cluster::start(1);
    cluster.put("s4://b/0_key", b"");
    for (cmd, code) in
        [("exit 0", 0), ("exit 7", 7), ("exit 255", 255), ("false", 1), ("exit 2", 2), ("kill -9 $$", 137)]
    {
        assert_eq!(cluster.run(&["eval", "s4://b/0_key", cmd]).status.code(), Some(code), "{cmd}");
    }
    let output = cluster.run(&["eval", "s4://b/0_key", "echo before; false | cat; echo after"]);
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(1), "before\n"));
}

#[test]
fn eval_keeps_stdout_and_stderr_apart() {
    let cluster = Cluster::start(1);
    cluster.put("s4://b/0_key", b"");
    let cmd = "for i in {1..2000}; do echo out $i; echo err $i >&2; done; exit 3";
    let output = cluster.run(&["eval", "s4://b/0_key", cmd]);
    assert_eq!(output.status.code(), Some(3));
    for (name, got) in [("out", output.stdout), ("err", output.stderr)] {
        let wanted: String = (1..=2000).map(|i| format!("{name} {i}\n")).collect();
        assert!(text(&got) == wanted, "{name} is not as printed");
    }
}

#[test]
fn keys_of_no_byte_and_of_one_come_back_equal() {
    let cluster = Cluster::start(3);
    for content in [b"".as_slice(), b"\0", b"\n"] {
        for node in 0..cluster.len() {
            let key = format!("s4://b/{node}_{}", content.first().map_or("none".to_owned(), u8::to_string));
            cluster.put(&key, content);
            assert_eq!(cluster.get(&key), content, "{key}");
            cluster.ok(&["cp", &key, "copy"]);
            assert_eq!(std::fs::read(cluster.dir().join("copy")).unwrap(), content, "{key}");
            assert_eq!(cluster.run(&["eval", &key, "cat"]).stdout, content, "{key}");
        }
    }
}

/// Writes `blocks` different mebibytes of noise, until the reader wants no more.
fn write_noise(mut sink: impl Write, blocks: u64) {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut block: Vec<u8> = (0..MIB / 8)
        .flat_map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        })
        .collect();
    for number in 0..blocks {
        block[..8].copy_from_slice(&number.to_le_bytes());
        if sink.write_all(&block).is_err() {
            return;
        }
    }
}

#[test]
fn a_key_of_3_gib_comes_back_equal() {
    const BLOCKS: u64 = 3072;
    let cluster = Cluster::start(2);
    let mut put = cluster.command(&["cp", "-", "s4://b/1_large"]).stdin(Stdio::piped()).spawn().unwrap();
    write_noise(put.stdin.take().unwrap(), BLOCKS);
    assert!(put.wait().unwrap().success());
    assert!(cluster.ok(&["ls", "s4://b/"]).contains(" 3221225472 1_large\n"));
    cluster.ok(&["cp", "s4://b/1_large", "copy"]);
    cluster.ok(&["rm", "s4://b/1_large"]);
    let mut cmp = std::process::Command::new("cmp")
        .args(["-", "copy"])
        .current_dir(cluster.dir())
        .stdin(Stdio::piped())
        .spawn()
        .expect("cmp runs");
    write_noise(cmp.stdin.take().unwrap(), BLOCKS);
    assert!(cmp.wait().unwrap().success(), "the copy differs");
    std::fs::remove_file(cluster.dir().join("copy")).unwrap();
}

/// The peak of a process that may have ended.
fn client_peak_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0 kB");
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn eval_streams_a_result_of_2_gib_in_little_memory() {
    const WANTED: u64 = 2 << 30;
    const MAX_KIB: u64 = 64 * 1024;
    let cluster = Cluster::start(1);
    cluster.put("s4://b/0_key", b"");
    let mut client =
        cluster.command(&["eval", "s4://b/0_key", "head -c 2G /dev/zero"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = client.stdout.take().unwrap();
    let mut buffer = vec![0; MIB];
    let (mut got, mut peak, mut sampled) = (0_u64, 0, 0);
    loop {
        let count = stdout.read(&mut buffer).unwrap();
        if count == 0 {
            break;
        }
        assert!(buffer[..count].iter().all(|&byte| byte == 0), "a byte that is not 0");
        got += count as u64;
        // Once more with the last bytes still to come, which is close to its end.
        if got - sampled >= 64 << 20 || WANTED - got < 1 << 20 {
            (peak, sampled) = (client_peak_kib(client.id()).max(peak), got);
        }
    }
    assert!(client.wait().unwrap().success());
    assert_eq!(got, WANTED);
    assert!(peak > 0 && peak < MAX_KIB, "the client had {peak} KiB");
    let daemon = peak_kib(cluster.pid(0));
    assert!(daemon < MAX_KIB, "the daemon had {daemon} KiB");
}

/// The deadline is for nodes that are silent, and not for whoever writes into the pipe.
#[test]
fn a_producer_that_is_silent_for_longer_than_the_deadline_is_waited_for() {
    let cluster = Cluster::start(1);
    let script = "(echo one; sleep 3; echo two) | \"$0\" --deadline 1 cp - s4://b/k";
    let mut command = std::process::Command::new("bash");
    command.args(["-c", script, program("s4")]).env("S4_CONF_PATH", cluster.conf());
    assert!(command.status().unwrap().success());
    assert_eq!(cluster.get("s4://b/k"), b"one\ntwo\n");
}

/// A node answers at once with what the kernel has in memory, and lets a thread wait for the rest.
#[test]
fn a_small_key_is_the_same_from_memory_and_from_the_disk() {
    let cluster = Cluster::start(1);
    let content: Vec<u8> = (0..50_000u32).flat_map(u32::to_le_bytes).collect();
    cluster.put("s4://b/0_k", &content);
    assert_eq!(cluster.get("s4://b/0_k"), content);
    let file = std::fs::File::open(cluster.data(0).join("b/0_k")).unwrap();
    file.sync_all().unwrap();
    posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).unwrap();
    assert_eq!(cluster.get("s4://b/0_k"), content);
}
