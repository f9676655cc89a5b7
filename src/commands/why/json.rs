//! The output of `s4 why --json`: one line of JSON per key.

use super::since::Since;
use s4::key::Key;
use s4::placement::NodeId;
use s4::protocol::{JobSpec, Provenance, TaskRecord};
use serde_json::{Value, json};

/// The line for a key. `since` has the state of each input, if it was requested.
pub fn line(key: &Key, node: NodeId, found: &Provenance, since: &[Since]) -> String {
    let mut value = json!({
        "key": key.to_string(),
        "node": node,
        "bytes": found.checksum.len,
        "xxh3": format!("{:016x}", found.checksum.xxh3),
        "modified": found.modified,
        "made": found.mark.is_some(),
    });
    if let Some(mark) = found.mark {
        value["recipe"] = format!("{:016x}", mark.recipe).into();
        value["outputs"] = mark.outputs.into();
    }
    if let Some(task) = &found.task {
        value["job"] = job(&task.job);
        value["input_count"] = task.count.into();
        value["inputs"] = inputs(task, since);
    }
    format!("{value}\n")
}

fn job(spec: &JobSpec) -> Value {
    let file = |file: &s4::protocol::JobFile| json!({"name": file.name, "bytes": file.len, "xxh3_128": file.digest});
    json!({
        "id": spec.id,
        "kind": spec.kind,
        "indir": spec.indir.to_string(),
        "outdir": spec.outdir.to_string(),
        "cmd": spec.cmd.as_os_str().to_string_lossy(),
        "files": spec.files.iter().map(file).collect::<Vec<_>>(),
        "env": spec.env,
        "ok_exit": spec.ok_exit,
    })
}

fn inputs(task: &TaskRecord, since: &[Since]) -> Value {
    let inputs = task.inputs.iter().enumerate().map(|(number, input)| {
        let mut value = json!({
            "key": input.key.to_string(),
            "bytes": input.checksum.len,
            "xxh3": format!("{:016x}", input.checksum.xxh3),
        });
        if let Some(since) = since.get(number) {
            value["now"] = match since {
                Since::Same => "same",
                Since::Changed => "changed",
                Since::Gone => "gone",
                Since::Unknown(_) => "unknown",
            }
            .into();
        }
        value
    });
    inputs.collect()
}
