//! The comparison as Markdown.

use std::fmt::Write as _;

use super::facts::Facts;
use super::figures::{Figure, Figures};
use super::summary::{Median, Ratio, Summary};

/// A page with the facts of the machine, the medians and the ratios.
pub(super) fn document(facts: &Facts, summary: &Summary) -> String {
    let mut text = facts.markdown();
    text.push_str("\nMedians:\n");
    for table in tables(&summary.medians, |median| &median.figures) {
        text.push('\n');
        text.push_str(&medians(&table));
    }
    if let Some(ratio) = summary.ratios.first() {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "\nRatios, {} over the other:", ratio.of);
        for table in tables(&summary.ratios, |ratio| &ratio.figures) {
            text.push('\n');
            text.push_str(&ratios(&table));
        }
    }
    text
}

/// Rows with much the same columns, so that no table is mostly empty: a table for the load
/// alone, one for what happens when a leader goes, one for members that catch up, and those
/// for watchers at rest, beside writers, when some stop, and from the past.
fn tables<T>(rows: &[T], figures: impl Fn(&T) -> &Figures) -> Vec<Vec<&T>> {
    let kind = |row: &T| match figures(row) {
        found if found.contains_key(&Figure::GapMs) => 1,
        found if found.contains_key(&Figure::MadeUpSeconds) => 5,
        found if found.contains_key(&Figure::P99BeforeMs) => 2,
        found if found.contains_key(&Figure::WatcherRssBytes) => 3,
        found if found.contains_key(&Figure::PutShare) => 4,
        found if found.contains_key(&Figure::Pending) => 6,
        _ => 0,
    };
    let table = |number| rows.iter().filter(|row| kind(row) == number).collect::<Vec<_>>();
    (0..=6).map(table).filter(|table| !table.is_empty()).collect()
}

fn medians(medians: &[&Median]) -> String {
    let columns = columns(&medians.iter().map(|median| &median.figures));
    let titles = columns.iter().map(|figure| format!("{} {}", figure.name(), figure.unit()));
    let mut text = heading("| work | server |", titles);
    for median in medians {
        let _ = write!(text, "| {} | {} |", median.work, median.server);
        for figure in &columns {
            let value = median.figures.get(figure).map(|value| figure.text(*value));
            let _ = write!(text, " {} |", value.unwrap_or_default());
        }
        text.push('\n');
    }
    for median in medians.iter().filter(|median| median.errors > 0) {
        let Median { work, server, errors, .. } = median;
        let _ = write!(text, "\n**{errors} faults in {work} by {server}.**\n");
    }
    text
}

fn ratios(ratios: &[&Ratio]) -> String {
    let columns = columns(&ratios.iter().map(|ratio| &ratio.figures));
    let titles = columns.iter().map(|figure| figure.name().to_owned());
    let mut text = heading("| work | against |", titles);
    for ratio in ratios {
        let _ = write!(text, "| {} | {} |", ratio.work, ratio.over);
        for figure in &columns {
            let value = ratio.figures.get(figure).map(|value| times(*value));
            let _ = write!(text, " {} |", value.unwrap_or_default());
        }
        text.push('\n');
    }
    text
}

/// A quotient: small ones need more digits.
fn times(value: f64) -> String {
    match value {
        v if v >= 10.0 => format!("{v:.1}"),
        v if v >= 0.1 => format!("{v:.2}"),
        v => format!("{v:.4}"),
    }
}

/// The figures that occur at all.
fn columns<'a>(figures: &(impl Iterator<Item = &'a Figures> + Clone)) -> Vec<Figure> {
    let occurs = |figure: &Figure| figures.clone().any(|found| found.contains_key(figure));
    Figure::ALL.into_iter().filter(occurs).collect()
}

fn heading(start: &str, titles: impl ExactSizeIterator<Item = String>) -> String {
    let rule = "---|".repeat(titles.len());
    let mut text = start.to_owned();
    for title in titles {
        let _ = write!(text, " {title} |");
    }
    let _ = writeln!(text, "\n|---|---|{rule}");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_only_the_columns_that_have_values() {
        let ratio = |work: &str, figures: &[(Figure, f64)]| Ratio {
            work: work.into(),
            of: "castd".into(),
            over: "etcd".into(),
            figures: figures.iter().copied().collect(),
        };
        let all = [
            ratio("put-64", &[(Figure::Rate, 2.345), (Figure::ServerCpuUs, 0.31)]),
            ratio("failover-stop", &[(Figure::GapMs, 0.5)]),
            ratio("count", &[(Figure::Rate, 123.4), (Figure::P50Ms, 0.00123)]),
        ];
        let tables: Vec<String> =
            tables(&all, |ratio| &ratio.figures).iter().map(|table| ratios(table)).collect();
        assert!(tables[1].contains("| failover-stop | etcd | 0.50 |"), "{}", tables[1]);
        let lines: Vec<&str> = tables[0].lines().collect();
        assert_eq!(
            lines,
            [
                "| work | against | rate | p50 | server CPU |",
                "|---|---|---|---|---|",
                "| put-64 | etcd | 2.35 |  | 0.31 |",
                "| count | etcd | 123.4 | 0.0012 |  |",
            ]
        );
    }
}
