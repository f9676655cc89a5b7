//! `s4 top` without a terminal: the cluster once, as plain lines for pipes and files.

use super::rows::{COLUMNS, cells, command_line, counts, summary, time};
use s4::client::cluster_view::ClusterView;

pub fn text(view: &ClusterView) -> String {
    let mut text = summary(view) + "\n\n";
    text += &line(COLUMNS.map(|(name, _)| name.to_owned()), "address");
    for node in &view.nodes {
        // The reason names the node already.
        text += &line(cells(node), node.why.as_deref().unwrap_or(&node.address));
    }
    for job in &view.jobs {
        let time = time(job);
        let time = if time.is_empty() { time } else { format!(", {time}") };
        text += &format!("\n{} {} {} {} {}\n", job.id, job.state, job.kind, job.indir, job.outdir);
        text += &format!("    {}{time}\n    {}\n", counts(job), command_line(job));
    }
    text
}

/// Right-aligned columns; the last one is printed as it is.
fn line(cells: [String; COLUMNS.len()], last: &str) -> String {
    let columns = cells.iter().zip(COLUMNS).map(|(cell, (_, width))| format!("{cell:>width$} "));
    format!("{}{last}\n", columns.collect::<String>())
}
