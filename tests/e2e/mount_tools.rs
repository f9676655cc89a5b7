//! Unmodified tools in a mount do what they do on a disk.

use crate::parity::{Parity, all_there};

#[test]
fn readers_of_text_read_the_same() {
    let Some(parity) = Parity::start("text") else { return };
    parity.check(&[
        ("cat", "cat 000_words 001_words 002_empty 002_words"),
        ("cat cksum", "cat *_large | cksum"),
        ("head", "head -n 3 *_words"),
        ("head cksum", "head -c 1000000 001_large | cksum"),
        ("tail", "tail -n 3 *_words"),
        ("tail cksum", "tail -c 300000 002_large | cksum; tail -c +1400000 001_large | cksum"),
        ("less", "less 001_words | cat"),
        ("wc", "wc *_words *_empty sub/*.txt; wc -c *_large"),
        ("od", "od -A d -t x1 -j 1000000 -N 64 001_large"),
        ("cut", "cut -d ' ' -f 2,3 *_words"),
        ("uniq", "cut -c 1 002_words | sort | uniq -c"),
        ("sort", "sort -n *_words; sort -u -k 2 001_words; sort -m <(sort 000_words) <(sort 002_words)"),
        ("grep", "grep -rn needle . | sort; grep -c word1 *_words; grep -lr needle sub | sort"),
        ("rg", "rg --sort path -n needle; rg --sort path -c word1"),
        ("awk", "awk '{ sum += $1 } END { print NR, sum }' *_words"),
        ("paste join", "paste 000_words 001_words; join <(sort 000_words) <(sort 002_words)"),
        ("tac nl", "tac 001_words; nl 002_words"),
        ("sed", "sed -n '5,9s/word/WORD/p' 001_words"),
    ]);
}

#[test]
fn readers_of_names_and_attributes_see_the_same() {
    let Some(parity) = Parity::start("names") else { return };
    parity.check(&[
        ("ls", "ls; ls -R; ls sub/deep"),
        ("ls awk", "ls -laR --time-style=+%s.%N | awk '/^-/ { print $5, $6, $7 } /:$/'"),
        ("stat", "stat -c '%n %s %F %Y %h' *_* sub/*.txt; stat -c '%n %F %h' sub/deep | cut -d ' ' -f 1,2"),
        ("du sort", "find . -type f | LC_ALL=C sort | xargs du -b; find . -type f -print0 | du -bc --files0-from=- | tail -n 1"),
        ("find", "find . -size +1M | sort; find . -empty | sort; find . -name '*.txt' | sort; find . -type d | sort"),
        ("find touch", "touch -d '2001-01-01 UTC' 000_words; find . -newer 000_words -type f | sort; find . ! -newer 000_words -type f"),
        ("find", "find . -mmin +100 -type f; find . -maxdepth 1 -type f -printf '%f %s\\n' | sort"),
        ("test", "test -f 001_words; test -d sub; test ! -e none; test -s 001_words; test ! -s 002_empty; test -r 002_words"),
        ("realpath basename", "basename \"$(realpath sub/../001_words)\"; cd sub/deep; ls ../..; cat ../001_x.txt"),
    ]);
}

#[test]
fn df_shows_the_sum_of_the_nodes_and_du_what_the_keys_take() {
    let Some(parity) = Parity::start("space") else { return };
    let size = |path: &str| -> u64 {
        let shown = parity.ok(&format!("df -B1 --output=size '{path}' | tail -n 1"));
        shown.trim().parse().expect("a number")
    };
    assert_eq!(size("."), 3 * size(parity.cluster().data(0).to_str().unwrap()));
    assert_eq!(parity.ok("df --output=source . | tail -n 1").trim(), "s4");
    let kib: u64 = parity.ok("du -ks 001_large | cut -f 1").trim().parse().expect("a number");
    assert!((1465..1600).contains(&kib), "{kib} KiB");
}

#[test]
fn comparing_and_summing_tools_agree() {
    let Some(parity) = Parity::start("sums") else { return };
    parity.check(&[
        ("sha256sum", "find sub *_* -type f | sort | xargs sha256sum > sums; cat sums; sha256sum -c sums"),
        ("md5sum cksum", "md5sum *_large; cksum *_words"),
        ("diff cp", "cp -r sub 001_copy; diff -r sub 001_copy; ! diff -r sub . > 001_diff; cat 001_diff"),
        ("cmp", "cmp 001_large 001_large; ! cmp 000_words 001_words; ! cmp 001_large 002_large"),
        ("comm", "comm -3 <(sort 000_words) <(sort 002_words)"),
    ]);
    let (disk, mount) = (parity.disk().display(), parity.mount().path("sums"));
    assert_eq!(parity.ok(&format!("diff -r {disk} {} && cmp {disk}/002_large 002_large", mount.display())), "");
}

#[test]
fn files_are_copied_moved_and_removed() {
    let Some(parity) = Parity::start("files") else { return };
    parity.check(&[
        ("cp", "cp 001_words 002_copied; cp 000_large 001_large 002_large sub; cp 002_empty 001_empty"),
        ("cp", "cp -r sub tree; find tree | sort; cp -r tree/. tree2"),
        ("cp", "cp -a sub archive; stat -c '%n %Y' archive/*.txt"),
        ("cp", "cp -v -n 001_words 000_unused; cp -u 001_words newer; cp --parents sub/deep/001_rows.csv tree2"),
        ("mv", "mv tree2/000_x.txt tree2/000_renamed; cat tree2/000_renamed; test ! -e tree2/000_x.txt"),
        ("mv", "mv 000_large 001_moved; mv 001_large 002_moved; mv 002_large 000_moved; cksum *_moved; ! ls *_large 2>&-"),
        ("mv", "mv tree moved; test ! -e tree; find moved | sort; mv moved sub/inner; find sub | sort"),
        ("mv", "mkdir into; mv 000_moved 001_moved 002_empty into; ls into"),
        ("rm", "rm into/001_moved; rm -f none; ls into; rm -r sub/inner; rm -rf archive; ls sub"),
        ("mkdir rmdir", "mkdir -p a/b/c a/b/d; rmdir a/b/c; find a | sort; rmdir -p a/b/d; test ! -e a; mkdir -p stays/here"),
        ("touch", "touch 000_t 001_t 002_t; stat -c '%n %s' *_t; touch 001_words; touch -d '2001-02-03 04:05:06.789 UTC' 002_words"),
        ("stat", "stat -c '%n %Y %y' 002_words | cut -c 1-40; touch -r 002_words 001_t; stat -c %Y 001_t"),
        ("install", "install -d bin; install -m 555 001_words bin/002_tool; install -p -m 444 002_words bin; stat -c '%a %s %n' bin/*"),
        ("chmod", "chmod 0555 001_t; test -x 001_t; chmod 0400 002_t; stat -c %a 001_t 002_t"),
        ("mktemp mv", "f=$(mktemp ./001_XXXXXX); cat \"$f\"; mv \"$f\" 002_from_mktemp"),
    ]);
}

#[test]
fn a_script_may_be_run_from_the_mount() {
    let Some(parity) = Parity::start("scripts") else { return };
    parity.check(&[
        ("bash", "printf '#!/bin/bash\\necho \"$0 $*\"\\n' > 001_script; chmod +x 001_script; ./001_script a b"),
        ("bash", "echo 'echo sourced' > 002_lib; . ./002_lib; bash 002_lib"),
        ("bash", "while read -r a b; do echo \"$b\"; done < 001_words | cksum; mapfile -t lines < 002_words; echo ${#lines[@]}"),
        ("bash", "{ echo one; cat 001_words; echo two; } > 002_group; (cat 000_words; cat 001_words) > 001_subshell"),
        ("bash", "for i in $(seq 30); do echo $i > loop$i; done; cat loop* | cksum; cat <<< here > 001_here"),
    ]);
}

#[test]
fn writers_write_the_same() {
    let Some(parity) = Parity::start("writers") else { return };
    parity.check(&[
        ("sort", "sort -o 001_sorted 001_words; sort -n 002_words -o 000_sorted; cat *_sorted"),
        ("tee", "tee 000_tee 001_tee 002_tee < 001_words | cksum; cat 001_large | tee sub/002_tee | cksum"),
        ("dd", "dd if=001_large of=002_dd bs=1M conv=fsync status=none; cmp 001_large 002_dd"),
        ("dd", "dd if=/dev/zero of=001_sparse bs=1 count=1 seek=1000000 status=none; wc -c 001_sparse; cksum 001_sparse"),
        ("dd", "dd if=002_words of=001_seek bs=1000 seek=3 conv=notrunc status=none; dd if=001_large bs=4096 skip=100 status=none | cksum"),
        ("split", "split -l 100 -d 001_words part_; split -b 400k -d --additional-suffix=_bin 001_large 001; cat 001*_bin | cmp - 001_large"),
        ("csplit", "csplit -s -f piece_ 000_words 100 200; wc -l piece_*"),
        ("awk", "awk '{ print > ($1 % 300 \"_out\") }' *_words; ls *_out | wc -l; cat *_out | sort | cksum"),
        ("xargs", "seq 64 | xargs -P 8 -I{} sh -c 'grep -c word{} 001_words > {}_count || true'; cat *_count | cksum"),
        ("xargs", "ls *_large | xargs -P 8 -n 1 sh -c 'sha256sum $0 > $0.sum'; cat *.sum"),
        ("truncate", "truncate -s 100000 001_truncated; cksum 001_truncated"),
        ("patch diff", "diff -u 000_words 001_words > 001_changes || true; patch -s -o 002_patched 000_words 001_changes; cmp 002_patched 001_words"),
        ("shuf", "seq 1000 > 001_seq; shuf --random-source=001_large 001_seq -o 002_shuffled; sort -n 002_shuffled | cmp - 001_seq"),
        ("base64", "base64 001_large > 002_base64; base64 -d 002_base64 | cmp - 001_large"),
        ("openssl", "openssl dgst -sha256 001_large | cut -d ' ' -f 2"),
    ]);
}

#[test]
fn archives_are_made_and_unpacked() {
    // Archives hold modes and times that differ between a disk and a mount: each goes once its content is compared.
    let Some(parity) = Parity::start("archives") else { return };
    parity.check(&[
        ("tar", "tar cf 001_all.tar sub *_words *_large; tar tf 001_all.tar | sort; mkdir x; tar xf 001_all.tar -C x; diff -r sub x/sub; tar df 001_all.tar; rm 001_all.tar"),
        ("tar gzip", "tar czf 002_sub.tgz sub; mkdir y; tar xzf 002_sub.tgz -C y; find y | sort; stat -c %Y y/sub/*.txt; rm 002_sub.tgz"),
        ("tar xz", "tar cJf 000_sub.txz sub; tar xJf 000_sub.txz -C y --transform s/sub/again/; diff -r sub y/again; rm 000_sub.txz"),
        ("tar", "mkdir z; tar c sub *_words | tar x -C z; diff -r sub z/sub"),
        ("gzip zcat", "cp 001_large 001_k; gzip -n 001_k; test ! -e 001_k; zcat 001_k.gz | cmp - 001_large; gunzip 001_k.gz; cmp 001_k 001_large"),
        ("gzip", "cp 002_words k; gzip -n -k k; ls k k.gz; gzip -n -c k > 001_kc.gz; gzip -t k.gz; zgrep -c word1 k.gz"),
        ("xz", "cp 002_large 002_j; xz -1 002_j; test ! -e 002_j; xzcat 002_j.xz | cmp - 002_large; unxz 002_j.xz; cmp 002_j 002_large"),
        ("zstd", "cp 000_large 000_z; zstd -q --rm 000_z; test ! -e 000_z; zstdcat 000_z.zst | cmp - 000_large; zstd -q -d --rm 000_z.zst; ls *_z*"),
        ("bzip2", "cp 001_words 001_b; bzip2 001_b; test ! -e 001_b; bunzip2 001_b.bz2; cmp 001_b 001_words"),
        ("zip unzip", "zip -qrX 001_sub.zip sub 001_large; unzip -tq 001_sub.zip; unzip -q 001_sub.zip -d unzipped; diff -r sub unzipped/sub; rm 001_sub.zip"),
        ("cpio", "find sub | sort | cpio -o --quiet > 002_sub.cpio; mkdir c; cd c; cpio -id --quiet < ../002_sub.cpio; diff -r ../sub sub; rm ../002_sub.cpio"),
    ]);
}

#[test]
fn rsync_transfers_once_in_and_out() {
    let Some(parity) = Parity::start("rsync") else { return };
    if !all_there("rsync") {
        return;
    }
    let (disk, back) = (parity.disk().display().to_string(), parity.cluster().dir().join("back").display().to_string());
    let second = |from: &str, to: &str| {
        parity.ok(&format!("rsync -a {from}/ {to}"));
        let stats = parity.ok(&format!("rsync -a --stats {from}/ {to}"));
        assert!(stats.contains("Number of regular files transferred: 0\n"), "{from} to {to}: {stats}");
        parity.ok(&format!("diff -r {from} {to}"));
    };
    second(&disk, "in");
    second("in", &back);
    second("in", "within");
    parity.ok(&format!("rsync -a --checksum --stats {disk}/ in | grep -q 'files transferred: 0$'"));
    parity.ok(&format!(
        "echo more > {disk}/002_more; rsync -a --stats {disk}/ in | grep -q 'files transferred: 1$'; cat in/002_more"
    ));
    parity.ok(&format!("rm {disk}/002_more; rsync -a --delete {disk}/ in; test ! -e in/002_more; diff -r {disk} in"));
    parity.ok(&format!(
        "rsync -a --inplace {disk}/ inplace; rsync -a --partial --whole-file {disk}/ partial; diff -r inplace partial"
    ));
    parity.ok("rm -r in within inplace partial");
    parity.check(&[]);
}

#[test]
fn what_write_once_forbids_fails_as_usual_and_damages_nothing() {
    let Some(parity) = Parity::start("refused") else { return };
    let (not_permitted, exists) = ("Operation not permitted", "File exists");
    parity.check_refusals(&[
        ("bash", "echo more >> 001_words", not_permitted),
        ("bash", "echo other > 000_words", not_permitted),
        ("bash", "set -o noclobber; echo other > 002_words", "cannot overwrite existing file"),
        ("sed", "sed -i s/word/other/ 001_words", exists),
        ("sed", "sed -i s/word/other/ 000_words", exists),
        ("perl", "perl -pi -e s/word/other/ 002_words", ""),
        ("cp", "cp 000_words 001_words", not_permitted),
        ("cp", "cp /etc/passwd 001_large", not_permitted),
        ("mv", "mv 000_words 001_words", exists),
        ("mv", "mv -f 001_words 002_large", exists),
        ("tee", "echo x | tee 001_words", not_permitted),
        ("tee", "echo x | tee -a 002_large", not_permitted),
        ("dd", "dd if=/dev/zero of=001_words bs=1 count=1 conv=notrunc", not_permitted),
        ("truncate", "truncate -s 0 001_words", not_permitted),
        ("truncate", "truncate -s +1 002_words", not_permitted),
        ("sort", "sort -o 001_words 001_words", not_permitted),
        ("ln", "ln -s 001_words 001_link", not_permitted),
        ("ln", "ln 001_words 001_link", not_permitted),
        ("mknod", "mknod 001_null c 1 3", not_permitted),
        ("mkfifo", "mkfifo 001_words", exists),
        ("mkdir", "mkdir 001_words", exists),
        ("mkdir", "mkdir sub", exists),
        ("rmdir", "rmdir sub", "Directory not empty"),
        ("rmdir", "rmdir 001_words", "Not a directory"),
        ("rm", "rm sub", "Is a directory"),
        ("cat", "cat sub", "Is a directory"),
        ("cat", "cat none", "No such file or directory"),
        ("ls", "ls 001_words/below", "Not a directory"),
        ("touch", "touch 'with space'", "Invalid argument"),
        ("mkdir", "mkdir 'with space'", "Invalid argument"),
        ("setfattr", "setfattr -n user.x -v 1 001_words", "Operation not supported"),
        ("patch diff", "diff -u 000_words 001_words | patch 000_words", ""),
        ("gzip", "gzip -n -c 001_words > /dev/full", "No space left"),
        ("python3", "python3 -c 'open(\"001_words\", \"r+\")'", "PermissionError"),
        ("python3", "python3 -c 'open(\"001_words\", \"x\")'", "FileExistsError"),
    ]);
}

#[test]
fn git_cannot_live_in_a_mount_and_says_so() {
    let Some(parity) = Parity::start("git") else { return };
    if !all_there("git") {
        return;
    }
    assert!(parity.mount().fails("cd git && git init -q work").contains("File exists"));
    parity.ok("rm -rf work");
    parity.check(&[]);
}

#[test]
fn what_a_process_writes_by_any_of_its_descriptors_is_in_the_key() {
    let Some(parity) = Parity::start("descriptors") else { return };
    let by_duplicate = "import os; fd = os.open('NAME', os.O_WRONLY | os.O_CREAT); os.write(fd, b'a')
os.close(os.dup(fd)); os.write(fd, b'b'); os.close(fd); print(open('NAME').read())";
    let by_second_open =
        "f = open('NAME', 'w+'); f.write('hello'); f.flush(); g = open('NAME', 'r+'); g.write('J'); g.close()
f.write(' world'); f.close(); print(open('NAME').read())";
    let mut scripts = Vec::new();
    for node in 0..3 {
        scripts.push(format!(
            "exec 3> 00{node}_fd; echo a >&3; echo b >&3; cat 00{node}_words >&3; exec 3>&-; cat 00{node}_fd"
        ));
        for (name, python) in [("duplicate", by_duplicate), ("second", by_second_open)] {
            scripts.push(format!("python3 - <<'END'\n{}\nEND", python.replace("NAME", &format!("00{node}_{name}"))));
        }
    }
    let cases: Vec<(&str, &str)> = scripts.iter().map(|script| ("python3", script.as_str())).collect();
    parity.check(&cases);
}

#[test]
fn what_a_child_writes_after_its_parent_published_is_kept_or_refused_aloud() {
    let Some(parity) = Parity::start("children") else { return };
    if !all_there("python3") {
        return;
    }
    const SCRIPT: &str = "python3 - <<'END'
import os, subprocess, sys
fd = os.open('NAME', os.O_WRONLY | os.O_CREAT)
os.write(fd, b'parent,')
child = 'import os, sys; fd = int(sys.argv[1]); sys.stdin.read(); os.write(fd, b\"child\"); os.close(fd)'
process = subprocess.Popen([sys.executable, '-c', child, str(fd)], stdin=subprocess.PIPE, pass_fds=[fd], stderr=subprocess.DEVNULL)
os.close(fd)
process.communicate()
print('child failed' if process.returncode else 'child succeeded', open('NAME').read())
END";
    for node in 0..3 {
        let said = parity.ok(&SCRIPT.replace("NAME", &format!("00{node}_key")));
        assert!(["child succeeded parent,child\n", "child failed parent,\n"].contains(&said.as_str()), "{said}");
    }
}

#[test]
fn a_key_that_was_just_renamed_takes_a_new_mode_and_time() {
    let Some(parity) = Parity::start("renamed") else { return };
    let mut scripts = Vec::new();
    for (from, to) in [(0, 0), (1, 1), (2, 2), (0, 1), (1, 0), (1, 2)] {
        let name = format!("00{to}_from{from}");
        scripts.push(format!("echo hi > 00{from}_new; mv 00{from}_new {name}; chmod 400 {name}; touch -d '2001-01-01 UTC' {name}; stat -c '%a %Y %s' {name}"));
    }
    scripts
        .push("mv 001_words 001_mine; chmod 0500 001_mine; cat 001_mine | cksum; stat -c '%a %s' 001_mine".to_owned());
    let cases: Vec<(&str, &str)> = scripts.iter().map(|script| ("", script.as_str())).collect();
    parity.check(&cases);
}

#[test]
fn a_directory_has_one_time_whoever_tells_it() {
    let Some(parity) = Parity::start("times") else { return };
    let told = "stat -c %Y sub sub/deep; ls -ld --time-style=+%s sub sub/deep | cut -d ' ' -f 6";
    let listed =
        "ls -l --time-style=+%s | awk '/ sub$/ { print $6 }'; ls -l --time-style=+%s sub | awk '/ deep$/ { print $6 }'";
    let (before, listed, after) = (parity.ok(told), parity.ok(listed), parity.ok(told));
    assert_eq!(before, after);
    let times: Vec<&str> = before.lines().take(2).collect();
    assert_eq!(times, listed.lines().collect::<Vec<_>>());
    assert!(!times.contains(&"0"), "{times:?}");
}

#[test]
fn space_can_be_allocated_before_it_is_written() {
    let Some(parity) = Parity::start("allocated") else { return };
    parity.check(&[
        ("fallocate", "fallocate -l 100000 002_allocated; cksum 002_allocated"),
        ("python3", "python3 -c \"import os; fd = os.open('001_allocated', os.O_WRONLY | os.O_CREAT); os.posix_fallocate(fd, 0, 10000); os.write(fd, b'x')\"; cksum 001_allocated"),
    ]);
}

#[test]
fn a_file_of_any_length_is_written_past_the_cache() {
    let Some(parity) = Parity::start("direct") else { return };
    let can = "head -c 8192 /dev/zero | dd of=probe oflag=direct bs=4096 iflag=fullblock status=none && rm probe";
    if !parity.can_on_disk(can) {
        return eprintln!("skipped: the file system has no O_DIRECT");
    }
    parity.check(&[
        ("dd", "for i in 0 1 2; do dd if=001_large of=00${i}_direct oflag=direct bs=4096 status=none; cmp 001_large 00${i}_direct; done"),
        ("dd", "dd if=001_large iflag=direct bs=4096 status=none | cmp - 001_large"),
    ]);
}
