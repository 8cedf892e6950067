//! The chart: what each configuration adds to each operation, on a logarithmic scale.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::plan::{FLOOR, NOTHING};
use crate::record::Record;

/// Everything is in pixels.
const LEFT: f64 = 210.0;
const WIDTH: f64 = 720.0;
const ROW: f64 = 26.0;
const TOP: f64 = 108.0;
/// The scale, as powers of ten.
const LEAST: f64 = 1.0;
const MOST: f64 = 6.0;

/// Colours that the colour-blind can tell apart (Okabe and Ito), and shapes, so that none of both stands alone.
const COLOURS: [&str; 8] =
    ["#0072b2", "#009e73", "#56b4e9", "#d55e00", "#e69f00", "#cc79a7", "#000000", "#999999"];

/// Draws it.
pub(super) fn write(record: &Record, path: &Path) -> Result<()> {
    fs::write(path, svg(record)).with_context(|| format!("write {}", path.display()))
}

fn x(added: f64) -> f64 {
    let power = added.max(1.0).log10().clamp(LEAST, MOST);
    LEFT + (power - LEAST) / (MOST - LEAST) * WIDTH
}

fn svg(record: &Record) -> String {
    let drawn: Vec<_> = record
        .configurations
        .iter()
        .filter(|configuration| configuration.key != NOTHING && configuration.key != FLOOR)
        .collect();
    let bottom = TOP + record.operations.len() as f64 * ROW;
    let (width, height) = (LEFT + WIDTH + 30.0, bottom + 40.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n\
         <text x=\"12\" y=\"22\" font-size=\"15\">What is added to one operation, in {}: Linux {}, {}</text>\n",
        record.unit.name(),
        escape(&record.kernel),
        escape(&record.date)
    );
    legend(&mut svg, &drawn.iter().map(|named| named.title.as_str()).collect::<Vec<_>>());
    for power in LEAST as i32..=MOST as i32 {
        let at = x(10f64.powi(power));
        let _ = writeln!(
            svg,
            "<line x1=\"{at:.1}\" y1=\"{:.1}\" x2=\"{at:.1}\" y2=\"{bottom:.1}\" stroke=\"#dddddd\"/>\
             <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            TOP - 6.0,
            bottom + 18.0,
            super::table::grouped(10f64.powi(power))
        );
    }
    for (row, operation) in record.operations.iter().enumerate() {
        let y = TOP + (row as f64 + 0.5) * ROW;
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <line x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{:.1}\" y2=\"{y:.1}\" stroke=\"#eeeeee\"/>",
            LEFT - 10.0,
            y + 4.0,
            escape(&operation.title),
            LEFT + WIDTH
        );
        let noticeable = |configuration: &str| {
            record.added(&operation.key, configuration).filter(|added| *added >= 10f64.powf(LEAST))
        };
        if let Some(floor) = noticeable(FLOOR) {
            let at = x(floor);
            let _ = writeln!(
                svg,
                "<line x1=\"{at:.1}\" y1=\"{:.1}\" x2=\"{at:.1}\" y2=\"{:.1}\" stroke=\"#cc0000\" stroke-width=\"3\"/>",
                y - 10.0,
                y + 10.0
            );
        }
        for (index, configuration) in drawn.iter().enumerate() {
            if let Some(added) = noticeable(&configuration.key) {
                mark(&mut svg, index, x(added), y);
            }
        }
    }
    svg.push_str("</svg>\n");
    svg
}

/// Two lines of what the marks mean.
fn legend(svg: &mut String, titles: &[&str]) {
    let _ = writeln!(
        svg,
        "<line x1=\"18\" y1=\"38\" x2=\"18\" y2=\"54\" stroke=\"#cc0000\" stroke-width=\"3\"/>\
         <text x=\"28\" y=\"50\">the floor: empty programs on the same hooks</text>"
    );
    for (index, title) in titles.iter().enumerate() {
        let (column, line) = (index % 8, index / 8);
        let (at, y) = (18.0 + column as f64 * 116.0, 68.0 + line as f64 * 18.0);
        mark(svg, index, at, y);
        let _ = writeln!(svg, "<text x=\"{:.1}\" y=\"{:.1}\">{}</text>", at + 10.0, y + 4.0, escape(title));
    }
}

/// The mark of a configuration: circles, squares, triangles and diamonds in turn.
fn mark(svg: &mut String, index: usize, x: f64, y: f64) {
    let colour = COLOURS[index % COLOURS.len()];
    let _ = match index % 4 {
        0 => writeln!(
            svg,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"5\" fill=\"{colour}\" fill-opacity=\"0.8\"/>"
        ),
        1 => writeln!(
            svg,
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"9\" height=\"9\" fill=\"{colour}\" fill-opacity=\"0.8\"/>",
            x - 4.5,
            y - 4.5
        ),
        2 => writeln!(
            svg,
            "<path d=\"M{x:.1} {:.1}l6 10h-12z\" fill=\"{colour}\" fill-opacity=\"0.8\"/>",
            y - 5.5
        ),
        _ => writeln!(
            svg,
            "<path d=\"M{x:.1} {:.1}l6 6l-6 6l-6 -6z\" fill=\"{colour}\" fill-opacity=\"0.8\"/>",
            y - 6.0
        ),
    };
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_times_as_much_is_equally_far_everywhere() {
        let steps: Vec<f64> = (1..=5).map(|power| x(10f64.powi(power + 1)) - x(10f64.powi(power))).collect();
        assert!(steps.iter().all(|step| (step - steps[0]).abs() < 1e-9), "{steps:?}");
        assert_eq!(x(0.0), LEFT);
    }
}
