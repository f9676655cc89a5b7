//! Programs that work on data, in a mount as on a disk: Python, SQLite, DuckDB, a compiler. And all tools as an ordinary user.

use crate::mounting::no_user_mounts;
use crate::parity::{Parity, all_there};
use crate::programs::{BUILT, directory};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

#[test]
fn python_reads_and_writes_the_same() {
    let Some(parity) = Parity::start("python") else { return };
    let cases = [
        "open('001_new', 'w').write('text\\n'); print(open('001_new').read())",
        "f = open('002_seek', 'w+b'); f.write(b'0123456789' * 1000); f.seek(5); f.write(b'xxx'); f.seek(0); print(f.read(20)); f.truncate(5000); f.close()",
        "f = open('001_large', 'rb'); f.seek(1234567); print(f.read(100)); f.seek(-50, 2); print(f.read()); print(f.tell())",
        "import pathlib; p = pathlib.Path('002_path'); p.write_text('a\\nb\\n'); print(p.stat().st_size, p.read_bytes(), sorted(map(str, pathlib.Path('.').rglob('*.txt'))))",
        "import pathlib; pathlib.Path('made/deep').mkdir(parents=True); pathlib.Path('made/001_k').touch(); pathlib.Path('001_new').rename('made/000_k')",
        "import shutil; shutil.copytree('sub', '001_tree'); shutil.copy2('001_large', '001_tree'); shutil.move('001_tree/002_x.txt', '000_moved'); shutil.copyfile('000_large', '002_copyfile')",
        "import shutil; shutil.copytree('sub', 'gone'); shutil.rmtree('gone'); print(shutil.disk_usage('.').total > 0)",
        "import mmap, hashlib\nwith open('001_large', 'rb') as f, mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ) as m: print(m[1000000:1000032], m.rfind(b'ab'), hashlib.md5(m).hexdigest())",
        "import mmap\nwith open('002_mapped', 'w+b') as f:\n f.truncate(100000)\n with mmap.mmap(f.fileno(), 0) as m: m[50000:50005] = b'hello'; m.flush()",
        "import csv\nwith open('001_table', 'w', newline='') as f: csv.writer(f).writerows([i, 'x' * (i % 9)] for i in range(5000))\nprint(sum(int(r[0]) for r in csv.reader(open('001_table'))))",
        "import csv; print(sum(float(r['amount']) for r in csv.DictReader(open('sub/deep/001_rows.csv'))))",
        "import zipfile\nz = zipfile.ZipFile('002_z.zip', 'w', zipfile.ZIP_DEFLATED); [z.writestr(zipfile.ZipInfo(n), open(n).read()) for n in ['000_words', '001_words']]; z.close()\nz = zipfile.ZipFile('002_z.zip'); print(z.namelist(), z.testzip()); z.extractall('unzipped')",
        "import os; open('001_temporary', 'w').write('x' * 100000); os.replace('001_temporary', '002_final'); print(os.path.exists('001_temporary'), os.stat('002_final').st_size)",
        "import os; print(sorted((e.name, e.is_dir(), e.stat().st_size * e.is_file()) for e in os.scandir('.')), [sorted(d) + sorted(f) for _, d, f in sorted(os.walk('sub'))])",
        "import gzip, json, pickle; json.dump(list(range(999)), gzip.GzipFile('001_json.gz', 'w', mtime=0) and open('001_json', 'w')); pickle.dump({'a': 1}, open('002_pickle', 'wb')); print(pickle.load(open('002_pickle', 'rb')), len(json.load(open('001_json'))))",
        "import tempfile, os\nwith tempfile.NamedTemporaryFile(dir='.', delete=False) as f: f.write(b'kept')\nos.rename(f.name, '001_kept')\nwith tempfile.TemporaryDirectory(dir='.') as d: open(d + '/001_x', 'w').write('x')",
        "from concurrent.futures import ThreadPoolExecutor as P\ndef w(i): open(f'{i:03}_thread', 'w').write(str(i) * 1000); return len(open(f'{i:03}_thread').read())\nprint(list(P(8).map(w, range(60))))",
        "from multiprocessing import Pool\ndef w(i): open(f'{i:03}_process', 'w').write(str(i)); return open(f'{i:03}_process').read()\nprint(Pool(4).map(w, range(30)))",
        "import os; fd = os.open('001_pwrite', os.O_RDWR | os.O_CREAT | os.O_EXCL); [os.pwrite(fd, bytes([i]) * 10, i * 5000) for i in reversed(range(50))]; os.fsync(fd); os.close(fd)",
    ];
    let scripts: Vec<String> = cases.iter().map(|case| format!("python3 - <<'END'\n{case}\nEND")).collect();
    let cases: Vec<(&str, &str)> = scripts.iter().map(|script| ("python3", script.as_str())).collect();
    parity.check(&cases);
}

#[test]
fn sqlite_reads_a_database() {
    let Some(parity) = Parity::start("sqlite") else { return };
    if !all_there("sqlite3") {
        return;
    }
    let made = parity.cluster().dir().join("made.db");
    let rows = parity.disk().join("sub/deep/001_rows.csv");
    let import = format!(".import --csv {} rows", rows.display());
    let status = Command::new("sqlite3").arg(&made).args([&import, "create index names on rows(name)"]).status();
    assert!(status.unwrap().success());
    for name in ["000_made.db", "001_made.db"] {
        std::fs::copy(&made, parity.disk().join(name)).unwrap();
        parity.ok(&format!("cp {} {name}", made.display()));
    }
    parity.check(&[
        ("sqlite3", "sqlite3 001_made.db 'select name, count(*), sum(amount) from rows group by name order by name'"),
        ("sqlite3", "sqlite3 -readonly 000_made.db 'pragma integrity_check; select * from rows where name = \"name3\" limit 3'"),
        ("sqlite3", "sqlite3 'file:001_made.db?immutable=1' .dump > 002_dump.sql; wc -l 002_dump.sql"),
        ("sqlite3", "! sqlite3 -readonly 001_made.db 'delete from rows' 2>&-; sqlite3 001_made.db 'select count(*) from rows'"),
        ("sqlite3", "sqlite3 000_made.db \"attach '001_made.db' as b; select count(*) from rows join b.rows r using (id)\""),
        ("sqlite3", "sqlite3 :memory: '.import --csv sub/deep/001_rows.csv t' '.mode csv' '.output 001_out.csv' 'select * from t order by amount, id'"),
    ]);
    parity.check_refusals(&[
        ("sqlite3", "sqlite3 001_made.db 'delete from rows'", "readonly database"),
        ("sqlite3", "sqlite3 001_made.db 'create table x(y)'", "readonly database"),
    ]);
}

#[test]
fn duckdb_reads_and_writes_csv_and_parquet() {
    let Some(parity) = Parity::start("duckdb") else { return };
    let modules = match duckdb() {
        Ok(modules) => modules,
        Err(reason) => return eprintln!("skipped: DuckDB: {reason}"),
    };
    let queries = [
        "select name, count(*), sum(amount) from 'sub/deep/001_rows.csv' group by name order by name",
        "copy (select * from 'sub/deep/001_rows.csv' order by id) to '001_rows.parquet'",
        "select count(*), sum(id), min(name), max(amount) from '001_rows.parquet'",
        "copy (select i as id, i % 7 as k, hash(i)::varchar as h from range(300000) t(i)) to '002_wide.parquet' (row_group_size 20000)",
        "select k, count(*), max(h) from '002_wide.parquet' where id % 3 = 0 group by k order by k",
        "copy (select * from 'sub/deep/001_rows.csv' order by id) to '002_again.csv' (header)",
        "select count(*) from read_csv(['sub/deep/*_rows.csv', '002_again.csv']) ",
        "copy (select id, name from 'sub/deep/001_rows.csv') to 'parts' (format parquet, partition_by (name))",
        "select name, count(*) from 'parts/*/*.parquet' group by name order by name",
    ];
    let program = "import duckdb, sys; c = duckdb.connect(); c.execute('set threads=2'); [print(r) for r in c.execute(sys.argv[1]).fetchall()]";
    let script = |query: &str| {
        let query = query.replace('\'', "'\\''");
        format!("PYTHONDONTWRITEBYTECODE=1 PYTHONPATH={} python3 -c \"{program}\" '{query}'", modules.display())
    };
    let scripts: Vec<String> = queries.iter().map(|query| script(query)).collect();
    let cases: Vec<(&str, &str)> = scripts.iter().map(|script| ("python3", script.as_str())).collect();
    parity.check(&cases);
}

/// Where Python finds DuckDB, which is installed there once.
fn duckdb() -> Result<PathBuf, String> {
    static INSTALLED: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    INSTALLED.get_or_init(install_duckdb).clone()
}

fn install_duckdb() -> Result<PathBuf, String> {
    let modules = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python");
    let run = |command: &mut Command| -> Result<(), String> {
        let output = command.stdin(Stdio::null()).output().map_err(|e| format!("python3: {e}"))?;
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        let reason = stderr.lines().last().unwrap_or("failed without a word").to_owned();
        if output.status.success() { Ok(()) } else { Err(reason) }
    };
    let imports = |modules: &Path| {
        run(Command::new("python3").args(["-c", "import duckdb"]).env("PYTHONPATH", modules).current_dir("/"))
    };
    if imports(&modules).is_ok() {
        return Ok(modules);
    }
    let fresh = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).map_err(|e| e.to_string())?;
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--timeout", "20", "--retries", "1"];
    run(Command::new("timeout").args(["180", "python3"]).args(pip).arg("--target").arg(fresh.path()).arg("duckdb"))?;
    imports(fresh.path())?;
    let _ = std::fs::remove_dir_all(&modules);
    let fresh = fresh.keep();
    std::fs::rename(&fresh, &modules).map_err(|e| e.to_string())?;
    // A temporary directory is open to its maker only.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&modules, open).map_err(|e| e.to_string())?;
    Ok(modules)
}

#[test]
fn programs_are_compiled_linked_and_run() {
    let Some(parity) = Parity::start("compiler") else { return };
    parity.check(&[
        ("gcc", "printf 'int twice(int n) { return 2 * n; }\\n' > 001_twice.c; printf 'int twice(int);\\n' > twice.h"),
        ("gcc", "printf '#include <stdio.h>\\n#include \"twice.h\"\\nint main(void) { printf(\"%%d\\\\n\", twice(21)); }\\n' > 002_main.c"),
        ("gcc", "gcc -c 001_twice.c -o 001_twice.o; gcc -c 002_main.c; gcc 001_twice.o 002_main.o -o 000_program; ./000_program"),
        ("gcc", "gcc -O1 001_twice.c 002_main.c -o 001_program; ./001_program; test -x 001_program"),
        ("gcc", "mkdir lib; gcc -shared -fPIC 001_twice.c -o lib/libtwice.so; gcc 002_main.c -Llib -ltwice -o 002_shared; LD_LIBRARY_PATH=lib ./002_shared"),
        ("gcc", "mkdir tmp; export TMPDIR=$PWD/tmp; gcc -O1 -c 001_twice.c -o 002_t.o; gcc 002_t.o 002_main.o -o 001_tmp; ./001_tmp; rmdir tmp"),
        ("mktemp", "f=$(mktemp -p .); echo content > $f; cat $f; mv $f 0_made; f=$(mktemp -p .); (echo a; cat 0_made) > $f; cat $f; rm $f"),
        ("strip", "strip 001_program -o 002_stripped; ./002_stripped"),
        ("make gcc", "printf '002_made: 002_main.c 001_twice.c\\n\\tgcc -o $@ $^\\n' > Makefile; make -s; ./002_made; make -s -q"),
    ]);
}

/// `ar` closes an archive of no members, of 8 bytes, and then writes it anew; of several sources `gcc` writes one temporary file after the
/// other into the same.
#[test]
fn tools_that_write_a_file_twice_are_told_that_they_cannot() {
    let Some(parity) = Parity::start("twice") else { return };
    if !parity.can_on_disk("ar --version; gcc --version") {
        return eprintln!("skipped: no ar or no gcc");
    }
    parity.ok("printf 'int one(void) { return 1; }\n' > 1_one.c; printf 'int one(void); int main(void) { return one(); }\n' > 2_main.c; gcc -c 1_one.c");
    let said = parity.ok("ar rcs lib.a 1_one.o 2>&1 || true; cat lib.a");
    assert!(said.contains("Operation not permitted") && said.ends_with("!<arch>\n"), "{said}");
    let said =
        parity.ok("mkdir tmp; TMPDIR=$PWD/tmp gcc 1_one.c 2_main.c -o 3_main 2>&1 || true; ls tmp 3_main 2>&1 || true");
    assert!(said.contains("Operation not permitted") && said.contains("cannot access '3_main'"), "{said}");
    parity.ok("ar rcs ../../lib.a 1_one.o && cp ../../lib.a 4_lib.a && TMPDIR=/tmp gcc 1_one.c 2_main.c -o 3_main && ar t 4_lib.a");
}

/// The account that has no rights at all.
const NOBODY: u32 = 65534;

/// Everything above and in mount_tools once more: daemons, mount and tools all run by a user who is not root.
#[test]
fn an_ordinary_user_can_do_all_of_it() {
    if !nix::unistd::geteuid().is_root() {
        return eprintln!("skipped: not root, so all tests run as an ordinary user anyway");
    }
    if let Some(reason) = no_user_mounts() {
        return eprintln!("skipped: {reason}");
    }
    if let Err(reason) = duckdb() {
        eprintln!("skipped: DuckDB: {reason}");
    }
    let home = tempfile::Builder::new().prefix("s4-user-").tempdir().unwrap();
    std::os::unix::fs::chown(home.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    let program = std::env::current_exe().unwrap();
    if !as_nobody("test -x \"$PROGRAM\"", home.path(), &program).status().unwrap().success() {
        return eprintln!("skipped: an ordinary user cannot run {}", program.display());
    }
    let tests = "\"$PROGRAM\" mount_tools --skip an_ordinary_user --nocapture";
    directory();
    let output = as_nobody(tests, home.path(), &program).env(BUILT, "yes").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    said.lines().filter(|line| line.contains("skipped: ")).for_each(|line| eprintln!("{line}"));
    assert!(output.status.success(), "as an ordinary user: {said}");
    assert!(!said.contains(" 0 passed"), "{said}");
}

/// A script run by nobody, with a /dev/fuse that is open to all, as it is on machines with udev.
fn as_nobody(script: &str, home: &Path, program: &Path) -> Command {
    const OPENED: &str =
        "mkdir -p dev && mount -t tmpfs none dev && mknod -m 666 dev/fuse c 10 229 && mount --bind dev/fuse /dev/fuse";
    let drop_rights = format!("exec setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups bash -c \"$SCRIPT\"");
    let open = std::fs::metadata("/dev/fuse").is_ok_and(|found| found.mode() & 0o006 == 0o006);
    let script_as_root = if open { drop_rights } else { format!("{OPENED} && {drop_rights}") };
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-c", &script_as_root])
        .env("SCRIPT", script)
        .env("PROGRAM", program)
        .env("HOME", home)
        .env("TMPDIR", home)
        .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
        .current_dir(home)
        .stdin(Stdio::null())
        .process_group(0);
    command
}
