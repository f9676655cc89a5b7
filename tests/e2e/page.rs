//! The page that every daemon serves: what a browser shows of it, and whom it refuses.

use crate::browser::Browser;
use crate::harness::Cluster;
use crate::observe::spawn;
use crate::strange_bodies::ask;
use serde_json::json;
use std::path::PathBuf;
use std::process::Child;

fn url(cluster: &Cluster, node: usize) -> String {
    format!("http://127.0.0.1:{}/", cluster.port(node))
}

/// Three nodes with a key each, and a job that fails on node 1 and waits for `gate` on the others.
struct Scene {
    cluster: Cluster,
    gate: PathBuf,
    client: Child,
}

/// What the failing task says: it must not become an element.
const STDERR: &str = "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\"> & more";

impl Scene {
    fn start() -> Self {
        let cluster = Cluster::start(3);
        for key in ["0_a", "1_b", "2_c"] {
            cluster.put(&format!("s4://in/{key}"), key.as_bytes());
        }
        let gate = cluster.dir().join("gate");
        let cmd = format!(
            "case $filename in 1_b) cat >&2 <<'END'\n{STDERR}\nEND\nexit 3;; esac; until [ -e {} ]; do sleep 0.05; done; cat",
            gate.display()
        );
        let client = spawn(&cluster, &["map", "--keep-going", "s4://in/", "s4://out/", &cmd]);
        Self { cluster, gate, client }
    }

    /// Lets the job end.
    fn finish(&mut self) {
        std::fs::write(&self.gate, "").unwrap();
        assert_eq!(self.client.wait().unwrap().code(), Some(1));
    }
}

/// The first job's data attributes, as one text.
const JOB: &str = "(item => item ? [item.dataset.state, item.dataset.tasks, item.dataset.done, item.dataset.failed, \
                   item.dataset.running].join(' ') : '')(document.querySelector('#jobs-list > li'))";

fn cell(node: usize, field: &str) -> String {
    format!("(document.querySelector('#node-{node} [data-field={field}]') || {{}}).textContent")
}

#[test]
fn a_browser_shows_what_the_cluster_does() {
    let Some(mut browser) = Browser::start() else { return };
    let mut scene = Scene::start();
    browser.visit(&url(&scene.cluster, 0));
    browser.await_true(&format!("{JOB} === 'running 3 0 1 2'"));
    let id = browser.text("document.querySelector('#jobs-list > li').id").replace("job-", "");
    assert!(scene.cluster.ok(&["jobs"]).contains(&id), "the id is the job's: {id}");
    browser.await_true("document.querySelectorAll('.failures .stderr').length === 1");
    assert_eq!(browser.text("document.querySelector('.failures .stderr').textContent").trim(), STDERR);
    let failure = browser.text("document.querySelector('.failures li').textContent");
    assert!(failure.starts_with("1 of 3 tasks: exit status 3s4://in/1_b on node 1"), "{failure}");
    assert!(browser.text("document.querySelector('.cmd').textContent").contains(STDERR), "the command is text");
    assert_eq!(browser.value("document.querySelectorAll('main script, main img').length"), json!(0));
    assert!(!browser.text("document.title").contains("taken"));
    browser.await_true(&format!("{} === '1'", cell(0, "running")));
    browser.await_true(&format!("{} === '0'", cell(1, "running")));
    assert_eq!(browser.text("document.getElementById('connection').textContent"), "connected");

    scene.finish();
    browser.await_true(&format!("{JOB} === 'failed 3 2 1 0'"));
    // The inputs, and an output where there is one.
    for (node, keys) in [(0, "2"), (1, "1"), (2, "2")] {
        browser.await_true(&format!("{} === '{keys}'", cell(node, "keys")));
    }
}

#[test]
fn a_node_with_more_than_its_share_is_told_of() {
    let cluster = Cluster::start(3);
    let tree = cluster.dir().join("tree");
    std::fs::create_dir(&tree).unwrap();
    (0..12).for_each(|month| std::fs::write(tree.join(format!("2023_{month}")), "x").unwrap());
    cluster.ok(&["cp", "-r", "tree", "s4://in/"]);
    cluster.ok(&["map", "s4://in/", "s4://out/", "cat"]);
    let watched = ask(&cluster, "GET", "/v1/watch?samples=1", b"");
    let node = 2023 % 3;
    assert!(
        watched.contains(&format!("\"crowded\":{{\"node\":{node},\"of\":\"tasks\",\"part\":12,\"whole\":12}}")),
        "{watched}"
    );
    let Some(mut browser) = Browser::start() else { return };
    browser.visit(&url(&cluster, 0));
    let job = "(document.querySelector('#jobs-list .hint') || {}).textContent";
    browser.await_true(&format!(
        "({job} || '').startsWith('node {node} has 12 of 12 tasks, more than twice its fair share')"
    ));
    let keys = "(of('crowded').hidden ? '' : of('crowded').textContent)";
    browser.await_true(&format!("/^node {node} has [0-9]+ of [0-9]+ keys, /.test({keys})"));
}

#[test]
fn what_made_a_key_is_asked_by_name_and_followed_back_by_clicks() {
    let Some(mut browser) = Browser::start() else { return };
    let cluster = Cluster::start(3);
    cluster.put("s4://in/2_k", b"x");
    cluster.ok(&["map", "s4://in/", "s4://a/", "cat # <b>bold</b>"]);
    cluster.ok(&["map", "s4://a/", "s4://b/", "sort"]);
    browser.visit(&url(&cluster, 0));
    browser.await_true("document.querySelector('#why-key') !== null");
    let answer = "document.querySelector('#why-answer').textContent";
    browser.await_true("(askWhy('s4://b/2_k'), true)");
    browser.await_true(&format!("{answer}.includes('map s4://a/ → s4://b/') && {answer}.includes('sort')"));
    browser.await_true("(document.querySelector('#why-answer button').click(), true)");
    browser
        .await_true(&format!("{answer}.includes('cat # <b>bold</b>') && !document.querySelector('#why-answer b b')"));
    browser.await_true("(document.querySelector('#why-answer button').click(), true)");
    browser.await_true(&format!("{answer}.includes('No map made it')"));
    browser.await_true("(askWhy('s4://b/nothing'), true)");
    browser.await_true(&format!("{answer}.includes('no such key')"));
    let plain = ask(&cluster, "GET", "/v1/why/b/2_k", b"");
    assert!(plain.contains("sort"), "{plain}");
}

#[test]
fn old_jobs_are_folded_and_the_address_of_a_job_shows_it() {
    let Some(mut browser) = Browser::start() else { return };
    let cluster = Cluster::start(1);
    cluster.put("s4://in/2_k", b"x");
    for number in 0..7 {
        cluster.ok(&["map", "s4://in/", &format!("s4://out{number}/"), "cat"]);
    }
    let folded = "[...document.querySelectorAll('#jobs-list > .folded .where')].map(where => where.textContent).join()";
    browser.visit(&url(&cluster, 0));
    browser.await_true(&format!("{folded} === 'map  s4://in/ → s4://out1/,map  s4://in/ → s4://out0/'"));
    browser.value("document.querySelector('#jobs-list > .folded .where').click()");
    browser.await_true(&format!("{folded} === 'map  s4://in/ → s4://out0/'"));
    let address = browser.text("document.querySelector('#jobs-list > .folded a').href");
    browser.visit(&address);
    let linked = "(item => item ? item.textContent : '')(document.querySelector('#jobs-list > .linked:not(.folded)'))";
    browser.await_true(&format!("{linked}.includes('out0') && {linked}.includes('1 of 1 done')"));
    browser.await_true(&format!("/from [0-9:]{{8}}, .* s/.test({linked})"));
}

#[test]
fn the_page_fits_a_telephone_and_a_large_screen_in_light_and_dark() {
    let Some(mut browser) = Browser::start() else { return };
    let mut scene = Scene::start();
    for (width, height) in [(400, 800), (1600, 1000)] {
        browser.resize(width, height);
        browser.visit(&url(&scene.cluster, 0));
        browser.await_true(&format!("{JOB} === 'running 3 0 1 2'"));
        browser.value("document.querySelectorAll('details').forEach(details => details.open = true)");
        let wide = browser.value("[document.documentElement.scrollWidth, innerWidth]");
        assert!(wide[0].as_u64() <= wide[1].as_u64() && wide[1] == json!(width), "it scrolls sideways: {wide}");
        let mut shots = Vec::new();
        for scheme in ["light", "dark"] {
            browser.prefer(scheme);
            shots.push(browser.screenshot());
            // `S4_TEST_SHOTS=DIR` keeps the pictures for people, in base64.
            if let Some(dir) = std::env::var_os("S4_TEST_SHOTS") {
                let name = format!("{scheme}-{width}.png.base64");
                std::fs::write(PathBuf::from(dir).join(name), shots.last().unwrap()).unwrap();
            }
        }
        assert!(shots.iter().all(|shot| shot.starts_with("iVBOR")), "they are pictures");
        assert_ne!(shots[0], shots[1], "dark differs from light");
    }
    scene.finish();
}

#[test]
fn the_page_works_without_a_mouse() {
    let Some(mut browser) = Browser::start() else { return };
    let mut scene = Scene::start();
    browser.visit(&url(&scene.cluster, 0));
    browser.await_true("document.querySelectorAll('.failures .stderr').length === 1");
    let mut reached = Vec::new();
    for _ in 0..12 {
        browser.press("Tab", 9);
        let at = browser.text("(e => e.id || e.name || e.className || e.tagName)(document.activeElement)");
        let outline = browser.text("getComputedStyle(document.activeElement).outlineStyle");
        if at == "grid-cells" {
            assert_eq!(outline, "solid", "the focus is seen");
            browser.press("ArrowLeft", 37);
            browser.press("ArrowDown", 40);
            let told = browser.text("document.getElementById('grid-readout').textContent");
            assert!(told.starts_with("node 0, "), "{told}");
        }
        if at == "SUMMARY" && !reached.contains(&at) {
            browser.press("Enter", 13);
        }
        reached.push(at);
    }
    for part in ["metric", "grid-cells", "SUMMARY"] {
        assert!(reached.iter().any(|at| at == part), "Tab does not reach {part}: {reached:?}");
    }
    scene.finish();
}

#[test]
fn a_dead_node_is_down_and_a_lost_connection_is_told_and_made_again() {
    let Some(mut browser) = Browser::start() else { return };
    let mut cluster = Cluster::start(3);
    browser.visit(&url(&cluster, 0));
    for node in 0..3 {
        browser.await_true(&format!("{} === 'up'", cell(node, "state")));
    }
    cluster.kill_node(2);
    browser.await_true("(document.getElementById('node-2') || {dataset: {}}).dataset.state === 'down'");
    assert_eq!(browser.text("document.getElementById('node-1').dataset.state"), "up");
    cluster.start_node(2);
    browser.await_true("document.getElementById('node-2').dataset.state === 'up'");
    // One that hangs is found out by silence.
    cluster.signal(2, "STOP");
    browser.await_true("document.getElementById('node-2').dataset.state === 'down'");
    cluster.signal(2, "CONT");
    cluster.kill_node(0);
    browser.await_true("document.getElementById('connection').textContent.startsWith('not connected since ')");
    cluster.start_node(0);
    browser.await_true("document.getElementById('connection').textContent === 'connected'");
}

#[test]
fn a_page_without_the_secret_shows_nothing() {
    let Some(mut browser) = Browser::start() else { return };
    let home = tempfile::Builder::new().prefix("s4-test-").tempdir().unwrap();
    let path = home.path().join("secret");
    std::fs::write(&path, "correct-horse-battery-staple\n").unwrap();
    let cluster = Cluster::with_options(1, &["--reserve", "0", "--secret", path.to_str().unwrap()]);
    let url = url(&cluster, 0);
    browser.visit(&url);
    browser.await_true("(document.getElementById('secret') || {hidden: true}).hidden === false");
    browser.visit(&format!("{url}#wrong-horse-battery-staple"));
    browser.await_true("(document.getElementById('secret-wrong') || {}).textContent === 'That is not the secret.'");
    assert_eq!(browser.value("document.querySelectorAll('#nodes-rows tr').length"), json!(0));
    // Typed in, and then in the address.
    browser.value("document.getElementById('secret-field').value = 'correct-horse-battery-staple'");
    browser.value("document.querySelector('#secret button').click()");
    browser.await_true(&format!("{} === 'up'", cell(0, "state")));
    browser.visit(&format!("{url}#correct-horse-battery-staple"));
    browser.await_true(&format!("{} === 'up'", cell(0, "state")));
    assert_eq!(browser.value("document.getElementById('secret').hidden"), json!(true));
}

/// What node 0 answers to `/v1/status`.
pub fn status_of(cluster: &Cluster) -> serde_json::Value {
    let answer = ask(cluster, "GET", "/v1/status", b"");
    serde_json::from_str(answer.split_once("\r\n\r\n").expect("a body").1).expect("JSON")
}

fn answer(cluster: &Cluster, head: &str) -> String {
    cluster.raw(0, format!("{head}Connection: close\r\n\r\n").as_bytes())
}

#[test]
fn pages_of_strangers_get_nothing() {
    let cluster = Cluster::start(1);
    let port = cluster.port(0);
    let digest = format!("s4-cluster: {}\r\n", cluster.digest());
    for host in [format!("127.0.0.1:{port}"), "localhost".into(), format!("localhost:{port}"), "[::1]:80".into()] {
        for path in ["/", "/metrics"] {
            let answer = answer(&cluster, &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n"));
            assert!(answer.starts_with("HTTP/1.1 200 "), "{host}{path}: {answer}");
        }
    }
    for headers in [
        "Host: evil.example\r\n",
        "Host: 127.0.0.1.evil.example\r\n",
        "Host: localhost.evil.example:80\r\n",
        "Host: 127.0.0.1\r\nHost: evil.example\r\n",
        "Host:\r\n",
        "Host: 127.0.0.1\r\nOrigin: http://127.0.0.1\r\n",
        "Host: 127.0.0.1\r\nOrigin: null\r\n",
        "Host: 127.0.0.1\r\nSec-Fetch-Site: cross-site\r\n",
    ] {
        for path in ["/", "/metrics", "/v1/watch", "/v1/list", "/v1/jobs", "/v1/keys/b/k"] {
            let answer = answer(&cluster, &format!("GET {path} HTTP/1.1\r\n{headers}{digest}"));
            assert!(answer.starts_with("HTTP/1.1 403 "), "{headers}{path}: {answer}");
            assert!(!answer.contains("<html") && !answer.contains("s4_uptime"), "{headers}{path}: {answer}");
        }
    }
    for path in ["/v1/watch", "/v1/status"] {
        let answer = answer(&cluster, &format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"));
        assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("s4-cluster"), "{path}: {answer}");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "HEAD"] {
        for path in ["/", "/metrics", "/v1/watch", "/v1/status"] {
            let answer = answer(&cluster, &format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{digest}"));
            assert!(answer.starts_with("HTTP/1.1 405 "), "{method} {path}: {answer}");
        }
    }
}

#[test]
fn the_page_loads_nothing_and_runs_only_its_own_script() {
    let cluster = Cluster::start(1);
    let ask = || answer(&cluster, "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n");
    let page = ask();
    let policy = page.lines().find_map(|line| line.strip_prefix("content-security-policy: ")).expect("a policy");
    let nonce = policy.split("script-src 'nonce-").nth(1).and_then(|rest| rest.split('\'').next()).expect("a nonce");
    assert!(policy.starts_with("default-src 'none'; ") && policy.contains("frame-ancestors 'none'"), "{policy}");
    assert!(nonce.len() >= 16 && page.matches(nonce).count() == 4, "the style and the script have the nonce");
    assert!(!ask().contains(nonce), "a nonce is used once");
    for part in
        ["http://", "https://", "//cdn", "@import", "url(", "innerHTML", "insertAdjacentHTML", "document.write", "{{"]
    {
        assert!(!page.contains(part), "the page has {part}");
    }
}

#[test]
fn a_status_tells_of_a_node_and_keeps_what_is_secret() {
    let cluster = Cluster::start(1);
    cluster.put("s4://in/0_a", b"content");
    let args = ["map", "--keep-going", "--env", "TOKEN=hidden", "s4://in/", "s4://out/", "echo wrong >&2; false"];
    cluster.fails(1, &args);
    let status = status_of(&cluster);
    assert_eq!(status["health"]["node"], json!(0));
    assert_eq!(status["jobs"][0]["record"]["progress"]["failed"], json!(1));
    assert_eq!(status["jobs"][0]["failures"]["groups"][0]["stderr"], json!("wrong\n"));
    assert!(!status.to_string().contains("hidden"), "{status}");
}
