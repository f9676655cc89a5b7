//! A rename from one node to another copies the key, and deletes the one that it has copied, and no other.

use crate::scripting::setup;

/// Another client replaces the key all the time, so fast as only the node's own disk allows. Each content ever made is somewhere at the end.
#[test]
fn a_key_that_is_replaced_while_it_is_moved_is_not_deleted() {
    let Some(setup) = setup() else { return };
    let script = r#"
import random, time
data, count = sys.argv[1], 1500
[make(f'b/0_new{n}', b'%d' % n) for n in range(count)]
def replace():
    for n in range(count):
        try:
            os.rename(f'{data}/b/0_k', f'{data}/b/2_saved{n}')
        except FileNotFoundError:
            pass
        os.rename(f'{data}/b/0_new{n}', f'{data}/b/0_k')
        until = time.monotonic() + random.random() / 500
        while time.monotonic() < until: pass
replacing = threading.Thread(target=replace)
replacing.start()
moved = 0
while replacing.is_alive():
    if errno_of(os.rename, 'b/0_k', f'b/1_moved{moved}') == 'ok':
        moved += 1
replacing.join()
left = {read(f'b/{name}') for name in os.listdir('b')}
lost = [n for n in range(count) if b'%d' % n not in left]
assert moved > 0 and not lost, f'{moved} moved, lost: {lost}'
tell(moved)
"#;
    let moved = setup.python(script, &[setup.cluster.data(0).to_str().unwrap()]);
    println!("{} keys moved", moved.trim());
}

#[test]
fn a_delete_of_one_key_deletes_no_other_of_its_name() {
    let Some(setup) = setup() else { return };
    setup.put("b/0_k", b"of another");
    let theirs = s4::checksum::Checksum::of(b"of another").to_string();
    let ours = s4::checksum::Checksum::of(b"ours").to_string();
    let delete = |sum: &str| {
        let sum = sum.replace(' ', "%20");
        let digest = setup.cluster.digest();
        let request = format!(
            "DELETE /v1/keys/b%2F0_k?checksum={sum} HTTP/1.1\r\nhost: 127.0.0.1\r\ns4-cluster: {digest}\r\nconnection: close\r\n\r\n"
        );
        setup.cluster.raw(0, request.as_bytes())
    };
    assert!(delete(&ours).starts_with("HTTP/1.1 404"));
    assert!(setup.is_key("b/0_k"));
    assert!(delete(&theirs).starts_with("HTTP/1.1 200"));
    assert!(!setup.is_key("b/0_k"));
}
