//! The table of `bench distance` as a picture: a bar of light times for each row.

use std::fmt::Write;

use crate::distance::Row;

/// Pixels for one light time.
const LIGHT_TIME: f64 = 56.0;
/// Where the bars begin.
const LEFT: f64 = 190.0;
/// Above the first group: title and scale.
const TOP: f64 = 74.0;
const BAR: f64 = 11.0;
const GAP: f64 = 12.0;
/// The scale's end.
const MOST: u32 = 11;

/// A colour for each distance, in order of appearance.
const COLOURS: [&str; 4] = ["#6b7fd7", "#c1666b", "#d4a24c", "#5a9e8f"];

/// An SVG document.
pub fn svg(rows: &[Row]) -> String {
    let rows: Vec<&Row> = rows
        .iter()
        .filter(|row| !row.real_time || row.name == "smtp")
        .collect();
    let mut names: Vec<&str> = Vec::new();
    let mut distances: Vec<f64> = Vec::new();
    for row in &rows {
        if !names.contains(&row.name) {
            names.push(row.name);
        }
        if !distances.contains(&row.owlt_s) {
            distances.push(row.owlt_s);
        }
    }
    let mut bars = String::new();
    let mut y = TOP;
    for name in &names {
        let group: Vec<_> = rows.iter().filter(|row| row.name == *name).collect();
        let middle = y + group.len() as f64 * BAR / 2.0 + 4.0;
        text(&mut bars, LEFT - 10.0, middle, "end", name);
        for row in group {
            let colour = distances
                .iter()
                .position(|owlt| *owlt == row.owlt_s)
                .and_then(|place| COLOURS.get(place))
                .unwrap_or(&"#888888");
            bar(&mut bars, y, colour, row);
            y += BAR;
        }
        y += GAP;
    }
    let width = LEFT + LIGHT_TIME * f64::from(MOST) + 60.0;
    let height = y + 34.0;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\" fill=\"#333333\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
    );
    text(
        &mut out,
        16.0,
        24.0,
        "start",
        "A mail of 4 KiB at 1 Mbit/s, in one-way light times: full, on disk at the gateway; pale, reply at the agent",
    );
    scale(&mut out, y);
    out += &bars;
    legend(&mut out, &distances, height - 12.0);
    out += "</svg>\n";
    out
}

fn bar(out: &mut String, y: f64, colour: &str, row: &Row) {
    let (Some(gateway), Some(reply)) = (row.gateway_owlt, row.reply_owlt) else {
        text(out, LEFT + 4.0, y + BAR - 2.0, "start", "gives up");
        return;
    };
    let mut rect = |figure: f64, opacity: f64| {
        // Writing into a string does not fail.
        let _ = writeln!(
            out,
            "<rect x=\"{LEFT}\" y=\"{y}\" width=\"{:.1}\" height=\"{}\" fill=\"{colour}\" fill-opacity=\"{opacity}\"/>",
            figure.min(f64::from(MOST)) * LIGHT_TIME,
            BAR - 2.0
        );
    };
    rect(reply, 0.35);
    rect(gateway, 1.0);
    let end = LEFT + reply.min(f64::from(MOST)) * LIGHT_TIME + 4.0;
    let _ = writeln!(
        out,
        "<text x=\"{end:.1}\" y=\"{:.1}\" font-size=\"9\">{gateway:.2} / {reply:.2}</text>",
        y + BAR - 3.0
    );
}

fn scale(out: &mut String, bottom: f64) {
    for mark in 0..=MOST {
        let x = LEFT + f64::from(mark) * LIGHT_TIME;
        let _ = writeln!(
            out,
            "<line x1=\"{x}\" y1=\"{}\" x2=\"{x}\" y2=\"{bottom}\" stroke=\"#dddddd\"/>",
            TOP - 12.0
        );
        text(out, x, TOP - 18.0, "middle", &mark.to_string());
    }
}

fn legend(out: &mut String, distances: &[f64], y: f64) {
    let mut x = LEFT;
    for (owlt, colour) in distances.iter().zip(COLOURS) {
        let _ = writeln!(
            out,
            "<rect x=\"{x}\" y=\"{}\" width=\"10\" height=\"10\" fill=\"{colour}\"/>",
            y - 9.0
        );
        text(out, x + 14.0, y, "start", &format!("{owlt} s"));
        x += 90.0;
    }
}

fn text(out: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    let _ = writeln!(
        out,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"
    );
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::pair::Distance;

    #[test]
    fn every_row_has_its_place() {
        let (moon, mars) = (
            Distance::new(Duration::from_millis(1_300)),
            Distance::new(Duration::from_secs(182)),
        );
        let rows = [
            Row::other("cold", &moon, Some((moon.owlt * 3, moon.owlt * 4))),
            Row::other("cold", &mars, Some((mars.owlt * 3, mars.owlt * 4))),
            Row::other("quinn_default", &mars, None),
        ];
        let svg = svg(&rows);
        for expected in [
            ">cold<",
            ">quinn_default<",
            ">gives up<",
            ">1.3 s<",
            ">182 s<",
            "3.00 / 4.00",
        ] {
            assert!(svg.contains(expected), "{expected} not in\n{svg}");
        }
        assert_eq!(svg.matches("fill-opacity").count(), 4);
        assert!(svg.ends_with("</svg>\n"));
    }
}
