//! Tables for people.

use comfy_table::{CellAlignment, Table, presets};

use crate::{disruption, distance, loss};

fn table(header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header);
    table.add_rows(rows);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

/// `bench distance`.
pub fn distance(rows: &[distance::Row]) -> String {
    let light_times = |figure: Option<f64>| figure.map_or_else(|| "never".into(), |it| format!("{it:.3}"));
    table(
        &["", "one way", "gateway has it", "reply", "time"],
        rows.iter().map(|row| {
            vec![
                row.name.to_owned(),
                format!("{} s", row.owlt_s),
                light_times(row.gateway_owlt),
                light_times(row.reply_owlt),
                if row.real_time { "real" } else { "virtual" }.to_owned(),
            ]
        }),
    )
}

/// `bench loss`.
pub fn loss(rows: &[loss::Row]) -> String {
    table(
        &["", "one way", "loss", "mean", "99 %", "all", "octets"],
        rows.iter().map(|row| {
            vec![
                row.name.to_owned(),
                format!("{} s", row.owlt_s),
                format!("{} %", row.loss * 100.0),
                format!("{:.3}", row.mean_owlt),
                format!("{:.3}", row.p99_owlt),
                format!("{:.3}", row.max_owlt),
                format!("{:.0}", row.octets),
            ]
        }),
    )
}

/// `bench disruption`.
pub fn disruption(rows: &[disruption::Row]) -> String {
    table(
        &["", "ours", "ideal", "ratio", "sent again"],
        rows.iter().map(|row| {
            vec![
                row.name.to_owned(),
                format!("{:.0} s", row.ours),
                format!("{:.0} s", row.ideal),
                format!("{:.4}", row.ratio),
                format!("{:.2} %", row.resent_share * 100.0),
            ]
        }),
    )
}
