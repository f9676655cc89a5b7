//! `s4 cp --split`: one input becomes many keys, cut at line ends.

use crate::harness::{Cluster, assert_no_crash, text};
use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Lines of differing length.
fn lines(count: usize) -> String {
    (0..count).map(|n| format!("{n},{}\n", "x".repeat(n * 7919 % 101))).collect()
}

fn write(cluster: &Cluster, path: &str, content: &[u8]) {
    std::fs::write(cluster.dir().join(path), content).unwrap();
}

/// The keys of bucket `in`, each with its bytes.
fn pieces(cluster: &Cluster) -> Vec<(String, String)> {
    let listing = text(&cluster.run(&["ls", "s4://in/"]).stdout);
    let names = listing.lines().map(|line| line.split_whitespace().last().unwrap().to_owned());
    names.map(|name| (name.clone(), text(&cluster.get(&format!("s4://in/{name}"))))).collect()
}

/// Runs `s4` with `input` at stdin.
fn fed(cluster: &Cluster, args: &[&str], input: &[u8]) -> Output {
    let mut child =
        cluster.command(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A refusal may come before all is taken.
    let _ = child.stdin.take().unwrap().write_all(input);
    let output = child.wait_with_output().unwrap();
    assert_no_crash(&output);
    output
}

/// What `program` makes of `input`.
fn packed(program: &str, input: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program).arg("-c").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let feeding = std::thread::spawn(move || stdin.write_all(&input).unwrap());
    let output = child.wait_with_output().unwrap();
    feeding.join().unwrap();
    output.stdout
}

fn has_zstd() -> bool {
    let found = Command::new("zstd").arg("--version").stdout(Stdio::null()).status().is_ok();
    if !found {
        eprintln!("skipped: zstd is not installed");
    }
    found
}

#[test]
fn pieces_end_at_line_ends_and_go_round_the_nodes() {
    let cluster = Cluster::start(3);
    let content = lines(3000) + "no newline";
    write(&cluster, "big.csv", content.as_bytes());
    let quiet = cluster.run(&["cp", "--split", "10K", "big.csv", "s4://in/"]);
    assert!(quiet.status.success() && quiet.stderr.is_empty(), "{}", text(&quiet.stderr));
    let pieces = pieces(&cluster);
    assert!(pieces.len() >= 15, "{}", pieces.len());
    for (number, (name, piece)) in pieces.iter().enumerate() {
        assert_eq!(*name, format!("{number:04}_big.csv"));
        assert!(piece.len() <= 10 << 10 && (piece.ends_with('\n') || number + 1 == pieces.len()), "{name}");
        assert!(cluster.data(number % 3).join("in").join(name).exists(), "{name} is on node {}", number % 3);
    }
    assert!(pieces.iter().map(|(_, piece)| &**piece).collect::<String>() == content);
    // 'split -C' makes the same.
    let made =
        Command::new("split").args(["-C", "10K", "big.csv", "part-"]).current_dir(cluster.dir()).status().unwrap();
    assert!(made.success());
    let parts = std::fs::read_dir(cluster.dir())
        .unwrap()
        .flatten()
        .filter(|e| e.file_name().to_string_lossy().starts_with("part-"));
    assert_eq!(parts.count(), pieces.len());
}

#[test]
fn stdin_is_split_as_a_file_is() {
    let cluster = Cluster::start(2);
    let content = lines(40_000);
    write(&cluster, "big", content.as_bytes());
    cluster.ok(&["cp", "--split", "300K", "big", "s4://in/"]);
    let of_file = pieces(&cluster);
    cluster.ok(&["rm", "-r", "s4://in/"]);
    assert!(fed(&cluster, &["cp", "--split", "300k", "-", "s4://in/big"], content.as_bytes()).status.success());
    let of_stdin = pieces(&cluster);
    assert_eq!(of_stdin[0].0, "000000_big", "how many there will be is not known");
    let contents = |pieces: &[(String, String)]| pieces.iter().map(|(_, piece)| piece.clone()).collect::<Vec<_>>();
    assert!(contents(&of_file) == contents(&of_stdin));
    cluster.ok(&["rm", "-r", "s4://in/"]);
    assert!(fed(&cluster, &["cp", "--split", "1GiB", "-", "s4://in/"], b"a\n").status.success());
    assert_eq!(pieces(&cluster), [("000000_stdin".to_owned(), "a\n".to_owned())]);
}

#[test]
fn long_lines_stay_whole_and_nothing_is_one_empty_key() {
    let cluster = Cluster::start(2);
    let long = "x".repeat(3 << 20) + "\n";
    let content = ["a\n", &long, "b\nc"].concat();
    write(&cluster, "big", content.as_bytes());
    cluster.ok(&["cp", "--split", "1K", "big", "s4://in/"]);
    let expected = ["a\n".to_owned(), long, "b\nc".to_owned()];
    assert!(pieces(&cluster).into_iter().map(|(_, piece)| piece).eq(expected.clone()));
    cluster.ok(&["rm", "-r", "s4://in/"]);
    assert!(fed(&cluster, &["cp", "--split", "1K", "-", "s4://in/big"], content.as_bytes()).status.success());
    assert!(pieces(&cluster).into_iter().map(|(_, piece)| piece).eq(expected));
    for (args, name) in [(["empty", "s4://in/"], "0000_empty"), (["-", "s4://in/none"], "000000_none")] {
        cluster.ok(&["rm", "-r", "s4://in/"]);
        write(&cluster, "empty", b"");
        cluster.ok(&["cp", "--split", "1K", "--header", args[0], args[1]]);
        assert_eq!(pieces(&cluster), [(name.to_owned(), String::new())]);
    }
}

#[test]
fn a_header_is_repeated_in_each_piece() {
    let cluster = Cluster::start(2);
    let body = lines(1000);
    let content = format!("id,text\n{body}");
    write(&cluster, "big", content.as_bytes());
    for args in [["big", "s4://in/"], ["-", "s4://in/big"]] {
        let output = fed(&cluster, &["cp", "--split", "5k", "--header", args[0], args[1]], content.as_bytes());
        assert!(output.status.success(), "{}", text(&output.stderr));
        let pieces = pieces(&cluster);
        assert!(pieces.len() > 10 && pieces.iter().all(|(_, piece)| piece.len() <= 5 << 10));
        let bodies =
            pieces.iter().map(|(name, piece)| piece.strip_prefix("id,text\n").unwrap_or_else(|| panic!("{name}")));
        assert!(bodies.collect::<String>() == body, "{args:?}");
        cluster.ok(&["rm", "-r", "s4://in/"]);
        // A header alone.
        let output = fed(&cluster, &["cp", "--split", "5k", "--header", "-", "s4://in/x"], b"id,text\n");
        assert!(output.status.success());
        assert_eq!(self::pieces(&cluster), [("000000_x".to_owned(), "id,text\n".to_owned())]);
        cluster.ok(&["rm", "-r", "s4://in/"]);
    }
    let error = cluster.fails(1, &["cp", "--split", "10", "--header", "big", "s4://in/"]);
    assert!(error.contains("first line") && error.contains("no key was made"), "{error}");
}

#[test]
fn packed_input_is_unpacked_on_the_way() {
    let cluster = Cluster::start(2);
    let content = lines(50_000);
    let mut programs = vec![("gzip", "gz")];
    programs.extend(has_zstd().then_some(("zstd", "zst")));
    for (program, end) in programs {
        let packed = packed(program, content.as_bytes());
        let name = format!("big.csv.{end}");
        write(&cluster, &name, &packed);
        for args in [[&*name, "s4://in/"], ["-", "s4://in/big.csv"]] {
            let output = fed(&cluster, &["cp", "--split", "1M", "--decompress", args[0], args[1]], &packed);
            assert!(output.status.success(), "{}", text(&output.stderr));
            let pieces = pieces(&cluster);
            assert_eq!(pieces[1].0, "000001_big.csv");
            assert!(pieces.into_iter().map(|(_, piece)| piece).collect::<String>() == content, "{program} {args:?}");
            cluster.ok(&["rm", "-r", "s4://in/"]);
        }
        // What is cut off is never taken for whole, wherever it is cut.
        for len in [packed.len() - 1, packed.len() - 5, packed.len() / 2, 20, 5] {
            write(&cluster, "cut", &packed[..len]);
            for args in [["cut", "s4://in/"], ["-", "s4://in/cut"]] {
                let output = fed(&cluster, &["cp", "--split", "1M", "--decompress", args[0], args[1]], &packed[..len]);
                let error = text(&output.stderr);
                assert_eq!(output.status.code(), Some(1), "{program} {len} {args:?}");
                assert!(
                    error.contains("unpacked to its end") && error.lines().count() == 1,
                    "{program} {len}: {error}"
                );
                let left = pieces(&cluster);
                assert!(left.iter().all(|(_, piece)| piece.len() > 900_000), "a last, short piece was published");
                assert!(left.is_empty() == error.contains("no key was made"), "{error}");
                cluster.ok(&["rm", "-r", "s4://in/"]);
            }
        }
        let mut damaged = packed.clone();
        damaged[packed.len() / 2] ^= 0x55;
        write(&cluster, "damaged", &damaged);
        assert!(cluster.fails(1, &["cp", "--split", "1M", "--decompress", "damaged", "s4://in/"]).contains("unpacked"));
        cluster.ok(&["rm", "-r", "s4://in/"]);
    }
    write(&cluster, "plain", b"a\n");
    assert!(
        cluster.fails(1, &["cp", "--split", "1M", "--decompress", "plain", "s4://in/"]).contains("neither by gzip")
    );
}

#[test]
fn a_split_that_failed_says_what_stands_and_goes_on() {
    let cluster = Cluster::start(3);
    let content = lines(30_000);
    write(&cluster, "big", content.as_bytes());
    for (args, name) in [(["big", "s4://in/"], "0010_big"), (["-", "s4://in/big"], "000010_big")] {
        // In the way: the put of one piece is refused.
        cluster.put(&format!("s4://in/{name}"), b"");
        let again = ["cp", "--split", "64k", args[0], args[1], "--skip-existing"];
        let began = Instant::now();
        let output = fed(&cluster, &again[..5], content.as_bytes());
        assert!(began.elapsed() < Duration::from_secs(8), "it waited for the deadline of 10 s: {:?}", began.elapsed());
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(
            error.contains(&format!("s4://in/{name}: key already exists")) && error.contains("_big to s4://in/"),
            "{error}"
        );
        assert!(error.contains("--skip-existing") && error.lines().count() == 1, "{error}");
        let stand = pieces(&cluster);
        assert!((8..30).contains(&stand.len()), "it went on after a failure: {}", stand.len());
        // What is there is of another piece.
        let output = fed(&cluster, &again, content.as_bytes());
        assert!(text(&output.stderr).contains("another --split"), "{}", text(&output.stderr));
        cluster.ok(&["rm", &format!("s4://in/{name}")]);
        let output = fed(&cluster, &again, content.as_bytes());
        assert!(output.status.success() && text(&output.stderr).contains("left out"), "{}", text(&output.stderr));
        let all = pieces(&cluster);
        assert!(all.len() > 20 && all.iter().map(|(_, piece)| &**piece).collect::<String>() == content);
        cluster.ok(&["rm", "-r", "s4://in/"]);
    }
}

#[test]
fn a_split_that_makes_no_sense_is_refused() {
    let cluster = Cluster::start(2);
    write(&cluster, "big", b"a\n");
    write(&cluster, "bad name", b"a\n");
    cluster.put("s4://b/0_k", b"x");
    let cases: [(i32, &[&str], &str); 11] = [
        (2, &["--split", "0", "big", "s4://in/"], "room"),
        (2, &["--split", "x", "big", "s4://in/"], "bytes"),
        (2, &["--split", "1M", "-r", "big", "s4://in/"], "--recursive"),
        (2, &["--split", "1M", "--provenance", "big", "s4://in/"], "--provenance"),
        (2, &["--header", "big", "s4://in/"], "--split"),
        (2, &["--split", "1M", "big", "big", "s4://in/"], "one file"),
        (2, &["--split", "1M", "s4://b/0_k", "s4://in/"], "local"),
        (2, &["--split", "1M", "big", "out"], "keys"),
        (2, &["--split", "1M", "bad name", "s4://in/"], "whitespace"),
        (2, &["--split", "1M", ".", "s4://in/x"], "directory"),
        (1, &["--split", "1M", "missing", "s4://in/"], "missing"),
    ];
    for (code, args, said) in cases {
        let error = cluster.fails(code, &[&["cp"], args].concat());
        assert!(error.contains(said), "{args:?}: {error}");
    }
    assert!(pieces(&cluster).is_empty());
}
