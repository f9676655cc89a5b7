//! `s4 top` once, as plain lines, for pipes and files too.

use super::rows::{COLUMNS, cells, command_line, counts, summary, time};
use crate::commands::format::cut;
use s4::client::cluster_view::ClusterView;

/// The nodes and jobs. Lines that are longer than `width` are cut.
pub fn text(view: &ClusterView, width: usize) -> String {
    let mut lines = vec![summary(view), String::new()];
    lines.extend(nodes(view));
    for job in &view.jobs {
        let time = time(job);
        let time = if time.is_empty() { time } else { format!(", {time}") };
        lines.push(String::new());
        lines.push(format!("{} {} {} {} {}", job.id, job.state, job.kind, job.indir, job.outdir));
        lines.push(format!("    {}{time}", counts(job)));
        lines.push(format!("    {}", command_line(job)));
    }
    lines.iter().map(|line| cut(line, width) + "\n").collect()
}

/// The table of the nodes. Its columns are right-aligned and as wide as what is in them; the last one is printed as it is.
fn nodes(view: &ClusterView) -> Vec<String> {
    let mut rows = vec![(COLUMNS.map(|(name, _)| name.to_owned()), "address")];
    // The reason names the node already.
    rows.extend(view.nodes.iter().map(|node| (cells(node), node.why.as_deref().unwrap_or(&node.address))));
    let widths: [usize; COLUMNS.len()] =
        std::array::from_fn(|column| rows.iter().map(|(cells, _)| cells[column].len()).max().unwrap_or(0));
    let line = |(cells, last): &([String; COLUMNS.len()], &str)| {
        let columns = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:>width$} "));
        format!("{}{last}", columns.collect::<String>())
    };
    rows.iter().map(line).collect()
}
