//! A rename from one node to another copies the key, and deletes the one that it has copied, and no other.

use crate::scripting::setup;

/// Another client deletes the key and puts the next, all the time. Each content ever made is somewhere at the end, or that client deleted it.
#[test]
fn a_key_that_is_replaced_while_it_is_moved_is_not_deleted() {
    let Some(setup) = setup() else { return };
    let script = r#"
import http.client
port, digest, count = int(sys.argv[1]), sys.argv[2], 1500
node = http.client.HTTPConnection('127.0.0.1', port)
def ask(method, body=None):
    node.request(method, '/v1/keys/b%2F0_k', body, {'s4-cluster': digest})
    answer = node.getresponse()
    answer.read()
    return answer.status
deleted, failed = [], []
def replace():
    for n in range(count):
        told = [ask('PUT', b'%d' % n), ask('DELETE')]
        if told[1] == 200:
            deleted.append(n)
        if told[0] != 201 or told[1] not in (200, 404):
            failed.append((n, told))
replacing = threading.Thread(target=replace)
replacing.start()
moved = 0
while replacing.is_alive():
    if errno_of(os.rename, 'b/0_k', f'b/1_moved{moved}') == 'ok':
        moved += 1
replacing.join()
left = {read(f'b/{name}') for name in os.listdir('b')}
lost = [n for n in range(count) if b'%d' % n not in left and n not in deleted]
assert moved > 0 and not lost and not failed, f'{moved} moved, lost: {lost}, failed: {failed}'
tell(moved)
"#;
    let port = setup.cluster.port(0).to_string();
    let moved = setup.python(script, &[&port, &setup.cluster.digest()]);
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
