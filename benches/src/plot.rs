//! Pictures of costs: points on two logarithmic axes, as SVG.

use std::fmt::Write as _;

/// One cost.
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 540.0;
/// Room for the axis at the left, for names at the right, above and below.
const MARGINS: [f64; 4] = [70.0, 300.0, 40.0, 50.0];
const COLOURS: [&str; 8] =
    ["#1b6ca8", "#c0392b", "#1e8449", "#8e44ad", "#b9770e", "#117a65", "#5d6d7e", "#d35400"];

/// The whole decades that hold all of these; what is not above 0 has no place on such an axis.
fn decades(values: impl Iterator<Item = f64>) -> Option<(i32, i32)> {
    let logs = values.filter(|value| *value > 0.0).map(f64::log10);
    let (low, high) = logs
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), log| (low.min(log), high.max(log)));
    (low <= high).then(|| (low.floor() as i32, (high.ceil() as i32).max(low.floor() as i32 + 1)))
}

/// A plot with its names beside it. Without a point it says so.
pub(crate) fn log_log(title: &str, across: &str, series: &[Series]) -> String {
    let [left, right, top, bottom] = MARGINS;
    let points = || series.iter().flat_map(|series| &series.points);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{left}\" y=\"24\" font-size=\"16\">{}</text>\n",
        escaped(title)
    );
    let x_range = decades(points().map(|(x, _)| *x));
    let y_range = decades(points().map(|(_, y)| *y));
    let (Some((x0, x1)), Some((y0, y1))) = (x_range, y_range) else {
        svg += "<text x=\"70\" y=\"80\">nothing was measured</text>\n</svg>\n";
        return svg;
    };
    let place =
        |value: f64, from: i32, to: i32| (value.log10() - f64::from(from)) / f64::from(to - from);
    let x_of = |x: f64| left + place(x, x0, x1) * (WIDTH - left - right);
    let y_of = |y: f64| HEIGHT - bottom - place(y, y0, y1) * (HEIGHT - top - bottom);
    // Writing to a string cannot fail.
    for decade in x0..=x1 {
        let x = x_of(10_f64.powi(decade));
        let (from, to) = (top, HEIGHT - bottom);
        let _ = writeln!(
            svg,
            "<path d=\"M{x:.1} {from}V{to}\" stroke=\"#ddd\"/>\
             <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            to + 18.0,
            decade_name(decade)
        );
    }
    for decade in y0..=y1 {
        let y = y_of(10_f64.powi(decade));
        let _ = writeln!(
            svg,
            "<path d=\"M{left} {y:.1}H{}\" stroke=\"#ddd\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            WIDTH - right,
            left - 6.0,
            y + 4.0,
            decade_name(decade)
        );
    }
    let _ = writeln!(svg, "<text x=\"{left}\" y=\"{}\">{}</text>", HEIGHT - 10.0, escaped(across));
    for (number, Series { name, points }) in series.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        let mut path = String::new();
        for (x, y) in points.iter().filter(|(x, y)| *x > 0.0 && *y > 0.0) {
            let (x, y) = (x_of(*x), y_of(*y));
            let step = if path.is_empty() { 'M' } else { 'L' };
            let _ = write!(path, "{step}{x:.1} {y:.1}");
            let _ =
                writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>");
        }
        let y = top + 16.0 * number as f64;
        let _ = writeln!(
            svg,
            "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\"/>\
             <text x=\"{}\" y=\"{y:.1}\" fill=\"{colour}\">{}</text>",
            WIDTH - right + 10.0,
            escaped(name)
        );
    }
    svg += "</svg>\n";
    svg
}

fn decade_name(decade: i32) -> String {
    match decade {
        0..=5 => format!("{}", 10_u64.pow(decade.unsigned_abs())),
        -3..=-1 => format!("{}", 10_f64.powi(decade)),
        _ => format!("1e{decade}"),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_lie_where_their_decades_are() {
        let points = vec![(1.0, 1.0), (10.0, 100.0), (100.0, 0.0)];
        let svg = log_log("a < b", "n", &[Series { name: "cost".into(), points }]);
        assert!(svg.contains("a &lt; b"));
        // What is 0 has no logarithm, and no point.
        assert_eq!(svg.matches("<circle").count(), 2);
        let [left, _, top, bottom] = MARGINS;
        assert!(svg.contains(&format!("M{left:.1} {:.1}L", HEIGHT - bottom)), "{svg}");
        assert!(svg.contains(&format!("cy=\"{top:.1}\"")), "{svg}");
        assert!(log_log("t", "n", &[]).contains("nothing was measured"));
    }
}
