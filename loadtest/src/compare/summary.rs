//! Medians over the rounds, and ratios of the first server to the others.

use std::collections::BTreeMap;

use serde::Serialize;

use super::contender::Contender;
use super::figures::{Figure, Figures, Row};

/// Name of the server that does nothing.
pub(super) const EMPTY_CALL: &str = "empty call";

/// What remains of all rounds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Summary {
    /// Medians, in the order the works were run.
    pub(super) medians: Vec<Median>,
    /// The first server's medians over the others', work by work.
    pub(super) ratios: Vec<Ratio>,
}

/// The medians of one work by one server.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Median {
    /// The work's name.
    pub(super) work: String,
    /// The server's name.
    pub(super) server: String,
    /// Clients, when the work is compared with the empty call.
    clients: Option<usize>,
    /// Rounds behind it.
    pub(super) rounds: usize,
    /// The median of each figure.
    pub(super) figures: Figures,
    /// Failed calls, all rounds together.
    pub(super) errors: u64,
}

/// One server's medians over another's.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Ratio {
    /// The work's name.
    pub(super) work: String,
    /// The server above the line.
    pub(super) of: String,
    /// The server below the line.
    pub(super) over: String,
    /// The quotients; a figure that is nothing below the line has none.
    pub(super) figures: Figures,
}

impl Summary {
    /// Sums up all rows.
    pub(super) fn of(rows: &[Row], contenders: &[Contender]) -> Self {
        let medians = medians(rows);
        let first = contenders.first().map_or("", |contender| contender.name.as_str());
        let ratios = ratios(&medians, first);
        Self { medians, ratios }
    }
}

fn medians(rows: &[Row]) -> Vec<Median> {
    let mut medians: Vec<Median> = Vec::new();
    for row in rows {
        let is_same = |work: &str, server: &str| row.work == work && row.server == server;
        if medians.iter().any(|median| is_same(&median.work, &median.server)) {
            continue;
        }
        let same: Vec<&Row> = rows.iter().filter(|r| is_same(&r.work, &r.server)).collect();
        medians.push(Median {
            work: row.work.clone(),
            server: row.server.clone(),
            clients: row.clients,
            rounds: same.len(),
            figures: median_figures(&same),
            errors: same.iter().map(|row| row.errors).sum(),
        });
    }
    // The servers of a work side by side, works in the order of the first round.
    let order: Vec<String> = medians.iter().map(|median| median.work.clone()).collect();
    medians.sort_by_key(|median| order.iter().position(|work| *work == median.work));
    medians
}

fn median_figures(rows: &[&Row]) -> Figures {
    let mut values: BTreeMap<Figure, Vec<f64>> = BTreeMap::new();
    for (figure, value) in rows.iter().flat_map(|row| &row.figures) {
        values.entry(*figure).or_default().push(*value);
    }
    values.into_iter().filter_map(|(figure, values)| Some((figure, median(values)?))).collect()
}

/// The middle value, or the mean of the two in the middle; nothing of nothing.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        length if length % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

fn ratios(medians: &[Median], first: &str) -> Vec<Ratio> {
    let mut ratios = Vec::new();
    for own in medians.iter().filter(|median| median.server == first) {
        let others = medians.iter().filter(|other| {
            let same_work = other.work == own.work && other.server != first;
            let floor = other.server == EMPTY_CALL && other.clients == own.clients;
            same_work || (floor && own.clients.is_some())
        });
        ratios.extend(others.map(|other| Ratio {
            work: own.work.clone(),
            of: own.server.clone(),
            over: other.server.clone(),
            figures: quotients(own, other),
        }));
    }
    ratios
}

fn quotients(above: &Median, below: &Median) -> Figures {
    let is_floor = below.server == EMPTY_CALL;
    let quotient = |(figure, value): (&Figure, &f64)| {
        let divisor = below.figures.get(figure).filter(|divisor| **divisor > 0.0)?;
        (!is_floor || figure.has_floor()).then_some((*figure, value / divisor))
    };
    above.figures.iter().filter_map(quotient).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(round: usize, work: &str, server: &str, clients: Option<usize>, rate: f64) -> Row {
        Row {
            round,
            work: work.into(),
            server: server.into(),
            clients,
            figures: Figures::from([(Figure::Rate, rate), (Figure::WrittenBytes, 0.0)]),
            errors: 1,
            failures: BTreeMap::new(),
        }
    }

    #[test]
    fn medians_of_odd_and_even_numbers_of_rounds() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0]), Some(3.0));
        assert_eq!(median(vec![9.0, 1.0, 5.0]), Some(5.0));
        assert_eq!(median(vec![9.0, 1.0, 5.0, 7.0]), Some(6.0));
    }

    #[test]
    fn the_first_server_is_set_against_the_others_and_the_empty_call() {
        let mut rows = Vec::new();
        for (round, factor) in [(1, 1.0), (2, 3.0), (3, 2.0)] {
            rows.push(row(round, "put-64", "castd", Some(64), 30.0 * factor));
            rows.push(row(round, "count", "castd", None, 1.0));
            rows.push(row(round, "put-64", "etcd", Some(64), 10.0 * factor));
            rows.push(row(round, "empty-64", EMPTY_CALL, Some(64), 40.0 * factor));
            rows.push(row(round, "empty-9", EMPTY_CALL, Some(9), 50.0));
        }
        let medians = medians(&rows);
        let works: Vec<_> = medians.iter().map(|m| (m.work.as_str(), m.server.as_str())).collect();
        let empties = [("empty-64", EMPTY_CALL), ("empty-9", EMPTY_CALL)];
        assert_eq!(works[..3], [("put-64", "castd"), ("put-64", "etcd"), ("count", "castd")]);
        assert_eq!(works[3..], empties);
        assert_eq!(medians[0].figures[&Figure::Rate], 60.0);
        assert_eq!((medians[0].rounds, medians[0].errors), (3, 3));

        let ratios = ratios(&medians, "castd");
        let found: Vec<_> = ratios
            .iter()
            .map(|r| (r.work.as_str(), r.over.as_str(), r.figures[&Figure::Rate]))
            .collect();
        assert_eq!(found, [("put-64", "etcd", 3.0), ("put-64", EMPTY_CALL, 0.75)]);
        assert!(!ratios[0].figures.contains_key(&Figure::WrittenBytes), "nothing over nothing");
    }
}
