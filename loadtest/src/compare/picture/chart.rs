//! Line charts side by side, as SVG without fonts, scripts or a background of their own: the
//! colours are readable on white and on black.

use std::fmt::Write as _;

/// Size of a panel.
const PANEL: (f64, f64) = (360.0, 312.0);
/// Space around the plot inside its panel: left, top, right, bottom.
const MARGIN: (f64, f64, f64, f64) = (58.0, 76.0, 22.0, 44.0);
/// Axes and words.
const INK: &str = "#7d8590";
/// One for each server.
const COLOURS: [&str; 5] = ["#2f81f7", "#db6d28", "#2da44e", "#a371f7", "#bf3989"];
/// The most lines across a plot.
const TICKS_MAX: f64 = 5.0;

/// How values become heights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scale {
    /// From zero on, in equal steps.
    Linear,
    /// Each decade as high as the next.
    Logarithmic,
}

/// One line.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Series {
    /// What it is called in the legend.
    pub(super) name: String,
    /// Its points, from left to right; all are above zero.
    pub(super) points: Vec<(f64, f64)>,
}

/// One chart.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Panel {
    /// What it shows.
    pub(super) title: &'static str,
    /// The unit of its values.
    pub(super) unit: &'static str,
    /// How values become heights; the horizontal axis is always logarithmic.
    pub(super) scale: Scale,
    /// The lines.
    pub(super) series: Vec<Series>,
}

/// One direction of a plot: values between two bounds, laid out between two places.
#[derive(Debug, Clone)]
struct Axis {
    scale: Scale,
    values: (f64, f64),
    places: (f64, f64),
    ticks: Vec<f64>,
}

impl Axis {
    /// An axis for values from `least` to `most`.
    fn new(scale: Scale, least: f64, most: f64, places: (f64, f64)) -> Self {
        let (values, ticks) = match scale {
            Scale::Linear => linear(most),
            Scale::Logarithmic => logarithmic(least, most),
        };
        Self { scale, values, places, ticks }
    }

    /// Where a value lies.
    fn place(&self, value: f64) -> f64 {
        let of = |value: f64| match self.scale {
            Scale::Linear => value,
            Scale::Logarithmic => value.log10(),
        };
        let (least, most) = (of(self.values.0), of(self.values.1));
        let share = (of(value) - least) / (most - least);
        self.places.0 + share * (self.places.1 - self.places.0)
    }
}

/// From zero to a round number, in round steps.
fn linear(most: f64) -> ((f64, f64), Vec<f64>) {
    let rough = most.max(f64::MIN_POSITIVE) / TICKS_MAX;
    let decade = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * decade);
    let step = step.into_iter().find(|step| *step >= rough * 0.999).unwrap_or(10.0 * decade);
    let count = (most / step - 0.001).ceil().max(1.0);
    ((0.0, count * step), (0..=count as u32).map(|tick| f64::from(tick) * step).collect())
}

/// Whole decades.
fn logarithmic(least: f64, most: f64) -> ((f64, f64), Vec<f64>) {
    let first = (least.log10() + 1e-9).floor() as i32;
    let last = ((most.log10() - 1e-9).ceil() as i32).max(first + 1);
    let ticks: Vec<f64> = (first..=last).map(|decade| 10_f64.powi(decade)).collect();
    ((ticks[0], ticks[ticks.len() - 1]), ticks)
}

/// All panels in a row, with one legend.
pub(super) fn document(panels: &[Panel], below: &str) -> String {
    let (width, height) = (PANEL.0 * panels.len().max(1) as f64, PANEL.1);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\" \
         fill=\"{INK}\">\n"
    );
    let names = names(panels);
    let mut left = MARGIN.0;
    for (name, colour) in names.iter().zip(COLOURS.iter().cycle()) {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "<path d=\"M{left} 14h24\" stroke=\"{colour}\" stroke-width=\"2.5\"/>\
             <text x=\"{}\" y=\"18\" font-size=\"13\">{}</text>",
            left + 30.0,
            escaped(name)
        );
        left += 56.0 + 8.0 * name.chars().count() as f64;
    }
    for (number, panel) in panels.iter().enumerate() {
        draw(&mut text, panel, &names, below, PANEL.0 * number as f64);
    }
    text.push_str("</svg>\n");
    text
}

/// The names of all lines, each once.
fn names(panels: &[Panel]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for series in panels.iter().flat_map(|panel| &panel.series) {
        if !names.contains(&series.name) {
            names.push(series.name.clone());
        }
    }
    names
}

fn draw(text: &mut String, panel: &Panel, names: &[String], below: &str, left: f64) {
    let points = || panel.series.iter().flat_map(|series| &series.points);
    let bounds = |of: fn(&(f64, f64)) -> f64| {
        points().map(of).fold((f64::MAX, f64::MIN_POSITIVE), |(least, most), value| {
            (least.min(value), most.max(value))
        })
    };
    let (bottom, right) = (PANEL.1 - MARGIN.3, left + PANEL.0 - MARGIN.2);
    let (least, most) = bounds(|point| point.0);
    let across = Axis::new(Scale::Logarithmic, least, most, (left + MARGIN.0, right));
    let (least, most) = bounds(|point| point.1);
    let up = Axis::new(panel.scale, least, most, (bottom, MARGIN.1));
    frame(text, panel, &across, &up, below);
    for series in &panel.series {
        let number = names.iter().position(|name| *name == series.name).unwrap_or(0);
        line(text, series, COLOURS[number % COLOURS.len()], panel.unit, &across, &up);
    }
}

/// Title, axes, ticks and their labels.
fn frame(text: &mut String, panel: &Panel, across: &Axis, up: &Axis, below: &str) {
    let (left, right) = across.places;
    let (bottom, top) = up.places;
    let _ = writeln!(
        text,
        "<text x=\"{left}\" y=\"{}\" font-size=\"13\">{}</text>\
         <text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\
         <text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
        top - 30.0,
        escaped(panel.title),
        left - 6.0,
        top - 10.0,
        escaped(panel.unit),
        f64::midpoint(left, right),
        bottom + 36.0,
        escaped(below)
    );
    for tick in &up.ticks {
        let y = up.place(*tick);
        let _ = writeln!(
            text,
            "<path d=\"M{left} {y:.1}H{right}\" stroke=\"{INK}\" stroke-opacity=\"0.25\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            left - 6.0,
            y + 4.0,
            short(*tick)
        );
    }
    for tick in &across.ticks {
        let x = across.place(*tick);
        let _ = writeln!(
            text,
            "<path d=\"M{x:.1} {bottom}v5\" stroke=\"{INK}\"/>\
             <text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            bottom + 18.0,
            short(*tick)
        );
    }
    let _ = writeln!(text, "<path d=\"M{left} {bottom}H{right}\" stroke=\"{INK}\"/>");
}

/// A line with its points; each says its value to a pointer that rests on it.
fn line(text: &mut String, series: &Series, colour: &str, unit: &str, across: &Axis, up: &Axis) {
    let places: Vec<(f64, f64)> =
        series.points.iter().map(|point| (across.place(point.0), up.place(point.1))).collect();
    let path: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let _ = writeln!(
        text,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2.5\"/>",
        path.join(" ")
    );
    for ((x, y), (at, value)) in places.iter().zip(&series.points) {
        let _ = writeln!(
            text,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{colour}\"><title>{}: {} at \
             {}</title></circle>",
            escaped(&series.name),
            escaped(&format!("{} {unit}", short(*value))),
            short(*at)
        );
    }
}

/// A number in few characters: 250, 1.5k, 1M.
fn short(value: f64) -> String {
    let (value, suffix) = match value {
        v if v >= 999_500.0 => (v / 1e6, "M"),
        v if v >= 999.5 => (v / 1e3, "k"),
        v => (v, ""),
    };
    let digits = match value {
        v if v >= 100.0 || v == 0.0 => 0,
        v if v >= 10.0 => 1,
        v if v >= 1.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    let text = if digits > 0 { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{suffix}")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_hold_all_values() {
        assert_eq!(linear(4.2).1, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(linear(1_000_000.0).0, (0.0, 1_000_000.0));
        assert_eq!(linear(0.7).1.len(), 5);
        assert_eq!(logarithmic(100.0, 100_000.0).1, [100.0, 1e3, 1e4, 1e5]);
        assert_eq!(logarithmic(150.0, 200.0).0, (100.0, 1000.0));
        assert_eq!(logarithmic(10.0, 10.0).0, (10.0, 100.0), "never without height");
    }

    #[test]
    fn values_lie_between_the_ends_of_their_axis() {
        let axis = Axis::new(Scale::Logarithmic, 100.0, 10_000.0, (0.0, 100.0));
        assert_eq!([100.0, 1000.0, 10_000.0].map(|value| axis.place(value)), [0.0, 50.0, 100.0]);
        let up = Axis::new(Scale::Linear, 3.0, 10.0, (200.0, 0.0));
        assert_eq!([0.0, 5.0, 10.0].map(|value| up.place(value)), [200.0, 100.0, 0.0]);
    }

    #[test]
    fn numbers_are_short() {
        let texts = [0.0, 0.125, 2.5, 50.0, 1000.0, 1500.0, 123_456.0, 1e6].map(short);
        assert_eq!(texts, ["0", "0.125", "2.5", "50", "1k", "1.5k", "123k", "1M"]);
    }

    #[test]
    fn a_picture_is_well_formed_and_names_everything_once() {
        let series = |name: &str, factor: f64| Series {
            name: name.into(),
            points: vec![(100.0, 3.0 * factor), (1000.0, 20.0 * factor)],
        };
        let panel = |title, scale| Panel {
            title,
            unit: "ms",
            scale,
            series: vec![series("castd", 1.0), series("a <b> & c", 7.0)],
        };
        let panels = [panel("one", Scale::Linear), panel("two", Scale::Logarithmic)];
        let text = document(&panels, "watchers");
        assert!(text.starts_with("<svg ") && text.ends_with("</svg>\n"));
        assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
        assert_eq!(text.matches("<polyline").count(), 4);
        assert_eq!(text.matches("<circle").count(), 8);
        assert_eq!(text.matches(">castd</text>").count(), 1, "one legend for all panels");
        assert!(text.contains("a &lt;b&gt; &amp; c"));
        let opened = text.matches("<text").count();
        assert_eq!(opened, text.matches("</text>").count());
    }
}
